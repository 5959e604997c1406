"""The three outer levels of an OTLP request, cut apart without a protobuf library.

All three signals share them: a request holds groups by resource (field 1), each with its resource (1) and groups by
scope (2), each with its scope (1) and records (2). Cutting takes half the time of parsing, and what nobody needs is
never parsed: spans and log records that are no progress. It also counts before anything is made, so that a request
of 32 million empty records costs no gigabytes, and it keeps a broken record from spoiling its neighbours.

What is inside a record that nobody reads is not looked at: it goes to the backends as it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from otelprogress_collector.receivers.intake import BadRequest, TooLarge
from otelprogress_collector.receivers.limits import Limits

_HEAD: Final = 0x0A
"""Field 1, length-delimited: a group by resource, its resource, a scope."""
_BODY: Final = 0x12
"""Field 2, length-delimited: a group by scope, a record."""
_FIXED64: Final = 1
_LENGTH_DELIMITED: Final = 2
_FIXED32: Final = 5
_VARINT: Final = 0
_MAX_VARINT_BYTES: Final = 10


class Group(msgspec.Struct, gc=False):
    """What one resource sends."""

    resource: bytes
    """Of the Resource message; empty: none."""
    scopes: list[ScopeGroup]
    raw: bytes
    """All of it, for whoever passes it on alone."""


class ScopeGroup(msgspec.Struct, gc=False):
    """What one instrumentation scope sends."""

    scope: bytes
    records: list[bytes]


def groups_of(body: bytes, limits: Limits) -> Iterator[Group]:
    """The groups of a request, one after the other.

    Raises:
        BadRequest: it is cut short, or no protobuf message.
        TooLarge: more groups or records than the limits.
    """
    try:
        _, raw_groups = _cut(body, _HEAD, limits.max_groups)
        groups_left = limits.max_groups - len(raw_groups)
        records_left = limits.max_records
        for raw in raw_groups:
            resource, raw_scopes = _cut(raw, _BODY, groups_left)
            groups_left -= len(raw_scopes)
            scopes = []
            for raw_scope in raw_scopes:
                scope, records = _cut(raw_scope, _BODY, records_left)
                records_left -= len(records)
                scopes.append(ScopeGroup(scope, records))
            yield Group(resource, scopes, raw)
    except IndexError:
        raise BadRequest("the request is cut short") from None


def _cut(message: bytes, wanted: int, most: int) -> tuple[bytes, list[bytes]]:
    """Field 1 (its parts joined, as protobuf merges them; not when it is what is wanted) and the wanted ones."""
    position, end = 0, len(message)
    head = b""
    found: list[bytes] = []
    while position < end:
        tag = message[position]
        if tag not in (_BODY, _HEAD):
            position = _skip(message, position)
            continue
        length = message[position + 1]
        position += 2
        if length > 127:
            length, position = _varint(message, position - 1)
        following = position + length
        if following > end:
            raise BadRequest("the request is cut short")
        if tag == wanted:
            found.append(message[position:following])
            if len(found) > most:
                raise TooLarge("the request holds too many records")
        elif tag == _HEAD:
            head += message[position:following]
        position = following
    return head, found


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A number and the position after it."""
    number = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise BadRequest("the request is no protobuf message: a number has no end")


def _skip(message: bytes, position: int) -> int:
    """The position after a field that is not known here."""
    tag, position = _varint(message, position)
    kind = tag & 7
    if not tag >> 3:
        raise BadRequest("the request is no protobuf message: a field without a number")
    if kind == _VARINT:
        return _varint(message, position)[1]
    if kind == _LENGTH_DELIMITED:
        length, position = _varint(message, position)
        position += length
    elif kind == _FIXED64:
        position += 8
    elif kind == _FIXED32:
        position += 4
    else:
        raise BadRequest(f"the request is no protobuf message: wire type {kind}")
    if position > len(message):
        raise BadRequest("the request is cut short")
    return position
