"""gzip inflated piece by piece: no more than allowed ever exists, whatever the sender claims. No I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from otelprogress_collector.receivers.intake import BadRequest, TooLarge

PIECE_BYTES: Final = 1024 * 1024
"""The most that one step makes: a millisecond or two."""
MAX_MEMBERS: Final = 64
"""gzip files may be joined. Each takes a window of 32 KiB to read, however little is in it."""
_GZIP_WBITS: Final = 31


class Inflater:
    """Inflates one body.

    Args:
        max_bytes: of all output.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._members = 0
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next part of the body holds, in pieces of at most `PIECE_BYTES`.

        Raises:
            TooLarge: more than `max_bytes`; nothing beyond it was made.
            BadRequest: it is no gzip, or something follows it.
        """
        while data:
            if self._stream is None:
                self._open_member()
            assert self._stream is not None
            try:
                piece = self._stream.decompress(data, min(PIECE_BYTES, self._left + 1))
            except zlib.error:
                raise BadRequest("the body is no gzip") from None
            self._left -= len(piece)
            if self._left < 0:
                raise TooLarge("the body is too large once it is inflated")
            if piece:
                yield piece
            if self._stream.eof:
                data, self._stream = self._stream.unused_data, None
            else:
                data = self._stream.unconsumed_tail

    def finish(self) -> None:
        """The body is over.

        Raises:
            BadRequest: it was cut short.
        """
        if self._stream is not None or not self._members:
            raise BadRequest("the gzip body is cut short")

    def _open_member(self) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise BadRequest(f"the body joins more than {MAX_MEMBERS} gzip files")
        self._stream = zlib.decompressobj(_GZIP_WBITS)
