"""Who is whose child, also when the child is heard of first or the input is a circle."""

from __future__ import annotations

from collections.abc import Mapping

from otelprogress.model.applied import TreeStats
from otelprogress.model.rollup import attach, propagate
from otelprogress.model.state import RunState

TRACE_PREFIX_CHARS = 33
"""A run id up to and including the hyphen."""


class Kinship:
    """Places runs below their parents.

    A child that comes before its parent is a root until the parent speaks; where the parent is a span that is no
    operation, it stays one.

    Args:
        max_depth: a run that would be deeper becomes a root.
        stats: where cycles and depths are counted.
    """

    def __init__(self, max_depth: int, stats: TreeStats) -> None:
        self._max_depth = max_depth
        self._stats = stats
        self._orphans: dict[str, dict[str, None]] = {}

    def place(self, run: RunState, parent_span_id: str, runs: Mapping[str, RunState]) -> None:
        """Put a run below the parent that it named, or let it wait for that."""
        if not parent_span_id.strip("0"):
            return
        parent_id = run.id[:TRACE_PREFIX_CHARS] + parent_span_id
        parent = runs.get(parent_id)
        if parent_id == run.id:
            self._stats.cycles += 1
        elif parent is None or not parent.spoken:
            self.wait(run, parent_id)
        elif self._may_attach(run, parent):
            attach(run, parent)

    def wait(self, run: RunState, parent_id: str) -> None:
        """Let a run wait for a parent that did not speak yet."""
        self._orphans.setdefault(parent_id, {})[run.id] = None
        run.awaited_parent = parent_id

    def adopt(self, parent: RunState, runs: Mapping[str, RunState], now_ns: int) -> None:
        """A run speaks for the first time: those that waited for it become its children."""
        adopted: list[RunState] = []
        for orphan_id in self._orphans.pop(parent.id, ()):
            orphan = runs[orphan_id]
            orphan.awaited_parent = None
            if self._may_attach(orphan, parent):
                attach(orphan, parent)
                adopted.append(orphan)
        # Only now, for one that has ended alone would be all there is, and a ratio does not go back.
        for orphan in adopted:
            propagate(orphan, now_ns, moved=False)

    def forget(self, run: RunState, runs: Mapping[str, RunState]) -> None:
        """A run left the tree; children of its that stay become roots."""
        if run.awaited_parent is not None and (orphans := self._orphans.get(run.awaited_parent)) is not None:
            orphans.pop(run.id, None)
            if not orphans:
                del self._orphans[run.awaited_parent]
        if run.parent is not None and run.parent.family is not None:
            run.parent.family.ids.pop(run.id, None)
        if run.family is not None:
            for child_id in run.family.ids:
                runs[child_id].parent = runs[child_id].share = None

    def _may_attach(self, run: RunState, parent: RunState) -> bool:
        if parent.tenant != run.tenant:
            return False
        above: RunState | None = parent
        for _ in range(self._max_depth):
            if above is None:
                return True
            if above is run:
                self._stats.cycles += 1
                return False
            above = above.parent
        self._stats.too_deep += 1
        return False
