"""How much waits, over all runs, that only spans said while log events may still say it better."""

from __future__ import annotations

from typing import Final

MAX_EVENTS: Final = 32_768
"""Held over all runs, 1 KB each or so; beyond it the runs that wait longest wait no more."""


class Hearsay:
    """How many events each run holds back (`Carrier.hearsay`), in the order in which the runs began to."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._total = 0

    def holds(self, run_id: str, count: int) -> None:
        """A run now holds that many back."""
        self._total += count - self._counts.get(run_id, 0)
        if count:
            self._counts[run_id] = count
        else:
            self._counts.pop(run_id, None)

    def excess(self) -> str | None:
        """The run that should wait no longer, because all together hold too many; `None`: all may wait."""
        return next(iter(self._counts)) if self._total > MAX_EVENTS else None

    def __len__(self) -> int:
        return self._total
