"""JSON web tokens of one issuer: HS256, RS256, ES256, EdDSA.

What the claims mean stands in `jwt_claims`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import operator
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.jwks_url import JwksUrl
from otelprogress_collector.auth.jwt_claims import principal_of
from otelprogress_collector.auth.jwt_key_files import KeyFile, watch_key_set, watch_public_key, watch_secret
from otelprogress_collector.auth.jwt_keys import ALGORITHMS, MAX_KID_CHARS, VerificationKey, candidates
from otelprogress_collector.auth.principal import Denied, Principal
from otelprogress_collector.auth.watched_file import CHECK_EVERY_S

MAX_TOKEN_CHARS: Final = 8192
_SEGMENTS: Final = 3
_MAX_VERIFIED: Final = 1024
_VERIFIER: Final = jwt.PyJWS(options={"verify_signature": True, "enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtConfig:
    """One issuer. At least one source of keys must be given; those of all given ones count."""

    issuer: str
    """Equal to the claim `iss`, character by character."""
    audiences: tuple[str, ...]
    """At least one; the claim `aud` names one of them."""
    secret_file: Path | None = None
    """An HS256 secret of at least 32 bytes, mode 0600 (or 0640)."""
    public_key_file: Path | None = None
    """A PEM public key of RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)."""
    jwks_file: Path | None = None
    """A JWKS. If it holds secrets (`kty` = `oct`), its mode must be 0600 (or 0640)."""
    jwks_url: str | None = None
    """A JWKS by https, or by http on loopback."""
    jwks_ca_file: Path | None = None
    """Whom to trust for that URL; `None`: the system's authorities."""
    leeway_s: float = 10.0
    """For `nbf` and `iat`, where clocks differ. None for `exp`: no event leaves after it."""


class JwtTokens:
    """Judges the tokens of one issuer.

    Args:
        config: the issuer and its keys.
        monotonic_s: the clock that intervals are measured by.
        check_every_s: the least time between two looks at a file of keys.

    Raises:
        InvalidValue: a setting that cannot be meant, or a file of keys that cannot be used at the beginning.
    """

    def __init__(
        self,
        config: JwtConfig,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        if not config.issuer or not config.audiences or "" in config.audiences:
            raise InvalidValue("JWTs need an issuer and at least one audience, neither of them empty")
        self.config = config
        self._files: list[KeyFile] = []
        for path, watch in (
            (config.secret_file, watch_secret),
            (config.public_key_file, watch_public_key),
            (config.jwks_file, watch_key_set),
        ):
            if path is not None:
                self._files.append(watch(path, now_s=monotonic_s(), check_every_s=check_every_s))
        self.url = (
            JwksUrl(
                config.jwks_url,
                ca_file=None if config.jwks_ca_file is None else str(config.jwks_ca_file),
                monotonic_s=monotonic_s,
            )
            if config.jwks_url is not None
            else None
        )
        self._verified: OrderedDict[bytes, Mapping[str, Any]] = OrderedDict()
        """Claims by the hash of the token, of tokens whose signature was verified by the keys in `_verified_by`."""
        self._verified_by = self._sources()
        if not self._files and self.url is None:
            raise InvalidValue(
                "JWTs need a source of keys: a secret, a public key, a JWKS file or a JWKS URL"
            )

    @property
    def keys(self) -> list[VerificationKey]:
        """All keys that are known now."""
        return [key for source in self._sources() for key in source]

    def due(self, now_s: float) -> bool:
        """Whether `refresh` would look at a file."""
        return any(file.due(now_s) for file in self._files)

    def refresh(self, now_s: float) -> None:
        """Look at the files of keys if it is time to. Never raises."""
        for file in self._files:
            file.refresh(now_s)

    async def prepare(self, token: str) -> None:
        """Fetch the key that the token names, if it is of a URL. Never raises."""
        if self.url is None:
            return
        header = _header(token)
        if header is None or header[0] == "HS256":
            return
        algorithm, kid = header
        in_files = [key for file in self._files for key in file.content]
        # A key in a PEM file has no id: only a verification tells whether the token is one of its own.
        if not any(_payload(token, key) is not None for key in candidates(in_files, algorithm, kid)):
            await self.url.prepare(algorithm, kid)

    def verifies(self, token: str) -> Mapping[str, Any] | None:
        """The claims, if a key of this issuer signed them; `None`: none did. No I/O.

        A signature that was verified is not verified again while the keys are the same: an exporter sends the same
        token with each request, and a signature costs more than all the rest.

        Raises:
            Denied: it is no token, or one that is taken from nobody.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise Denied("the token is damaged: no token is that long")
        sources = self._sources()
        if not all(map(operator.is_, sources, self._verified_by)):
            self._verified.clear()
            self._verified_by = sources
        digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._verify(token)
            if claims is not None:
                self._verified[digest] = claims
                if len(self._verified) > _MAX_VERIFIED:
                    self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(digest)
        return claims

    def _verify(self, token: str) -> Mapping[str, Any] | None:
        header = _header(token)
        if header is None:
            raise Denied("the token is damaged, or its algorithm is not HS256, RS256, ES256 or EdDSA")
        algorithm, kid = header
        for key in candidates(self.keys, algorithm, kid):
            payload = _payload(token, key)
            if payload is not None:
                claims = _json_object(payload)
                if claims is None:
                    raise Denied("the token's claims are no JSON object, or say something twice")
                return claims
        return None

    def _sources(self) -> tuple[tuple[VerificationKey, ...], ...]:
        # New keys come as a new tuple, so that identity tells whether these are still the same.
        keys = [file.content for file in self._files]
        return tuple(keys) if self.url is None else (*keys, self.url.keys)

    def judge(self, token: str, now_unix_s: float) -> Principal:
        """Whose token that is. No I/O.

        Raises:
            Denied: says what is wrong; of the token it quotes nothing.
        """
        claims = self.verifies(token)
        if claims is None:
            raise Denied("the token is not signed by a key that is known here")
        return self.principal_of(claims, now_unix_s)

    def principal_of(self, claims: Mapping[str, Any], now_unix_s: float) -> Principal:
        """Whose claims those are, which `verifies` gave.

        Raises:
            Denied: a claim is missing, of the wrong type or over.
        """
        config = self.config
        return principal_of(
            claims,
            issuer=config.issuer,
            audiences=config.audiences,
            leeway_s=config.leeway_s,
            now_unix_s=now_unix_s,
        )

    async def close(self) -> None:
        """End a fetch that is under way. A second call does nothing."""
        if self.url is not None:
            await self.url.close()


def is_jwt(token: str) -> bool:
    """Whether it has the look of one: three parts."""
    return token.count(".") == _SEGMENTS - 1


def _header(token: str) -> tuple[str, str | None] | None:
    """`alg` and `kid`; `None`: no token of a kind that is taken here. Not to be believed before the signature was verified."""
    if len(token) > MAX_TOKEN_CHARS or not token.isascii() or not is_jwt(token):
        return None
    encoded = token.partition(".")[0]
    content = b""
    try:
        content = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    header = _json_object(content)
    # An extension that is not understood must not be passed over (RFC 7515, 4.1.11), and none is needed here.
    if header is None or "crit" in header or "b64" in header:
        return None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        return None
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID_CHARS):
        return None
    return algorithm, kid


def _payload(token: str, key: VerificationKey) -> bytes | None:
    """The payload, if this key signed it."""
    try:
        payload = _VERIFIER.decode(token, key.key, algorithms=[key.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):
        # What they say quotes the token; that no key fits is all there is to know.
        return None
    return payload if isinstance(payload, bytes) else None


def _json_object(content: bytes) -> dict[str, Any] | None:
    """The object in a JSON text; `None`: it is none, says a name twice or holds numbers that JSON does not have."""
    try:
        value = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Who checks the first and who checks the last of two claims must not disagree.
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name is said twice")
    return value


def _no_constant(text: str) -> float:
    raise ValueError("NaN and Infinity are no JSON")
