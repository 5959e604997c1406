"""The log of durable events that all subscriptions of a host share.

A position is an offset: "everything up to and including it has been seen". Offset 0 is before the first entry.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from otelprogress.protocol.filters import Facts


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log: an event, encoded once, and what filters look at."""

    encoded: bytes
    """The event's JSON; empty for an eviction."""
    revision: int
    after: Facts
    """What the run was after the event."""
    before: Facts | None
    """What it was before; the same object where nothing that filters look at changed; `None`: new to the log."""
    terminal: bool = False
    evicted: bool = False
    """The host forgot the run: no event, but subscriptions are told."""


class Ring:
    """The last `capacity` entries; appending beyond it forgets the oldest.

    Memory grows with what is appended, up to `capacity` entries of some 600 bytes each.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        if capacity < 1:
            raise ValueError(f"a ring needs room for at least one entry, not {capacity}")
        self._capacity = capacity
        self._entries: list[Entry] = []
        self.head = 0
        """The offset of the newest entry; 0: none yet."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> int:
        """The offset of the oldest entry still held; head + 1 when there is none."""
        return self.head - len(self._entries) + 1

    def append(self, entry: Entry) -> int:
        """Add an entry; returns its offset."""
        if len(self._entries) < self._capacity:
            self._entries.append(entry)
        else:
            self._entries[self.head % self._capacity] = entry
        self.head += 1
        return self.head

    def can_resume(self, position: int) -> bool:
        """Whether nothing after `position` was forgotten."""
        return self.first - 1 <= position <= self.head

    def read(self, position: int) -> Iterator[tuple[int, Entry]]:
        """Offset and entry of everything after `position`, oldest first.

        Raises:
            LookupError: something after `position` was forgotten (or never was there).
        """
        if not self.can_resume(position):
            raise LookupError(f"position {position} is not within {self.first - 1} to {self.head}")
        entries, capacity = self._entries, self._capacity
        for offset in range(position + 1, self.head + 1):
            yield offset, entries[(offset - 1) % capacity]
