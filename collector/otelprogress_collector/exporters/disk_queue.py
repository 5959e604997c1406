"""A bounded queue on the disk: survives SIGKILL without an `fsync`, a power cut with one.

`<directory>/<number>-<marker>.segment` hold the frames (`framing.py`). A process appends to files of its own only, so a
torn tail of the last one is never written over. A file whose requests are all settled is deleted; the one that is
being written is emptied instead. Between the two a settled request is overwritten: what was acknowledged is gone.

On the disk it takes at most its bound, one segment (a sixteenth of the bound, at most 8 MiB) and what is in flight.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from otelprogress_collector.exporters.forward_queue import (
    ENTRY_BYTES,
    Entry,
    QueueCounts,
    QueueUnavailable,
    too_old,
)
from otelprogress_collector.exporters.framing import HEADER_BYTES, Encoding
from otelprogress_collector.exporters.segment import Segment

_MAX_SEGMENT_BYTES: Final = 8 * 1024 * 1024
_MIN_SEGMENT_BYTES: Final = 4 * 1024
_BOOKKEEPING_BYTES: Final = ENTRY_BYTES - HEADER_BYTES


class DiskQueue:
    """See the module and `ForwardQueue`.

    Args:
        directory: of this queue alone; made with mode 0700.
        max_bytes: what may wait, beside what was taken.
        max_age_s: how long; `None`: for ever.
        segment_bytes: of one file, about; `None`: a sixteenth of the bound.
    """

    survives = True

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        max_age_s: float | None = None,
        segment_bytes: int | None = None,
    ) -> None:
        self.counts = QueueCounts()
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._segment_bytes = segment_bytes or min(
            max(max_bytes // 16, _MIN_SEGMENT_BYTES), _MAX_SEGMENT_BYTES
        )
        self._segments: deque[Segment] = deque()
        self._active: Segment | None = None  # the last of them, while it may be appended to
        self._number = 0
        self._serial = 0  # the next one
        self._returned: deque[tuple[Segment, Entry]] = deque()
        self._waiting = 0
        self._waiting_bytes = 0
        self._taken: dict[int, tuple[Segment, Entry]] = {}
        self._taken_bytes = 0
        self._unsynced: set[Segment] = set()
        self._new_file = False

    def open(self, now_unix_ns: int) -> None:
        """See `ForwardQueue.open`."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            found = sorted(
                (segment for path in self._directory.iterdir() if (segment := Segment.found(path))),
                key=lambda segment: segment.number,
            )
        except OSError as error:
            raise QueueUnavailable(
                f"the queue {self._directory} cannot be opened: {error.strerror}"
            ) from error
        for segment in found:
            self._number = segment.number
            try:
                damaged = segment.load(self._serial)
            except PermissionError as error:
                raise QueueUnavailable(f"{segment.path} cannot be read: {error.strerror}") from error
            except OSError:  # the disk's fault, and it may recover: the file stays for the next start
                self.counts.damaged += 1
                continue
            self.counts.damaged += damaged
            if not segment.pending:
                segment.remove()
                continue
            self._serial = segment.next_free_serial
            self._segments.append(segment)
            self._waiting += segment.pending
            self._waiting_bytes += _cost_of(segment)
        self._drop_overflow()
        self._drop_expired(now_unix_ns)

    def append(self, body: bytes, encoding: Encoding, now_unix_ns: int) -> int:
        """See `ForwardQueue.append`."""
        cost_bytes = ENTRY_BYTES + len(body)
        try:
            segment = self._segment_for(HEADER_BYTES + len(body))
            serial = segment.append(body, encoding, now_unix_ns)
        except OSError as error:
            raise QueueUnavailable(
                f"the queue {self._directory} takes nothing: {error.strerror or type(error).__name__}"
            ) from error
        self._serial = serial + 1
        self._unsynced.add(segment)
        self._waiting += 1
        self._waiting_bytes += cost_bytes
        self._drop_overflow()
        return serial

    def _segment_for(self, frame_bytes: int) -> Segment:
        active = self._active
        if active is not None and (not active.size or active.size + frame_bytes <= self._segment_bytes):
            return active
        segment = Segment.create(self._directory, self._number + 1, self._serial)
        self._number += 1
        self._new_file = True
        if active is not None and active is not self._segments[0]:
            active.close()  # opened again when its turn comes: descriptors are few
        self._segments.append(segment)
        self._active = segment
        return segment

    def _drop_overflow(self) -> None:
        while (too_many := self._waiting_bytes - self._max_bytes) > 0:
            segment = self._oldest_waiting()
            if segment is None:
                return
            if not self._returned and segment.untouched and _cost_of(segment) <= too_many:
                # At once: a large request may push out very many small ones.
                self.counts.overflowed += segment.pending
                self._waiting -= segment.pending
                self._waiting_bytes -= _cost_of(segment)
                self._remove(segment)
            elif (oldest := self._pop()) is not None:
                self.counts.overflowed += 1
                self._forget(oldest[0], oldest[1])

    def _oldest_waiting(self) -> Segment | None:
        """The first segment with a request that was never taken, or the returned ones are in; `None`: there is none."""
        if self._returned:
            return self._returned[0][0]
        return next((segment for segment in self._segments if segment.untaken), None)

    def _drop_expired(self, now_unix_ns: int) -> None:
        while (oldest_unix_ns := self.oldest_unix_ns()) is not None:
            if not too_old(oldest_unix_ns, self._max_age_s, now_unix_ns) or (oldest := self._pop()) is None:
                return
            self.counts.expired += 1
            self._forget(oldest[0], oldest[1])

    def _pop(self) -> tuple[Segment, int, Entry | None] | None:
        """The oldest request that waits, which then waits no longer; the entry if it was read before."""
        entry: Entry | None = None
        segment = self._oldest_waiting()
        if segment is None:
            return None
        if self._returned:
            _, entry = self._returned.popleft()
            serial = entry.serial
        else:
            serial = segment.next_serial()
        self._waiting -= 1
        self._waiting_bytes -= segment.frame_bytes(serial) + _BOOKKEEPING_BYTES
        return segment, serial, entry

    def withdraw(self, serial: int) -> None:
        """See `ForwardQueue.withdraw`."""
        for segment in reversed(self._segments):
            frame_bytes = segment.frame_bytes(serial)
            if frame_bytes:
                if not segment.was_taken(serial):
                    self._waiting -= 1
                    self._waiting_bytes -= frame_bytes + _BOOKKEEPING_BYTES
                    self._forget(segment, serial)
                return

    def take(self, now_unix_ns: int) -> Entry | None:
        """See `ForwardQueue.take`."""
        while (oldest := self._pop()) is not None:
            segment, serial, entry = oldest
            entry = entry or self._read(segment, serial)
            if entry is None:
                self.counts.damaged += 1
            elif too_old(entry.accepted_unix_ns, self._max_age_s, now_unix_ns):
                self.counts.expired += 1
            else:
                self._taken[serial] = (segment, entry)
                self._taken_bytes += entry.cost_bytes
                return entry
            self._forget(segment, serial)
        return None

    def _read(self, segment: Segment, serial: int) -> Entry | None:
        try:
            frame = segment.read(serial)
        except OSError:
            return None
        if frame is None or frame[1].encoding is None:
            return None
        body, header = frame
        return Entry(body, frame[1].encoding, header.accepted_unix_ns, serial)

    def release(self, entries: Sequence[Entry]) -> None:
        """See `ForwardQueue.release`."""
        for entry in reversed(entries):
            if (taken := self._taken.pop(entry.serial, None)) is not None:
                self._taken_bytes -= entry.cost_bytes
                self._returned.appendleft(taken)
                self._waiting += 1
                self._waiting_bytes += entry.cost_bytes

    def settle(self, entries: Sequence[Entry]) -> None:
        """See `ForwardQueue.settle`."""
        self._settle(entries)

    def _settle(self, entries: Sequence[Entry]) -> int:
        settled = 0
        for entry in entries:
            if (taken := self._taken.pop(entry.serial, None)) is not None:
                self._taken_bytes -= entry.cost_bytes
                self._forget(taken[0], entry.serial)
                settled += 1
        return settled

    def _forget(self, segment: Segment, serial: int) -> None:
        segment.settle(serial)
        if segment.pending:
            return
        if segment is not self._active or not segment.reset():
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        self._segments.remove(segment)
        if segment is self._active:
            self._active = None
        self._unsynced.discard(segment)
        segment.remove()

    def expire(self, entries: Sequence[Entry], now_unix_ns: int) -> bool:
        """See `ForwardQueue.expire`."""
        if not all(too_old(one.accepted_unix_ns, self._max_age_s, now_unix_ns) for one in entries):
            return False
        self.counts.expired += self._settle(entries)
        return True

    def clear(self) -> int:
        """See `ForwardQueue.clear`."""
        cleared = self.entries
        for segment in tuple(self._segments):
            self._remove(segment)
        self._returned.clear()
        self._taken.clear()
        self._waiting = self._waiting_bytes = self._taken_bytes = 0
        self.counts.cleared += cleared
        return cleared

    @property
    def waiting(self) -> int:
        """See `ForwardQueue.waiting`."""
        return self._waiting

    @property
    def entries(self) -> int:
        """See `ForwardQueue.entries`."""
        return self._waiting + len(self._taken)

    @property
    def size_bytes(self) -> int:
        """See `ForwardQueue.size_bytes`."""
        return self._waiting_bytes + self._taken_bytes

    def oldest_unix_ns(self) -> int | None:
        """See `ForwardQueue.oldest_unix_ns`."""
        known = [entry.accepted_unix_ns for _, entry in (*self._taken.values(), *self._returned)]
        first = next((segment for segment in self._segments if segment.untaken), None)
        if first is not None and (accepted_unix_ns := first.next_accepted_unix_ns()) is not None:
            known.append(accepted_unix_ns)
        return min(known, default=None)

    def unsynced(self) -> list[int]:
        """See `ForwardQueue.unsynced`."""
        descriptors: list[int] = []
        try:
            descriptors.extend(segment.duplicate() for segment in self._unsynced)
            if self._new_file:
                descriptors.append(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise QueueUnavailable(
                f"the queue {self._directory} cannot be synced: {error.strerror}"
            ) from error
        self._unsynced.clear()
        self._new_file = False
        return descriptors

    def close(self) -> None:
        """See `ForwardQueue.close`."""
        for segment in self._segments:
            segment.close()


def _cost_of(segment: Segment) -> int:
    """What the requests of a segment that are not settled count towards the bound."""
    return segment.pending_bytes + segment.pending * _BOOKKEEPING_BYTES
