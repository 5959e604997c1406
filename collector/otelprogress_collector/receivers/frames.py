"""The three outer levels of an OTLP request, cut apart without a protobuf library.

All three signals share them: a request holds groups by resource (field 1), each with its resource (1) and groups by
scope (2), each with its scope (1) and records (2). Cutting takes half the time of parsing, and what nobody needs is
never parsed: spans and log records that are no progress. It also counts before anything is made, so that a request
of 32 million empty records costs no gigabytes; it keeps a broken record from spoiling its neighbours; and it goes
piece by piece.

What is inside a record that nobody reads is not looked at: it goes to the backends as it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from otelprogress_collector.receivers.intake import BadRequest, TooLarge
from otelprogress_collector.receivers.limits import Limits

CHUNK_RECORDS: Final = 256
"""Records cut at once: a fraction of a millisecond."""

_HEAD: Final = 0x0A
"""Field 1, length-delimited: a group by resource, its resource, a scope."""
_BODY: Final = 0x12
"""Field 2, length-delimited: a group by scope, a record."""
_FIXED64: Final = 1
_LENGTH_DELIMITED: Final = 2
_FIXED32: Final = 5
_VARINT: Final = 0
_MAX_VARINT_BYTES: Final = 10

Range = tuple[int, int]
"""From where to where in the request."""


class ScopeGroup(msgspec.Struct, gc=False):
    """What one instrumentation scope sends."""

    scope: bytes = b""
    """Of the InstrumentationScope message, as far as the records were cut: every encoder writes it before them."""
    chunks: Iterator[list[bytes]] = iter(())
    """The records, some at a time. Raises what `Frames` raises."""


class Group(msgspec.Struct, gc=False):
    """What one resource sends."""

    resource: bytes
    """Of the Resource message; empty: none."""
    scopes: Iterator[ScopeGroup]
    """To be gone through once, each to its end before the next."""
    place: Range
    """Of the whole group."""


class Frames:
    """One request.

    Args:
        body: the bytes.
        limits: of groups and records.
    """

    def __init__(self, body: bytes, limits: Limits) -> None:
        self._body = body
        self._groups_left = limits.max_groups
        self._records_left = limits.max_records

    def groups(self) -> Iterator[Group]:
        """The groups, one after the other.

        Raises:
            BadRequest: it is cut short, or no protobuf message.
            TooLarge: more groups or records than the limits.
        """
        _, places = self._cut((0, len(self._body)), _HEAD)
        for place in places:
            resource, scopes = self._cut(place, _BODY)
            yield Group(resource, self._scopes(scopes), place)

    def _scopes(self, places: list[Range]) -> Iterator[ScopeGroup]:
        for place in places:
            group = ScopeGroup()
            group.chunks = self._chunks(place, group)
            yield group

    def _cut(self, place: Range, wanted: int) -> tuple[bytes, list[Range]]:
        """Field 1 (its parts joined, as protobuf merges them; not when it is what is wanted) and the wanted ones."""
        body, (position, end) = self._body, place
        head = b""
        found: list[Range] = []
        while position < end:
            tag, start, following = _field(body, position, end)
            if tag == wanted:
                found.append((start, following))
                self._groups_left -= 1
                if self._groups_left < 0:
                    raise TooLarge("the request holds too many resources and scopes")
            elif tag == _HEAD:
                head += body[start:following]
            position = following
        return head, found

    def _chunks(self, place: Range, group: ScopeGroup) -> Iterator[list[bytes]]:
        body, (position, end) = self._body, place
        chunk: list[bytes] = []
        try:
            while position < end:
                if body[position] != _BODY:
                    tag, start, position = _field(body, position, end)
                    if tag == _HEAD:
                        group.scope += body[start:position]
                    continue
                length = body[position + 1]
                start = position + 2
                if length > 127:
                    length, start = _varint(body, position + 1)
                position = start + length
                if position > end:
                    raise BadRequest("the request is cut short")
                chunk.append(body[start:position])
                if len(chunk) == CHUNK_RECORDS:
                    self._count(len(chunk))
                    yield chunk
                    chunk = []
        except IndexError:
            raise BadRequest("the request is cut short") from None
        if chunk:
            self._count(len(chunk))
            yield chunk

    def _count(self, records: int) -> None:
        self._records_left -= records
        if self._records_left < 0:
            raise TooLarge("the request holds too many records")


def _field(body: bytes, position: int, end: int) -> tuple[int, int, int]:
    """The tag of a field, where its content starts, and where the next one does.

    Raises:
        BadRequest: there is no whole field.
    """
    try:
        tag, start = _varint(body, position)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, start = _varint(body, start)
            following = start + length
        elif kind == _VARINT:
            following = _varint(body, start)[1]
        elif kind == _FIXED64:
            following = start + 8
        elif kind == _FIXED32:
            following = start + 4
        else:
            raise BadRequest(f"the request is no protobuf message: wire type {kind}")
    except IndexError:
        raise BadRequest("the request is cut short") from None
    if not tag >> 3:
        raise BadRequest("the request is no protobuf message: a field without a number")
    if following > end:
        raise BadRequest("the request is cut short")
    return tag, start, following


def _varint(body: bytes, position: int) -> tuple[int, int]:
    """A number and the position after it."""
    number = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = body[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise BadRequest("the request is no protobuf message: a number has no end")
