"""Which runs changed since their host last wrote them down."""

from __future__ import annotations

from otelprogress.model.state import RunState


class Changes:
    """Ids of changed runs, in the order in which they changed first, until they are taken."""

    def __init__(self) -> None:
        self._durably: dict[str, None] = {}
        self._by_tick: dict[str, None] = {}

    def mark(self, run_id: str, *, durably: bool) -> None:
        """Remember a run: changed by something that may not be lost, or only by what the next tick repeats."""
        (self._durably if durably else self._by_tick)[run_id] = None

    def mark_ancestors(self, run: RunState, count: int, *, durably: bool) -> None:
        """Remember the nearest `count` ancestors of a run."""
        marked = self._durably if durably else self._by_tick
        for _ in range(count):
            if run.parent is None:
                return
            run = run.parent
            marked[run.id] = None

    def forget(self, run_id: str) -> None:
        """The run left the tree: there is nothing to write."""
        self._durably.pop(run_id, None)
        self._by_tick.pop(run_id, None)

    def take(self) -> tuple[list[str], list[str]]:
        """Those that changed durably, and those that only ticks changed; from then on nothing is remembered."""
        durably = self._durably
        by_tick = [run_id for run_id in self._by_tick if run_id not in durably]
        self._durably, self._by_tick = {}, {}
        return list(durably), by_tick
