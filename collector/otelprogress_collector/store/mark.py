"""The mark: which log was written last, and how far, in a file of its own beside the database.

SQLite drops the end of a damaged write-ahead log without a word, and a database that somebody put back looks as
good as the one it replaced. The mark is written after each commit, in place, so it outlives the process as the
database does, and whoever opens the store can tell.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

EPOCH_CHARS: Final = 16
_LAYOUT: Final = struct.Struct(f">4s{EPOCH_CHARS}sQQ")
_CHECK: Final = struct.Struct(">I")
_MAGIC: Final = b"OPM1"
_SIZE: Final = _LAYOUT.size + _CHECK.size


class Mark(NamedTuple):
    """What was acknowledged last."""

    epoch: str
    head: int
    """The offset of the newest row."""
    inode: int
    """Of the database file: a copy of it has another."""


class MarkFile:
    """One mark. Every method may raise `OSError`."""

    def __init__(self, path: Path) -> None:
        """Open it, and make it (mode 0600) where there is none."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)

    def read(self) -> Mark | None:
        """What it says; `None`: nothing, or not what was written."""
        raw = os.pread(self._descriptor, _SIZE + 1, 0)
        if len(raw) != _SIZE or _CHECK.pack(zlib.crc32(raw[: _LAYOUT.size])) != raw[_LAYOUT.size :]:
            return None
        magic, epoch, head, inode = _LAYOUT.unpack_from(raw)
        return Mark(epoch.decode("ascii"), head, inode) if magic == _MAGIC else None

    def write(self, mark: Mark) -> None:
        """Say something new; it is in the kernel's hands when this returns."""
        body = _LAYOUT.pack(_MAGIC, mark.epoch.encode("ascii"), mark.head, mark.inode)
        os.pwrite(self._descriptor, body + _CHECK.pack(zlib.crc32(body)), 0)

    def begin(self, mark: Mark) -> None:
        """Say something new, and return once it is on the disk."""
        self.write(mark)
        os.ftruncate(self._descriptor, _SIZE)
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)
