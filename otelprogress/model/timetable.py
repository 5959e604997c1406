"""Which runs have something to do at which time, without a heap entry for each."""

from __future__ import annotations

from typing import Final

BUCKET_BITS: Final = 27
"""Deadlines are kept in buckets of 2^27 ns (0.13 s): one list entry a run, not a heap node."""


class Timetable:
    """Deadlines of runs by id. An entry is a hint: the owner looks the true deadline up when it comes due."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[str]] = {}
        self._first: int | None = None

    def add(self, deadline_unix_ns: int, run_id: str) -> None:
        """Ask for the run at that time, or a bucket earlier."""
        bucket = deadline_unix_ns >> BUCKET_BITS
        self._buckets.setdefault(bucket, []).append(run_id)
        if self._first is None or bucket < self._first:
            self._first = bucket

    def due(self, now_unix_ns: int) -> list[str]:
        """Take out all runs whose time may have come, up to a bucket early: add those again that are not due."""
        last = now_unix_ns >> BUCKET_BITS
        if self._first is None or self._first > last:
            return []
        found: list[str] = []
        for bucket in sorted(bucket for bucket in self._buckets if bucket <= last):
            found += self._buckets.pop(bucket)
        self._first = min(self._buckets, default=None)
        return found

    def next_unix_ns(self) -> int | None:
        """When to look again: everything due before is due by then; `None`: nothing is waiting."""
        return None if self._first is None else ((self._first + 1) << BUCKET_BITS) - 1
