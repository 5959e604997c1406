"""The ratio of steps, runs and their ancestors.

A step's ratio comes from its items (a live child adds its own ratio to the open item), else from its children;
a run's is the weighted sum over its steps; without steps the step's rule applies to the run. A child that knows
nothing counts 0 until it ends. Sums kept per step (`state.Share`) make a child's move cost O(depth).

A ratio never goes back: what would is shown as `raw_ratio` beside it. A run whose steps nobody declared has no
ratio of its own before it ends, for nobody knows how many steps will follow.
"""

from __future__ import annotations

from typing import Final

from otelprogress.model.events import OUTCOMES, State, StepState
from otelprogress.model.state import IDLE_STATES, STEPS_DONE, Family, Plan, RunState, Share, StepRecord

MEASURED: Final = "measured"
ESTIMATED: Final = "estimated"


def part_ratio(
    record: StepRecord | None, share: Share | None, expected: int | None
) -> tuple[float | None, bool]:
    """The ratio of one step, or of a run without steps, and whether it is only an estimate."""
    if record is not None:
        if record.state in STEPS_DONE:
            return 1.0, False
        total, completed = record.total, record.completed
        if total is not None and completed is not None:
            if total <= 0.0:
                return 1.0, False
            if share is not None and share.live_ratio > 0.0:
                completed += share.live_ratio
            return (completed / total if completed < total else 1.0), False
    if share is not None and share.children:
        unseen = expected - share.children if expected is not None and expected > share.children else 0
        if share.weight <= 0.0:
            ratio = share.ended / (share.children + unseen)
        else:
            # A child not seen yet weighs as much as those seen do on average.
            ratio = share.done / (share.weight * (1.0 + unseen / share.children))
        return min(1.0, max(0.0, ratio)), expected is None
    return None, True


def refresh_step(plan: Plan, record: StepRecord, expected: int | None) -> None:
    """Compute a step's ratio anew and put the difference into the sums of its run."""
    ratio, guess = part_ratio(record, record.share, expected)
    if ratio is None and record.state is StepState.FAILED:
        ratio = record.ratio
    if ratio != record.ratio:
        plan.done += record.weight * ((ratio or 0.0) - (record.ratio or 0.0))
        record.ratio = ratio
    soft = guess and record.state is StepState.RUNNING
    if soft is not record.soft:
        plan.soft += 1 if soft else -1
        record.soft = soft


def refresh(run: RunState) -> None:
    """Compute the ratio of a run from its parts and hold it where it would go back."""
    if run.state is State.SUCCEEDED:
        run.ratio, run.raw_ratio, run.ratio_source = 1.0, None, MEASURED
        return
    plan = run.plan
    raw: float | None
    if plan is None:
        raw, guess = part_ratio(
            run.counts,
            None if run.family is None else run.family.share,
            None if run.extra is None else run.extra.expected_children,
        )
        if run.counts is not None:
            run.counts.ratio = raw
    elif not plan.declared:
        raw, guess = None, True
    elif plan.finished == len(plan.steps):
        raw, guess = 1.0, False
    else:
        raw = (
            min(1.0, max(0.0, plan.done / plan.weight))
            if plan.weight > 0.0
            else plan.finished / len(plan.steps)
        )
        guess = plan.soft > 0
    if raw is None:
        raw = run.said_ratio
        if raw is None:
            return
        source = run.said_source or ESTIMATED
    else:
        source = ESTIMATED if guess else MEASURED
    run.ratio_source = source
    if run.ratio is None or raw >= run.ratio:
        run.ratio = raw
        run.raw_ratio = None
    else:
        run.raw_ratio = raw


def is_idle(run: RunState) -> bool:
    """Whether a live run waits or pauses, or something below it does, so that nothing need move."""
    return run.state in IDLE_STATES or (
        run.family is not None and run.family.idle > 0 and run.state not in OUTCOMES
    )


def attach(run: RunState, parent: RunState) -> None:
    """Make a run a child of another: of the step that is current there now."""
    family = parent.family
    if family is None:
        family = parent.family = Family()
    family.ids[run.id] = None
    family.total += 1
    family.live += 1
    plan = parent.plan
    if plan is not None and plan.current >= 0:
        record = plan.steps[plan.current]
        share = record.share
        if share is None:
            share = record.share = Share(record.index, number=family.total)
    else:
        share = family.share
        if share is None:
            share = family.share = Share(number=family.total)
    share.children += 1
    share.weight += run.weight
    run.parent, run.share = parent, share
    run.contribution, run.counted_as, run.counted_idle = 0.0, None, False
    _refresh_part(parent, share)


def adopt_share(run: RunState, record: StepRecord) -> None:
    """The first step of a run takes over the children that started before any step was entered."""
    family = run.family
    if family is not None and family.share is not None and record.share is None:
        record.share, family.share = family.share, None
        record.share.step_index = record.index


def propagate(run: RunState, now_unix_ns: int, *, moved: bool) -> tuple[int, list[RunState]]:
    """Carry a change of a run up to its ancestors, stopping where nothing changes any more.

    Args:
        run: the run that changed; its own ratio is up to date.
        now_unix_ns: host's clock; a child's movement is movement of its ancestors.
        moved: whether its counts moved.

    Returns:
        How many ancestors were touched, and those of them whose stall has to be looked at: they were stalled
        and something moved, or nobody watches whether they stall.
    """
    touched = 0
    unwatched: list[RunState] = []
    while (parent := run.parent) is not None and (share := run.share) is not None:
        changed = _count_in(run, parent, share)
        if not changed and not moved:
            break
        touched += 1
        if changed:
            _refresh_part(parent, share)
        if moved:
            parent.moved_ns = max(parent.moved_ns, now_unix_ns)
        if not parent.stall_queued:
            unwatched.append(parent)
        run = parent
    return touched, unwatched


def _refresh_part(parent: RunState, share: Share) -> None:
    """Compute the ratio of the part of a run that its children changed, and its own."""
    plan = parent.plan
    if plan is not None and share.step_index >= 0:
        expected = None if parent.extra is None else parent.extra.expected_children
        refresh_step(plan, plan.steps[share.step_index], expected)
    if parent.state not in OUTCOMES:
        refresh(parent)


def _count_in(run: RunState, parent: RunState, share: Share) -> bool:
    """Bring the sums that a parent keeps of one child up to date; whether anything changed."""
    outcome = run.state if run.state in OUTCOMES else None
    changed = False
    if outcome is not run.counted_as:
        changed = True
        family = parent.family
        if family is not None:
            _tally(family, run.counted_as, -1)
            _tally(family, outcome, +1)
        if run.counted_as is None:
            share.ended += 1
            share.live_ratio -= run.contribution
            share.done += run.weight * (1.0 - run.contribution)
            run.contribution = 1.0
        elif outcome is None:
            share.ended -= 1
            share.done -= run.weight * run.contribution
            run.contribution = 0.0
        run.counted_as = outcome
        if share.ended == share.children:
            # All rounding errors of the sums end here.
            share.live_ratio, share.done = 0.0, share.weight
    ratio = run.ratio or 0.0
    if outcome is None and ratio != run.contribution:
        changed = True
        share.live_ratio += ratio - run.contribution
        share.done += run.weight * (ratio - run.contribution)
        run.contribution = ratio
    idle = is_idle(run)
    if idle is not run.counted_idle:
        changed = True
        run.counted_idle = idle
        if parent.family is not None:
            parent.family.idle += 1 if idle else -1
    return changed


def _tally(family: Family, outcome: State | None, step: int) -> None:
    if outcome is None:
        family.live += step
    elif outcome is State.SUCCEEDED:
        family.succeeded += step
    elif outcome is State.FAILED:
        family.failed += step
    elif outcome is State.CANCELLED:
        family.cancelled += step
    else:
        family.lost += step
