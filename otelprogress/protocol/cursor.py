"""Opaque positions: what a client gives back to go on where it was.

A cursor says (epoch, offset) and is tied by a MAC to the tenant, the authorization predicate and the filter it
was made for: it opens nothing for anybody else. It holds no secret, only what must not be changed.

Layout before base64url: version 1 B, key id 4 B, epoch tag 8 B, offset 8 B big-endian, MAC 16 B.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

_VERSION: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_TAG_BYTES: Final = 8
_OFFSET_BYTES: Final = 8
_MAC_BYTES: Final = 16
_BODY_BYTES: Final = 1 + _KEY_ID_BYTES + _TAG_BYTES + _OFFSET_BYTES
MIN_SECRET_BYTES: Final = 16


class CursorFault(Enum):
    """Why a cursor does not open."""

    EPOCH = "epoch"
    """It belongs to another log."""
    INVALID = "invalid"
    """It is not ours, was changed, or belongs to another filter, tenant or predicate."""


@dataclass(frozen=True, slots=True)
class CursorKey:
    """The secret that cursors are sealed with, and optionally the one before it, which still opens.

    Hosts that share a log share the key. Where nothing survives the process, random bytes will do.
    """

    secret: bytes
    previous: bytes | None = None

    def __post_init__(self) -> None:
        for secret in (self.secret, self.previous):
            if secret is not None and not MIN_SECRET_BYTES <= len(secret) <= hashlib.blake2b.MAX_KEY_SIZE:
                raise ValueError(f"a cursor key has {MIN_SECRET_BYTES} to 64 bytes, not {len(secret)}")

    def __repr__(self) -> str:
        return f"CursorKey(id={_key_id(self.secret).hex()})"


@lru_cache(maxsize=8)
def _key_id(secret: bytes) -> bytes:
    return hashlib.blake2b(b"id", key=secret, digest_size=_KEY_ID_BYTES).digest()


@lru_cache(maxsize=8)
def _epoch_tag(epoch: str) -> bytes:
    return hashlib.blake2b(epoch.encode(), digest_size=_TAG_BYTES).digest()


def _mac(secret: bytes, body: bytes, epoch: str, scope: bytes) -> bytes:
    # Length-prefixed: no two different (epoch, scope) pairs give the same bytes.
    epoch_bytes = epoch.encode()
    message = body + len(epoch_bytes).to_bytes(4, "big") + epoch_bytes + scope
    return hashlib.blake2b(message, key=secret, digest_size=_MAC_BYTES).digest()


def seal(key: CursorKey, *, epoch: str, offset: int, scope: bytes) -> str:
    """A cursor for a position.

    Args:
        key: its first secret seals.
        epoch: the log's.
        offset: 0 or more.
        scope: the digest of tenant, predicate and filter (`filters.Matcher.key`).

    Returns:
        50 characters of base64url.
    """
    body = _VERSION + _key_id(key.secret) + _epoch_tag(epoch) + offset.to_bytes(_OFFSET_BYTES, "big")
    return base64.urlsafe_b64encode(body + _mac(key.secret, body, epoch, scope)).rstrip(b"=").decode()


def unseal(key: CursorKey, cursor: str, *, epoch: str, scope: bytes) -> int | CursorFault:
    """The offset of a cursor, or why it does not open. Never raises, whatever `cursor` is."""
    try:
        raw = base64.b64decode(
            cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        return CursorFault.INVALID
    if len(raw) != _BODY_BYTES + _MAC_BYTES or raw[:1] != _VERSION:
        return CursorFault.INVALID
    body, mac = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
    tag = body[1 + _KEY_ID_BYTES : 1 + _KEY_ID_BYTES + _TAG_BYTES]
    if not hmac.compare_digest(tag, _epoch_tag(epoch)):
        # Unverified, and nothing follows from it but the word that explains the gap.
        return CursorFault.EPOCH
    for secret in (key.secret, key.previous):
        if (
            secret is not None
            and hmac.compare_digest(body[1 : 1 + _KEY_ID_BYTES], _key_id(secret))
            and hmac.compare_digest(mac, _mac(secret, body, epoch, scope))
        ):
            return int.from_bytes(body[-_OFFSET_BYTES:], "big")
    return CursorFault.INVALID
