"""Keys and tokens of a made-up issuer, honest ones and forged ones."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://issuer.example"
AUDIENCE = "otelprogress"
NOW_UNIX_S = 1_700_000_000.0
SECRET = b"a secret that is long enough: 0123456789abcdef"
ASYMMETRIC = ("RS256", "ES256", "EdDSA")


@functools.cache
def private_key(algorithm: str, nth: int = 0) -> Any:
    """The n-th key pair for an algorithm; made once."""
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(algorithm: str, nth: int = 0) -> bytes:
    return pem_of(private_key(algorithm, nth).public_key())


def pem_of(key: Any) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_pem(algorithm: str, nth: int = 0) -> bytes:
    return private_key(algorithm, nth).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def jwk(algorithm: str, nth: int = 0, *, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public key as a member of a JWKS."""
    made = {
        "RS256": jwt.algorithms.RSAAlgorithm,
        "ES256": jwt.algorithms.ECAlgorithm,
        "EdDSA": jwt.algorithms.OKPAlgorithm,
    }[algorithm].to_jwk(private_key(algorithm, nth).public_key(), as_dict=True)
    made.pop("key_ops", None)
    return made | ({} if kid is None else {"kid": kid}) | more


def oct_jwk(secret: bytes = SECRET, **more: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": b64(secret)} | more


def jwks(*members: Any) -> bytes:
    return json.dumps({"keys": list(members)}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says; a change to `None` leaves the claim out."""
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": NOW_UNIX_S + 600,
        "iat": NOW_UNIX_S,
        "sub": "anna",
        "jti": "token-1",
        "scope": "openid progress:read progress:write",
    } | changes
    return {name: value for name, value in said.items() if value is not None}


def signed(
    algorithm: str = "HS256",
    nth: int = 0,
    *,
    kid: str | None = None,
    key: Any = None,
    **changes: Any,
) -> str:
    """A token of the issuer's, signed as it should be."""
    if key is None:
        key = SECRET if algorithm == "HS256" else private_key(algorithm, nth)
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def forged(header: Any, payload: Any, key: bytes = SECRET) -> str:
    """Any header and payload (objects, or the JSON text itself), with an HMAC signature by `key`."""
    front = ".".join(
        b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)
    )
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    return front + "." + b64(algorithm.sign(front.encode(), key))


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
