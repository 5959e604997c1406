"""Frames as they stand on the wire, made once for all connections that send the same.

A server's frame is not masked: the bytes are the same for every peer. Equal subscriptions get the same objects from
the hub's memo, so their wire form is looked up by identity, without reading a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

_FIN_TEXT: Final = b"\x81"
_MAX_BYTES: Final = 16 * 1024 * 1024


def text_frame_header(size: int) -> bytes:
    """The header of an unmasked text frame of `size` bytes (RFC 6455, 5.2)."""
    if size < 126:
        return _FIN_TEXT + size.to_bytes(1, "big")
    if size < 1 << 16:
        return _FIN_TEXT + b"\x7e" + size.to_bytes(2, "big")
    return _FIN_TEXT + b"\x7f" + size.to_bytes(8, "big")


def text_frames(payloads: Sequence[bytes]) -> bytes:
    """Text frames for these payloads (UTF-8), one after the other."""
    pieces: list[bytes] = []
    for payload in payloads:
        pieces += (text_frame_header(len(payload)), payload)
    return b"".join(pieces)


class SharedWire:
    """What was encoded within one pass over the connections.

    Args:
        encode: payloads to their form on the wire.
    """

    def __init__(self, encode: Callable[[Sequence[bytes]], bytes] = text_frames) -> None:
        self._encode = encode
        self._known: dict[int | tuple[int, ...], tuple[Sequence[bytes], bytes]] = {}
        self._bytes = 0

    def of(self, payloads: Sequence[bytes]) -> bytes:
        """The wire form of these payloads."""
        key = id(payloads[0]) if len(payloads) == 1 else tuple(map(id, payloads))
        known = self._known.get(key)
        if known is None:
            if self._bytes > _MAX_BYTES:
                self.clear()
            # Keeping the payloads keeps their identities from being given to others.
            known = self._known[key] = (payloads, self._encode(payloads))
            self._bytes += 2 * len(known[1])
        return known[1]

    def clear(self) -> None:
        """Forget everything: the pass is over."""
        self._known.clear()
        self._bytes = 0
