"""Which spans of lost runs are closed, and when. Pure: what it decides, `Monitor` does.

A verdict that is proven (the kernel ended the connection) closes its span at once; any other is held, for the
process may be heard again. Once a span was closed it stays so: its id is never sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

HOLD_S: Final = 60.0
MAX_REMEMBERED: Final = 100_000
"""Closed spans whose true ones would still be told apart; the oldest are forgotten first."""


class Closings:
    """See the module.

    Args:
        closed: ids of runs whose spans were closed before this start, oldest first.
        hold_s: how long an unproven verdict is held.
    """

    def __init__(self, closed: Iterable[str] = (), *, hold_s: float = HOLD_S) -> None:
        self._hold_s = hold_s
        self._held: dict[str, float] = {}
        self.closed: dict[str, None] = dict.fromkeys(closed)

    @property
    def concerned(self) -> bool:
        """Whether any span that arrives may be one of these: else nobody needs to look."""
        return bool(self._held or self.closed)

    def lost(self, run_id: str, *, proven: bool, now_s: float) -> None:
        """A run was lost by a verdict of this collector's."""
        if run_id not in self.closed:
            self._held[run_id] = now_s if proven else now_s + self._hold_s

    def spoke(self, run_id: str) -> None:
        """It was heard again, or its true end or span came: nothing is left to be closed."""
        self._held.pop(run_id, None)

    def held(self, run_id: str) -> bool:
        """Whether its span waits to be closed."""
        return run_id in self._held

    @property
    def held_ids(self) -> Collection[str]:
        """Ids of the runs whose spans wait to be closed."""
        return self._held.keys()

    def due(self, now_s: float) -> list[str]:
        """Ids of the runs whose spans are to be closed now, oldest first. They stay held until `close`."""
        return [run_id for run_id, due_s in self._held.items() if due_s <= now_s]

    def close(self, run_id: str) -> None:
        """Its span is being sent: from here on a span of that id is another."""
        self._held.pop(run_id, None)
        self.closed[run_id] = None
        if len(self.closed) > MAX_REMEMBERED:
            del self.closed[next(iter(self.closed))]

    def next_due_s(self) -> float | None:
        """When `due` has something; `None`: nothing is held."""
        return min(self._held.values(), default=None)
