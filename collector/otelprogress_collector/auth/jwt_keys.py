"""The keys that verify JWTs, each pinned to the one algorithm that its type allows.

The algorithm never comes from a token: an RSA key verifies RS256 and nothing else, a secret HS256 and nothing else, so a
public key can never be taken for a secret. What a key is made of appears in no message and no repr.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Final, Literal

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from otelprogress.exceptions import InvalidValue

_LOG = logging.getLogger("otelprogress_collector.auth")

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
ALGORITHMS: Final[frozenset[str]] = frozenset({"HS256", "RS256", "ES256", "EdDSA"})
MAX_KEYS: Final = 64
"""In one JWKS; further ones are not read."""
MIN_SECRET_BYTES: Final = 32
"""As long as the hash (RFC 7518, 3.2)."""
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Larger ones cost more time than a request is worth."""
MAX_KID_CHARS: Final = 256
_MAX_TRIES: Final = 8
"""Keys tried for one token: one without a `kid` must not cost a signature check for every key of a large set."""
_BY_TYPE: Final[dict[tuple[str, str], Algorithm]] = {
    ("RSA", ""): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
    ("oct", ""): "HS256",
}


class VerificationKey(msgspec.Struct, frozen=True):
    """One key."""

    algorithm: Algorithm
    key: Any
    """Bytes for HS256, else a public key of `cryptography`."""
    kid: str | None = None
    """`None`: it verifies tokens with any `kid`, and those without."""

    def __repr__(self) -> str:
        """Without the key."""
        return f"VerificationKey({self.algorithm}, kid={self.kid!r})"


def secret_key(content: bytes) -> VerificationKey:
    """The HS256 key in the content of a secret file; white space at its end (an editor's) is not part of it.

    Raises:
        InvalidValue: too short, or it is a key of another kind.
    """
    secret = content.rstrip(b"\r\n \t")
    if len(secret) < MIN_SECRET_BYTES:
        raise InvalidValue(
            f"an HS256 secret has at least {MIN_SECRET_BYTES} bytes: `openssl rand -base64 48` makes one"
        )
    usable = True
    try:
        # Refuses public keys, certificates and JWKs, with which algorithms are confused.
        prepared = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        usable = False
    if not usable:
        raise InvalidValue("an HS256 secret is random bytes, not a public key, certificate or JWK")
    return VerificationKey("HS256", prepared)


def public_key(content: bytes) -> VerificationKey:
    """The key in a PEM file: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).

    Raises:
        InvalidValue: it is no such key; says what to do.
    """
    if b"PRIVATE KEY" in content:
        raise InvalidValue(
            "it is a private key, and only the public one belongs here: `openssl pkey -pubout` makes it"
        )
    loaded: object = None
    try:
        loaded = load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        loaded = None
    algorithm = _algorithm_of(loaded)
    if algorithm is None:
        raise InvalidValue(
            f"it is no public key in PEM of RSA ({MIN_RSA_BITS} to {MAX_RSA_BITS} bits), P-256 or Ed25519 "
            "(of a certificate, `openssl x509 -pubkey -noout` gives the key)"
        )
    return VerificationKey(algorithm, loaded)


def key_set(content: bytes, *, secrets_allowed: bool, origin: str) -> tuple[VerificationKey, ...]:
    """The keys of a JWKS that verify signatures by an algorithm that is taken here; others are left out, and logged.

    Args:
        content: the JSON text.
        secrets_allowed: whether symmetric keys are read. Never from a URL: what it serves is no secret.
        origin: where it comes from, for the log.

    Raises:
        InvalidValue: it is no JWKS. One without a usable key is: its issuer says that nothing counts.
    """
    members: object = None
    try:
        document = json.loads(content)
        members = document.get("keys") if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, list):
        raise InvalidValue('it is no JWKS: a JSON object with a list "keys"')
    keys: list[VerificationKey] = []
    for number, member in enumerate(members[:MAX_KEYS], 1):
        found = _from_jwk(member, secrets_allowed=secrets_allowed)
        if isinstance(found, VerificationKey):
            keys.append(found)
        else:
            _LOG.info("key %d of %s is not used: %s", number, origin, found)
    if len(members) > MAX_KEYS:
        _LOG.warning("%s has %d keys, only the first %d are read", origin, len(members), MAX_KEYS)
    if not keys:
        _LOG.warning("%s has no usable key: tokens of its issuer are refused", origin)
    return tuple(keys)


def candidates(keys: Sequence[VerificationKey], algorithm: str, kid: str | None) -> list[VerificationKey]:
    """The keys that may have signed a token which says `alg` and `kid` of itself; at most 8."""
    return [
        one
        for one in keys
        if one.algorithm == algorithm and (kid is None or one.kid is None or one.kid == kid)
    ][:_MAX_TRIES]


def _from_jwk(member: object, *, secrets_allowed: bool) -> VerificationKey | str:
    """The key, or why it is not used."""
    if not isinstance(member, dict):
        return "no object"
    kty, curve, kid = member.get("kty"), member.get("crv", ""), member.get("kid")
    if not isinstance(kty, str) or not isinstance(curve, str):
        return "kty and crv must be strings"
    algorithm = _BY_TYPE.get((kty, curve))
    if algorithm is None or (algorithm == "HS256" and not secrets_allowed):
        return "not an RSA, P-256 or Ed25519 key"
    if member.get("alg") not in (None, algorithm):
        return f"its alg is not {algorithm}"
    operations = member.get("key_ops")
    if member.get("use") not in (None, "sig") or not (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    ):
        return "it is not for verifying signatures"
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS):
        return "its kid is no text"
    key: object = None
    try:
        key = jwt.PyJWK(member, algorithm).key
    except Exception:
        # Whatever somebody publishes is a key or none. The messages quote it: none is passed on.
        key = None
    if isinstance(key, (RSAPrivateKey, EllipticCurvePrivateKey, Ed25519PrivateKey)):
        key = key.public_key()
    if algorithm == "HS256":
        usable = isinstance(key, bytes) and len(key) >= MIN_SECRET_BYTES
    else:
        usable = _algorithm_of(key) == algorithm
    return VerificationKey(algorithm, key, kid) if usable else "it is malformed, too short or too long"


def _algorithm_of(key: object) -> Algorithm | None:
    if isinstance(key, RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None
