"""What settings come to beyond addresses: TLS, issuers of tokens, limits. Opens the files that a start would open.

Nothing of what is secret is said: of a key its algorithm, of a URL no query.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_certificates

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.authority import check_issuers
from otelprogress_collector.auth.deny_list import DenyList
from otelprogress_collector.auth.jwt_tokens import JwtConfig, JwtTokens

if TYPE_CHECKING:
    from otelprogress_collector.auth.tls import TlsConfig
    from otelprogress_collector.config import Config, JwtIssuer

_SURVIVES: Final = {
    "memory": "nothing, also not a restart",
    "disk": "SIGKILL; a power cut may cost the last moments",
    "fsync": "a power cut",
}
_BY_URL: Final = "RS256, ES256 or EdDSA, as its keys are,"
_MAX_SHOWN: Final = 8


def jwt_configs(config: Config) -> tuple[JwtConfig, ...]:
    """The issuers, as `auth` takes them."""
    return tuple(JwtConfig(**issuer.model_dump()) for issuer in config.jwt)


def tls_lines(tls: TlsConfig | None) -> Iterator[str]:
    """Whose certificate is shown, until when, and whose clients' certificates are asked for.

    Raises:
        InvalidValue: a file that holds no certificate.
    """
    if tls is None:
        yield "tls       off"
        return
    try:
        certificate = load_pem_x509_certificate(tls.cert_file.read_bytes())
        authorities = (
            [] if tls.client_ca_file is None else load_pem_x509_certificates(tls.client_ca_file.read_bytes())
        )
    except ValueError as error:
        raise InvalidValue(f"a certificate of TLS cannot be read: {error}") from None
    until = certificate.not_valid_after_utc
    over = " (EXPIRED)" if until.timestamp() < time.time() else ""
    yield (
        f"tls       certificate {tls.cert_file} of {certificate.subject.rfc4514_string() or 'nobody by name'}, "
        f"until {until:%Y-%m-%d}{over}; key {tls.key_file}"
    )
    if tls.client_ca_file is None:
        yield "tls       clients need no certificate"
    else:
        names = "; ".join(one.subject.rfc4514_string() for one in authorities[:_MAX_SHOWN])
        yield f"tls       clients need a certificate of {tls.client_ca_file} ({names})"


def issuer_lines(config: Config) -> Iterator[str]:
    """Who makes JWTs, by which algorithms, and where the keys come from.

    Raises:
        InvalidValue: a file of keys, or the deny-list, that a start could not use.
    """
    if config.no_auth:
        return
    check_issuers(jwt_configs(config))
    for said, issuer in zip(config.jwt, jwt_configs(config), strict=True):
        tokens = JwtTokens(issuer)
        by_file = ", ".join(sorted({key.algorithm for key in tokens.keys})) or "no usable key yet"
        files = ", ".join(_files(said))
        sources = [f"{by_file} by {files}"] if files else []
        if said.jwks_url is not None:
            trusted = f" (trusting {said.jwks_ca_file})" if said.jwks_ca_file else ""
            sources.append(f"{_BY_URL} by {said.jwks_url.partition('?')[0]}{trusted}")
        yield f"jwt       {said.issuer} for {', '.join(said.audiences)}: {'; '.join(sources)}"
    if config.deny_list_file:
        DenyList(Path(config.deny_list_file), now_s=time.monotonic())
        yield f"denied    the ids in {config.deny_list_file}"


def _files(issuer: JwtIssuer) -> Iterator[str]:
    for what, path in (
        ("secret_file", issuer.secret_file),
        ("public_key_file", issuer.public_key_file),
        ("jwks_file", issuer.jwks_file),
    ):
        if path is not None:
            yield f"{what} {path}"


def limit_lines(config: Config) -> Iterator[str]:
    """What is kept for how long, and what is taken."""
    yield f"answered  survives {_SURVIVES[config.durability]}"
    yield (
        f"kept      {config.retention_age_s:g} s and {config.retention_max_bytes} bytes of journal, "
        f"{config.ring_events} events for cursors, {config.max_runs} operations, ended ones for {config.keep_ended_s:g} s"
    )
    rate = (
        f"{config.requests_per_s:g} a second of one token" if config.requests_per_s else "any number of them"
    )
    yield (
        f"taken     requests of {config.max_request_bytes} bytes, {rate}, {config.max_pending_bytes} bytes waiting, "
        f"{config.max_connections} feed connections"
    )
