"""One file of a disk-backed queue: frames are appended, read, and overwritten once they are settled."""

from __future__ import annotations

import os
import re
import secrets
from array import array
from pathlib import Path
from typing import Final

from otelprogress_collector.exporters.framing import (
    HEADER_BYTES,
    MARKER_BYTES,
    Encoding,
    Header,
    header_of,
    read_frame,
    read_header,
    scan,
    settled_frame,
)

_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{8})\.segment\Z")
_SIZE_BITS: Final = 32
_SIZE_MASK: Final = (1 << _SIZE_BITS) - 1


class Segment:
    """See the module. Its frames have serial numbers that follow those of the segment before.

    Kept in memory: eight bytes a frame. The file has mode 0600, its name holds its number and its marker.
    """

    def __init__(self, path: Path, number: int, marker: bytes, first_serial: int = 0) -> None:
        self.path = path
        self.number = number
        self.size = 0
        """Bytes of the file that are in use."""
        self.pending = 0
        """Frames that are not settled."""
        self.pending_bytes = 0
        """What these take in the file."""
        self.untaken = 0
        """Frames that `next_serial` has not reached, nor been settled before."""
        self._marker = marker
        self._fd = -1
        self._frames = array("Q")  # place and size; 0: settled before it was taken
        self._first = first_serial  # of the first of them
        self._cursor = 0  # of the next to be taken, in `_frames`

    @classmethod
    def create(cls, directory: Path, number: int, first_serial: int) -> Segment:
        """Make a new file.

        Raises:
            OSError: it cannot be made.
        """
        marker = bytes([secrets.randbelow(255) + 1]) + secrets.token_bytes(MARKER_BYTES - 1)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        segment = cls(directory / f"{number:016x}-{marker.hex()}.segment", number, marker, first_serial)
        segment._fd = os.open(
            segment.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        return segment

    @classmethod
    def found(cls, path: Path) -> Segment | None:
        """The segment that a file is by its name; `None`: it is none."""
        name = _NAME.match(path.name)
        return None if name is None else cls(path, int(name[1], 16), bytes.fromhex(name[2]))

    def load(self, first_serial: int) -> int:
        """Read what a former process left, and how many stretches of it are damaged. Nothing may be appended any more.

        Raises:
            OSError: the file cannot be read.
        """
        with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            data = file.read()
        result = scan(data, self._marker)
        self.size = len(data)
        self._first = first_serial
        self._frames.extend(at << _SIZE_BITS | size for at, size in result.waiting)
        self.pending = self.untaken = len(result.waiting)
        self.pending_bytes = sum(size for _, size in result.waiting)
        return result.damaged

    def append(self, body: bytes, encoding: Encoding, now_unix_ns: int) -> int:
        """Write a frame; it survives the process once this returns. Returns its serial number.

        Raises:
            OSError: it is not written, as far as anybody can see.
        """
        at = self.size
        left: list[bytes | memoryview] = [header_of(self._marker, body, encoding, now_unix_ns), body]
        end = at
        try:
            while left:
                written = os.pwritev(self._descriptor(), left, end)
                end += written
                left = _without(left, written)
        except OSError:
            # What is left over is overwritten by the next frame; should the process end before, it is a torn tail.
            self._cut(at)
            raise
        self._frames.append(at << _SIZE_BITS | end - at)
        self.size = end
        self.pending += 1
        self.untaken += 1
        self.pending_bytes += end - at
        return self.next_free_serial - 1

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor(), size)
        except OSError:
            return

    def next_serial(self) -> int:
        """Take the next frame; there has to be one that is untaken."""
        self.untaken -= 1
        self._cursor = self._next_waiting() + 1
        return self._first + self._cursor - 1

    def _next_waiting(self) -> int:
        at = self._cursor
        while not self._frames[at]:
            at += 1
        return at

    @property
    def untouched(self) -> bool:
        """Whether nothing of it was ever taken."""
        return self._cursor == 0

    @property
    def next_free_serial(self) -> int:
        """Of the frame that would come next."""
        return self._first + len(self._frames)

    def frame_bytes(self, serial: int) -> int:
        """The size of a frame; 0: it is settled, or not in this segment."""
        at = serial - self._first
        return self._frames[at] & _SIZE_MASK if 0 <= at < len(self._frames) else 0

    def was_taken(self, serial: int) -> bool:
        """Whether `next_serial` went over it."""
        return serial - self._first < self._cursor

    def read(self, serial: int) -> tuple[bytes, Header] | None:
        """Body and header of a frame; `None`: it is damaged.

        Raises:
            OSError: the disk does not give it.
        """
        frame = self._frames[serial - self._first]
        return read_frame(os.pread(self._descriptor(), frame & _SIZE_MASK, frame >> _SIZE_BITS), self._marker)

    def next_accepted_unix_ns(self) -> int | None:
        """When the next frame to be taken was accepted; `None`: there is none, or it cannot be read."""
        if not self.untaken:
            return None
        frame = self._frames[self._next_waiting()]
        try:
            header = read_header(
                os.pread(self._descriptor(), HEADER_BYTES, frame >> _SIZE_BITS), 0, self._marker
            )
        except OSError:
            return None
        return None if header is None else header.accepted_unix_ns

    def settle(self, serial: int) -> None:
        """Forget a frame: what stood in it is overwritten. Never raises: at worst it is delivered again one day."""
        frame = self._frames[serial - self._first]
        self._frames[serial - self._first] = 0
        if not self.was_taken(serial):
            self.untaken -= 1
        self.pending -= 1
        self.pending_bytes -= frame & _SIZE_MASK
        if not self.pending:
            return  # the file goes as a whole
        try:
            os.pwrite(
                self._descriptor(), settled_frame(self._marker, frame & _SIZE_MASK), frame >> _SIZE_BITS
            )
        except OSError:
            return

    def reset(self) -> bool:
        """Empty the file, once nothing in it is pending; `False`: the disk refuses."""
        try:
            os.ftruncate(self._descriptor(), 0)
        except OSError:
            return False
        self._first += len(self._frames)
        self._frames = array("Q")
        self._cursor = self.size = 0
        return True

    def duplicate(self) -> int:
        """A descriptor of its own for another thread.

        Raises:
            OSError: none is left.
        """
        return os.dup(self._fd) if self._fd >= 0 else self._open()

    def remove(self) -> None:
        """Delete the file. Never raises."""
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return

    def close(self) -> None:
        """Give the descriptor back; the next use opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _descriptor(self) -> int:
        if self._fd < 0:
            self._fd = self._open()
        return self._fd

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def _without(pieces: list[bytes | memoryview], written: int) -> list[bytes | memoryview]:
    left: list[bytes | memoryview] = []
    for piece in pieces:
        if written >= len(piece):
            written -= len(piece)
        else:
            left.append(memoryview(piece)[written:])
            written = 0
    return left
