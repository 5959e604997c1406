"""Which runs have stopped moving.

`stalled` is a flag, not a state. A run that waits or pauses, or has a descendant that does, never stalls; nor does
one with live children by default, for its counts move at their pace, and the child that is stuck says so itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from otelprogress.model.estimate import stall_after_s
from otelprogress.model.events import State, StepState
from otelprogress.model.rollup import is_idle
from otelprogress.model.state import RunState
from otelprogress.model.timetable import Timetable

MAX_STALL_AFTER_S = 1e9


def stalls_at_ns(run: RunState) -> int | None:
    """When a run stalls if nothing moves until then, by the host's clock; `None`: it does not, or already has."""
    if run.state is not State.RUNNING or run.stalled_since_ns is not None or is_idle(run):
        return None
    explicit_s = run.extra.stall_after_s if run.extra is not None else None
    if explicit_s is None and run.family is not None and run.family.live:
        return None
    record = run.current_step()
    running = record is not None and record.state is StepState.RUNNING
    limit_s = stall_after_s(explicit_s, record.estimator if record is not None and running else None)
    return None if limit_s is None else run.moved_ns + int(min(limit_s, MAX_STALL_AFTER_S) * 1e9)


class StallWatch:
    """Looks at each run once when its time may have come, not each time it moves."""

    def __init__(self) -> None:
        self._timetable = Timetable()

    def watch(self, run: RunState, now_ns: int) -> None:
        """Look at a run when it would stall; cheap for one that is watched already."""
        if not run.stall_queued and (deadline_ns := stalls_at_ns(run)) is not None:
            run.stall_queued = True
            self._timetable.add(max(deadline_ns, now_ns), run.id)

    def due(self, now_ns: int, runs: Mapping[str, RunState]) -> Iterator[RunState]:
        """The runs that have stalled by now; the others are watched on."""
        for run_id in self._timetable.due(now_ns):
            run = runs.get(run_id)
            if run is None:
                continue
            run.stall_queued = False
            deadline_ns = stalls_at_ns(run)
            if deadline_ns is not None and deadline_ns <= now_ns:
                yield run
            else:
                self.watch(run, now_ns)

    def next_unix_ns(self) -> int | None:
        """When to look again, to 0.13 s; `None`: no run can stall."""
        return self._timetable.next_unix_ns()
