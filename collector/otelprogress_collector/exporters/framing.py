"""How requests stand in a segment file: one frame after the other. Bytes in, bytes out; no I/O, no clock.

A frame is a header of 25 bytes and the body, as it was received::

    marker 4 · kind 1 · accepted 8 (Unix ns) · length 4 · crc32 of the body 4 · crc32 of the header so far 4

The marker is random for each segment, so that what a client puts into a body is never taken for a frame. The
header's own crc makes the length trustworthy: a damaged body costs one request. After a damaged header the next
marker is looked for. A frame whose request is settled is overwritten: kind 0, and zeros for a body.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal
from zlib import crc32

Encoding = Literal["protobuf", "json"]

_HEADER: Final = struct.Struct(">4sBQII")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
MARKER_BYTES: Final = 4
_SETTLED: Final = 0
_KINDS: Final[dict[Encoding, int]] = {"protobuf": 1, "json": 2}
_ENCODINGS: Final[dict[int, Encoding]] = {kind: encoding for encoding, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Header:
    """One header whose crc is right."""

    encoding: Encoding | None
    """`None`: settled, nothing to deliver."""
    accepted_unix_ns: int
    length: int
    """Of the body."""
    body_crc: int


def header_of(marker: bytes, body: bytes, encoding: Encoding, accepted_unix_ns: int) -> bytes:
    """The header to write before `body`."""
    return _sealed(
        _HEADER.pack(marker, _KINDS[encoding], max(0, accepted_unix_ns), len(body), crc32(body)),
    )


def settled_frame(marker: bytes, frame_bytes: int) -> bytes:
    """What to overwrite a frame of `frame_bytes` with once its request is settled."""
    length = frame_bytes - HEADER_BYTES
    return _sealed(_HEADER.pack(marker, _SETTLED, 0, length, 0)) + bytes(length)


def _sealed(header: bytes) -> bytes:
    return header + _CRC.pack(crc32(header))


def read_header(data: bytes | memoryview, at: int, marker: bytes) -> Header | None:
    """The header at `at`; `None`: there is none, or it is damaged."""
    end = at + _HEADER.size
    if len(data) < end + _CRC.size:
        return None
    found, kind, accepted_unix_ns, length, body_crc = _HEADER.unpack_from(data, at)
    if found != marker or _CRC.unpack_from(data, end)[0] != crc32(data[at:end]):
        return None
    if kind == _SETTLED:
        return Header(None, 0, length, 0)
    encoding = _ENCODINGS.get(kind)
    return None if encoding is None else Header(encoding, accepted_unix_ns, length, body_crc)


def read_frame(frame: bytes, marker: bytes) -> tuple[bytes, Header] | None:
    """Body and header of exactly one frame that waits; `None`: it is settled, torn or damaged."""
    header = read_header(frame, 0, marker)
    if header is None or header.encoding is None or header.length != len(frame) - HEADER_BYTES:
        return None
    body = frame[HEADER_BYTES:]
    return (body, header) if crc32(body) == header.body_crc else None


@dataclass(frozen=True, slots=True)
class Scan:
    """What stands in a segment."""

    waiting: list[tuple[int, int]]
    """Place and size in bytes of each whole frame that is not settled, in order."""
    damaged: int
    """Stretches that were skipped: a damaged body, a damaged header and what follows up to the next, a torn tail."""


def scan(data: bytes, marker: bytes) -> Scan:
    """Find the frames of a segment, whatever happened to it."""
    waiting: list[tuple[int, int]] = []
    damaged = 0
    view = memoryview(data)
    at = 0
    while at < len(data):
        header = read_header(view, at, marker)
        if header is None:
            damaged += 1
            at = _next_header(data, view, at + 1, marker)
            continue
        end = at + HEADER_BYTES + header.length
        if end > len(data):  # torn, or cut short later: nothing but another header tells what is left
            damaged += 1
            at = _next_header(data, view, at + 1, marker)
            continue
        if header.encoding is not None:
            if crc32(view[at + HEADER_BYTES : end]) == header.body_crc:
                waiting.append((at, end - at))
            else:
                damaged += 1
        at = end
    return Scan(waiting, damaged)


def _next_header(data: bytes, view: memoryview, at: int, marker: bytes) -> int:
    while (at := data.find(marker, at)) >= 0:
        if read_header(view, at, marker) is not None:
            return at
        at += 1
    return len(data)
