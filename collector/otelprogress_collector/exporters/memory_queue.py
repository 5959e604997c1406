"""A queue that is gone with the process: for the durability `memory`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from otelprogress_collector.exporters.forward_queue import Entry, QueueCounts, too_old
from otelprogress_collector.exporters.framing import Encoding


class MemoryQueue:
    """See `ForwardQueue`.

    Args:
        max_bytes: what may wait, beside what was taken.
        max_age_s: how long; `None`: for ever.
    """

    survives = False

    def __init__(self, *, max_bytes: int, max_age_s: float | None = None) -> None:
        self.counts = QueueCounts()
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._serial = 0
        self._taken: dict[int, Entry] = {}
        self._taken_bytes = 0

    def open(self, now_unix_ns: int) -> None:
        """Nothing waits from before."""

    def append(self, body: bytes, encoding: Encoding, now_unix_ns: int) -> int:
        """See `ForwardQueue.append`."""
        self._serial += 1
        entry = Entry(body, encoding, now_unix_ns, self._serial)
        self._waiting.append(entry)
        self._waiting_bytes += entry.cost_bytes
        while self._waiting_bytes > self._max_bytes:
            self._pop()
            self.counts.overflowed += 1
        return entry.serial

    def _pop(self) -> Entry:
        entry = self._waiting.popleft()
        self._waiting_bytes -= entry.cost_bytes
        return entry

    def withdraw(self, serial: int) -> None:
        """See `ForwardQueue.withdraw`."""
        for entry in reversed(self._waiting):
            if entry.serial <= serial:
                if entry.serial == serial:
                    self._waiting.remove(entry)
                    self._waiting_bytes -= entry.cost_bytes
                return

    def take(self, now_unix_ns: int) -> Entry | None:
        """See `ForwardQueue.take`."""
        while self._waiting:
            entry = self._pop()
            if too_old(entry.accepted_unix_ns, self._max_age_s, now_unix_ns):
                self.counts.expired += 1
                continue
            self._taken[entry.serial] = entry
            self._taken_bytes += entry.cost_bytes
            return entry
        return None

    def release(self, entries: Sequence[Entry]) -> None:
        """See `ForwardQueue.release`."""
        for entry in reversed(entries):
            if self._forget(entry):
                self._waiting.appendleft(entry)
                self._waiting_bytes += entry.cost_bytes

    def settle(self, entries: Sequence[Entry]) -> None:
        """See `ForwardQueue.settle`."""
        for entry in entries:
            self._forget(entry)

    def _forget(self, entry: Entry) -> bool:
        if self._taken.pop(entry.serial, None) is None:  # cleared meanwhile
            return False
        self._taken_bytes -= entry.cost_bytes
        return True

    def expire(self, entries: Sequence[Entry], now_unix_ns: int) -> bool:
        """See `ForwardQueue.expire`."""
        if not all(too_old(one.accepted_unix_ns, self._max_age_s, now_unix_ns) for one in entries):
            return False
        self.counts.expired += sum(self._forget(entry) for entry in entries)
        return True

    def clear(self) -> int:
        """See `ForwardQueue.clear`."""
        cleared = self.entries
        self._waiting.clear()
        self._taken.clear()
        self._waiting_bytes = self._taken_bytes = 0
        self.counts.cleared += cleared
        return cleared

    @property
    def waiting(self) -> int:
        """See `ForwardQueue.waiting`."""
        return len(self._waiting)

    @property
    def entries(self) -> int:
        """See `ForwardQueue.entries`."""
        return len(self._waiting) + len(self._taken)

    @property
    def size_bytes(self) -> int:
        """See `ForwardQueue.size_bytes`."""
        return self._waiting_bytes + self._taken_bytes

    def oldest_unix_ns(self) -> int | None:
        """See `ForwardQueue.oldest_unix_ns`."""
        oldest = [entry.accepted_unix_ns for entry in self._taken.values()]
        if self._waiting:
            oldest.append(self._waiting[0].accepted_unix_ns)
        return min(oldest, default=None)

    def unsynced(self) -> list[int]:
        """Nothing here survives anything."""
        return []

    def close(self) -> None:
        """Nothing to give back."""
