"""Neighbouring protobuf requests as one: protobuf joins messages by joining their bytes.

The requests of OTLP hold nothing but repeated fields, so the bytes of two of them, one after the other, are the
request that holds the records of both, in order; the bytes of each stay as they were received. The only condition
is that the first ends where its last field ends: that is checked, not assumed.
"""

from __future__ import annotations

from typing import Final

_MAX_FIELDS: Final = 4096
_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH_DELIMITED: Final = 2
_FIXED32: Final = 5


def is_whole(body: bytes) -> bool:
    """Whether a message ends with its last field, as far as its first 4,096 fields say."""
    at = 0
    end = len(body)
    for _ in range(_MAX_FIELDS):
        if at >= end:
            return at == end
        tag, at = varint(body, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, at = varint(body, at)
            at += length
        elif kind == _VARINT:
            _, at = varint(body, at)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        else:
            return False
    return False


def varint(body: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; past the end of the body if it does not."""
    value = shift = 0
    while at < len(body) and shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, len(body) + 1
