"""One file of a spool on disk: records one behind the other, each marked in its place once it is dealt with.

A record is a request that is encoded already, with the number of entries in it. A process that is killed leaves what it
has written: the page cache is the kernel's. What a power cut tears off is found by length and checksum.

Layout: 8 bytes of magic, then records: state 1 B (`W` waits, `D` dealt with), entries 4 B, length 4 B, CRC-32 4 B
(big-endian), and the bytes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

_MAGIC: Final = b"otpspl1\n"
_HEADER: Final = struct.Struct(">cIII")
_WAITS: Final = b"W"
_DONE: Final = b"D"
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""More than any request has: a longer one is no record."""
MAX_ENTRIES: Final = 1_000_000
SUFFIX: Final = ".spool"


class Record(NamedTuple):
    """Where a waiting record stands."""

    offset: int
    entries: int
    """How many are in it."""
    length: int
    """Of its bytes."""
    checksum: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + _HEADER.size + self.length


class Segment:
    """One file, open. Not thread-safe.

    Attributes:
        size: bytes up to which it holds records.
        waiting: entries of records that nobody has taken or dropped.
        torn: whether something stands behind the last record that can be read.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = len(_MAGIC)
        self.waiting = 0
        self.torn = False
        self._descriptor = descriptor
        self._next = self.size
        """Where the reader is."""

    @classmethod
    def create(cls, path: Path) -> Segment:
        """A new file, of this user alone.

        Raises:
            OSError: it cannot be made.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, _MAGIC, 0)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return cls(path, descriptor)

    @classmethod
    def reopen(cls, path: Path) -> Segment | None:
        """What another process has left; `None`: it is no file of a spool of this user's.

        Raises:
            OSError: it cannot be read.
        """
        # O_NONBLOCK: a named pipe put in its place must not make anybody wait for ever.
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(descriptor)
        if (
            not stat.S_ISREG(found.st_mode)
            or found.st_uid != os.geteuid()
            or os.pread(descriptor, len(_MAGIC), 0) != _MAGIC
        ):
            os.close(descriptor)
            return None
        segment = cls(path, descriptor)
        at = segment.size
        while (header := segment._header(at)) is not None:
            state, record = header
            if record.end > found.st_size:
                break
            segment.waiting += record.entries if state == _WAITS else 0
            at = record.end
        segment.size = at
        segment.torn = at < found.st_size
        return segment

    def append(self, body: bytes, count: int) -> None:
        """Add one record, whole or not at all.

        Raises:
            OSError: the disk does not take it.
        """
        record = _HEADER.pack(_WAITS, count, len(body), _checksum(count, body)) + body
        try:
            written = 0
            while written < len(record):
                written += os.pwrite(self._descriptor, record[written:], self.size + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(record)
        self.waiting += count

    def peek(self) -> Record | None:
        """The next waiting record, which stays the next one until it is taken; `None`: there is none."""
        while self._next < self.size:
            header = self._header(self._next)
            if header is None:
                self._next = self.size
                break
            state, record = header
            if state == _WAITS:
                return record
            self._next = record.end
        return None

    def take(self, record: Record) -> bytes | None:
        """The bytes of the record that `peek` gave, once; `None`: they are not what was written, and done with."""
        self._next = record.end
        self.waiting -= record.entries
        with contextlib.suppress(OSError):
            body = os.pread(self._descriptor, record.length, record.offset + _HEADER.size)
            if len(body) == record.length and _checksum(record.entries, body) == record.checksum:
                return body
            self.mark_done(record.offset)
        return None

    def mark_done(self, offset: int) -> None:
        """The record there is dealt with: nobody reads it again, in no process.

        Raises:
            OSError: the disk does not take that.
        """
        os.pwrite(self._descriptor, _DONE, offset)

    def empty(self) -> None:
        """Begin anew, where every record is dealt with.

        Raises:
            OSError: the disk does not take that.
        """
        os.ftruncate(self._descriptor, len(_MAGIC))
        self.size = self._next = len(_MAGIC)

    def close(self) -> None:
        """Give the descriptor back."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def delete(self) -> None:
        """Close it and take the file away."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _header(self, at: int) -> tuple[bytes, Record] | None:
        try:
            state, count, length, checksum = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, at))
        except (OSError, struct.error):
            return None
        if state not in (_WAITS, _DONE) or length > MAX_RECORD_BYTES or count > MAX_ENTRIES:
            return None
        return state, Record(at, count, length, checksum)


def _checksum(entries: int, body: bytes) -> int:
    return zlib.crc32(body, entries)
