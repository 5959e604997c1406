"""Which runs have stopped moving.

`stalled` is a flag, not a state. A run that waits or pauses, or has a descendant that does, never stalls; nor does
one with live children by default, for its counts move at their pace, and the child that is stuck says so itself.

What counts is judged by its own pace. What has not counted yet is judged by history, where there is any: it stalls
once it has been silent for much longer than it ever takes (docs/adr/0008).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from otelprogress.model.estimate import STALL_FLOOR_S, stall_after_history_s, stall_after_s
from otelprogress.model.events import State, StepState
from otelprogress.model.rollup import is_idle
from otelprogress.model.state import RunState
from otelprogress.model.timetable import Timetable
from otelprogress.model.views import BaselineLookup

MAX_STALL_AFTER_S = 1e9
_LOOK_EVERY_NS = int(STALL_FLOOR_S * 1e9)
"""How often a run that only its history can judge is looked at. Once it counts, or enters another step, another limit
holds, but none below this one: so no stall is seen late, and no event has to ask for history."""

_READ_WITHIN_NS = 10**9


def stalls_at_ns(run: RunState, baselines: BaselineLookup | None = None) -> int | None:
    """When a run stalls if nothing moves until then, by the host's clock; `None`: it does not, or already has."""
    if not _may_stall(run):
        return None
    explicit_s = run.extra.stall_after_s if run.extra is not None else None
    record = run.current_step()
    running = record is not None and record.state is StepState.RUNNING
    limit_s = stall_after_s(explicit_s, record.estimator if record is not None and running else None)
    if limit_s is None and baselines is not None and (step_name := _silent_part(run)) is not None:
        limit_s = stall_after_history_s(baselines(run.tenant, run.name, step_name))
    return None if limit_s is None else run.moved_ns + int(min(limit_s, MAX_STALL_AFTER_S) * 1e9)


def _may_stall(run: RunState) -> bool:
    if run.state is not State.RUNNING or run.stalled_since_ns is not None or is_idle(run):
        return False
    explicit = run.extra is not None and run.extra.stall_after_s is not None
    return explicit or run.family is None or not run.family.live


def _silent_part(run: RunState) -> str | None:
    """The step whose history judges a run that does not count; empty: it has no steps; `None`: it is between two."""
    record = run.current_step()
    if run.plan is None or not run.plan.steps:
        return ""
    return record.name if record is not None and record.state is StepState.RUNNING else None


class StallWatch:
    """Looks at each run once when its time may have come, not each time it moves.

    Args:
        baselines: how long things took before; `None`: there is no history, and what does not count does not stall.
    """

    def __init__(self, baselines: BaselineLookup | None = None) -> None:
        self._timetable = Timetable()
        self._baselines = baselines

    def watch(self, run: RunState, now_ns: int) -> None:
        """Look at a run when it would stall; cheap for one that is watched already."""
        if run.stall_queued:
            return
        look_ns = stalls_at_ns(run)
        if look_ns is None:
            look_ns = self._look_by_history_ns(run, now_ns)
        if look_ns is not None:
            run.stall_queued = True
            self._timetable.add(max(look_ns, now_ns), run.id)

    def _look_by_history_ns(self, run: RunState, now_ns: int) -> int | None:
        if self._baselines is None or not _may_stall(run) or _silent_part(run) is None:
            return None
        look_ns = now_ns + _LOOK_EVERY_NS
        deadline_ns = stalls_at_ns(run, self._baselines)
        if deadline_ns is not None:
            return min(deadline_ns, look_ns)
        # A host may have to read first what it is asked for: just after the shortest limit there is, it has.
        again_ns = run.moved_ns + _LOOK_EVERY_NS + _READ_WITHIN_NS
        return min(again_ns, look_ns) if again_ns > now_ns else look_ns

    def due(self, now_ns: int, runs: Mapping[str, RunState]) -> Iterator[RunState]:
        """The runs that have stalled by now; the others are watched on."""
        for run_id in self._timetable.due(now_ns):
            run = runs.get(run_id)
            if run is None:
                continue
            run.stall_queued = False
            deadline_ns = stalls_at_ns(run, self._baselines)
            if deadline_ns is not None and deadline_ns <= now_ns:
                yield run
            else:
                self.watch(run, now_ns)

    def next_unix_ns(self) -> int | None:
        """When to look again, to 0.13 s; `None`: no run can stall."""
        return self._timetable.next_unix_ns()
