"""TLS on the collector's own ports, and what may be listened on without it."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.private_file import read_private

if TYPE_CHECKING:
    import grpc  # type: ignore[import-untyped]  # grpcio ships no types

_MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Files in PEM."""

    cert_file: Path
    """The certificate and those between it and its authority."""
    key_file: Path
    """Its private key, without a passphrase; mode 0600, or 0640."""
    client_ca_file: Path | None = None
    """Clients must show a certificate of one of these authorities (mTLS); `None`: they need none."""


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """The context of the HTTP port: TLS 1.2 or newer.

    Raises:
        InvalidValue: a file is missing or cannot be used; names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _pem(config.cert_file, b"CERTIFICATE", "certificate")
    if b"ENCRYPTED" in _pem(config.key_file, b"PRIVATE KEY", "private key", secret=True):
        raise InvalidValue(
            f"the private key in {config.key_file} has a passphrase: `openssl pkey` writes one without"
        )
    try:
        context.load_cert_chain(config.cert_file, config.key_file, password=_no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        mismatch = isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH"
        if mismatch:
            message = (
                f"the private key in {config.key_file} is not that of the certificate in {config.cert_file}"
            )
        else:
            message = f"cannot use {config.cert_file} with {config.key_file}: {_reason(error)}"
        raise InvalidValue(message) from None
    if config.client_ca_file is not None:
        _pem(config.client_ca_file, b"CERTIFICATE", "certificate")
        try:
            context.load_verify_locations(cafile=config.client_ca_file)
        except (ssl.SSLError, OSError) as error:
            raise InvalidValue(
                f"cannot use the authorities in {config.client_ca_file}: {_reason(error)}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def grpc_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """The same for the gRPC port.

    Raises:
        InvalidValue: a file is missing or cannot be used; names it.
    """
    import grpc

    server_context(config)  # grpc itself says nothing of what is wrong with a file before a client comes
    authorities = config.client_ca_file
    return grpc.ssl_server_credentials(
        [(config.key_file.read_bytes(), config.cert_file.read_bytes())],
        root_certificates=None if authorities is None else authorities.read_bytes(),
        require_client_auth=authorities is not None,
    )


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach that address. A name other than `localhost` might be any address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, tls: bool, auth: bool, insecure: bool) -> None:
    """Refuse to listen where others could read or write progress by accident.

    Args:
        host: the address to listen on; an empty one is every address.
        tls: whether certificate and key are configured.
        auth: whether tokens are needed, for OTLP too.
        insecure: whether it was said that this is meant.

    Raises:
        InvalidValue: says what is missing and what to do.
    """
    if insecure or is_loopback(host):
        return
    missing = [
        *([] if tls else ["a certificate and its key, since tokens and progress would travel readable"]),
        *([] if auth else ["tokens, since anybody who reaches the port could read and write progress"]),
    ]
    if missing:
        raise InvalidValue(
            f"listening on {host or 'every address'} needs {'; and '.join(missing)}. "
            "Listen on 127.0.0.1, or say --insecure if something in front of the collector takes care of that"
        )


def ingest_needs_token(host: str, *, ingest_token: bool, no_auth: bool) -> bool:
    """Whether OTLP without a token is refused: always beyond loopback, there only when asked for."""
    return not no_auth and (ingest_token or not is_loopback(host))


def _pem(path: Path, label: bytes, what: str, *, secret: bool = False) -> bytes:
    try:
        content = (
            read_private(path, max_bytes=_MAX_BYTES, group_may_read=True) if secret else path.read_bytes()
        )
    except OSError as error:
        raise InvalidValue(f"cannot read {path}: {error.strerror or error}") from None
    if b"-----BEGIN " not in content or label not in content:
        raise InvalidValue(f"{path} holds no {what} in PEM (`-----BEGIN …{label.decode()}-----`)")
    return content


def _no_passphrase() -> str:
    # Asked for one, OpenSSL would otherwise wait for it at the terminal.
    raise ValueError("the private key has a passphrase")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not what it should be").replace("_", " ").lower()
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
