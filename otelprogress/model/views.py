"""Immutable views of runs, as snapshots and events carry them. Built only from what the state holds and `now`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from otelprogress.model.estimate import (
    Baseline,
    eta_from_baseline,
    eta_from_ratio,
    widest,
)
from otelprogress.model.events import OUTCOMES, ChildCounts, Eta, OperationView, State, StepState, StepView
from otelprogress.model.semconv import MAX_STEPS_IN_SNAPSHOT
from otelprogress.model.state import Extra, RunState, StepRecord

BaselineLookup: TypeAlias = Callable[[str, str, str], Baseline | None]
"""(tenant, operation name, step name or "") -> how long it took in earlier runs; `None`: unknown."""

_NOTHING = Extra()


def step_view(record: StepRecord) -> StepView:
    """One step as it stands."""
    return StepView(
        name=record.name,
        index=record.index,
        state=record.state,
        weight=record.weight,
        completed=record.completed,
        total=record.total,
        unit=record.unit,
        initial=record.initial,
        counters=record.counters.copy() if record.counters else {},
        ratio=record.ratio,
        started_at_unix_ns=record.started_ns,
        ended_at_unix_ns=record.ended_ns,
    )


def operation_view(
    run: RunState, now_unix_ns: int, *, steps: bool = False, baselines: BaselineLookup | None = None
) -> OperationView:
    """A run as it stands; with `steps` all its steps (at most 256, those around the current one)."""
    writer = run.writer
    extra = run.extra or _NOTHING
    plan = run.plan
    live = run.state not in OUTCOMES
    record = run.current_step()
    rate: float | None = None
    usual_s: float | None = None
    eta: Eta | None = None
    if live and run.stalled_since_ns is None:
        if record is not None and record.estimator is not None and record.state is StepState.RUNNING:
            silent_s = (now_unix_ns - run.moved_ns) / 1e9
            if run.state is State.RUNNING:
                rate = record.estimator.rate(silent_s)
            usual_s = record.estimator.usual_interval_s
        if run.state is State.RUNNING:
            eta = operation_eta(run, now_unix_ns, baselines)
    elif live and record is not None and record.estimator is not None:
        usual_s = record.estimator.usual_interval_s
    heard_ns = run.heard_ns if not live or run.heard_ns >= writer.heard_ns else writer.heard_ns
    parent = run.parent
    family = run.family
    if run.extra is None and family is None and live and not steps:
        # The plain run of the hot path: naming fewer fields halves the price.
        return OperationView(
            id=run.id,
            handle=run.handle,
            name=run.name,
            state=run.state,
            revision=run.revision,
            as_of_unix_ns=now_unix_ns,
            title=run.title,
            tenant=run.tenant,
            service=writer.service,
            process_id=writer.process_id,
            writer_id=writer.id,
            parent_id=None if parent is None else parent.id,
            parent_step_index=None if run.share is None or run.share.step_index < 0 else run.share.step_index,
            started_at_unix_ns=run.started_ns,
            updated_at_unix_ns=heard_ns,
            ratio=run.ratio,
            ratio_source=run.ratio_source,
            raw_ratio=run.raw_ratio,
            rate=rate,
            eta=eta,
            stalled=run.stalled_since_ns is not None,
            stalled_since_unix_ns=run.stalled_since_ns,
            usual_interval_s=usual_s,
            step=None if record is None else step_view(record),
            step_count=0 if plan is None else len(plan.steps) + plan.folded,
            weight=run.weight,
            incomplete=run.incomplete,
        )
    return OperationView(
        id=run.id,
        handle=run.handle,
        name=run.name,
        state=run.state,
        revision=run.revision,
        as_of_unix_ns=now_unix_ns,
        title=run.title,
        label=extra.label,
        tenant=run.tenant,
        service=writer.service,
        process_id=writer.process_id,
        writer_id=writer.id,
        parent_id=None if parent is None else parent.id,
        parent_step_index=None if run.share is None or run.share.step_index < 0 else run.share.step_index,
        started_at_unix_ns=run.started_ns,
        updated_at_unix_ns=heard_ns,
        ended_at_unix_ns=run.ended_ns,
        ratio=run.ratio,
        ratio_source=run.ratio_source,
        raw_ratio=run.raw_ratio,
        rate=rate,
        eta=eta,
        stalled=run.stalled_since_ns is not None,
        stalled_since_unix_ns=run.stalled_since_ns,
        usual_interval_s=usual_s,
        step=None if record is None else step_view(record),
        step_count=0 if plan is None else len(plan.steps) + plan.folded,
        steps=_steps(run) if steps else (),
        steps_folded=_folded(run) if steps else 0,
        children=None
        if family is None
        else ChildCounts(
            total=family.total,
            live=family.live,
            succeeded=family.succeeded,
            failed=family.failed,
            cancelled=family.cancelled,
            lost=family.lost,
            expected=extra.expected_children,
        ),
        attempt=extra.attempt,
        weight=run.weight,
        controls=extra.controls,
        attributes=extra.attributes or {},
        message=extra.message,
        level=extra.level,
        warnings=extra.warnings,
        error_type=extra.error_type,
        error_message=extra.error_message,
        result=extra.result,
        lost_detector=extra.lost_detector,
        lost_evidence_unix_ns=extra.lost_evidence_ns,
        lost_cause=extra.lost_cause,
        input_id=extra.input_id,
        input_prompt=extra.input_prompt,
        input_schema=extra.input_schema,
        input_default=extra.input_default,
        input_deadline_unix_ns=extra.input_deadline_ns,
        incomplete=run.incomplete,
        dropped=extra.dropped,
    )


def identity_view(run: RunState) -> OperationView:
    """What filters look at, at a fifth of the price: who it is, where it stands in the tree, and its state.

    Everything else is left at its default.
    """
    extra = run.extra or _NOTHING
    return OperationView(
        id=run.id,
        handle=run.handle,
        name=run.name,
        state=run.state,
        revision=run.revision,
        as_of_unix_ns=0,
        label=extra.label,
        tenant=run.tenant,
        service=run.writer.service,
        writer_id=run.writer.id,
        parent_id=None if run.parent is None else run.parent.id,
        started_at_unix_ns=run.started_ns,
        ended_at_unix_ns=run.ended_ns,
        attributes=extra.attributes or {},
    )


def active_s(run: RunState, now_unix_ns: int) -> float:
    """Seconds since the start without those of waiting and pausing."""
    return max(0, now_unix_ns - run.started_ns - run.idle_ns) / 1e9


def operation_eta(run: RunState, now_unix_ns: int, baselines: BaselineLookup | None) -> Eta | None:
    """Until the operation is done: what its ratio and its current step say, else its history; `None`: unknown.

    Unknown too where everything is counted and the operation goes on: what it does now it did not announce.
    """
    by_step = _unless_over(_eta_by_step(run, now_unix_ns))
    if by_step is not None and (run.plan is None or len(run.plan.steps) == run.plan.finished + 1):
        return by_step
    passed_s = active_s(run, now_unix_ns)
    by_ratio = _unless_over(eta_from_ratio(run.ratio, passed_s))
    found = widest(by_step, by_ratio)
    if found is None and baselines is not None:
        return eta_from_baseline(baselines(run.tenant, run.name, ""), passed_s)
    return found


def _unless_over(eta: Eta | None) -> Eta | None:
    return eta if eta is not None and eta.high_s > 0.0 else None


def _eta_by_step(run: RunState, now_unix_ns: int) -> Eta | None:
    """From the rate of the current step, the steps after it by their weights at the pace of this one."""
    record = run.current_step()
    if record is None or record.estimator is None or record.total is None:
        return None
    if record.state is not StepState.RUNNING:
        return None
    own = record.estimator.eta(record.total, (now_unix_ns - run.moved_ns) / 1e9)
    plan = run.plan
    if own is None or plan is None:
        return own
    if not plan.declared or record.weight <= 0.0 or record.started_ns is None:
        return None
    waiting = max(0.0, plan.weight - plan.done - record.weight * (1.0 - (record.ratio or 0.0)))
    spent_s = max(0, now_unix_ns - record.started_ns) / 1e9
    per_weight = waiting / record.weight
    return Eta(
        own.low_s + per_weight * (spent_s + own.low_s), own.high_s + per_weight * (spent_s + own.high_s)
    )


def _window(run: RunState) -> tuple[int, int]:
    plan = run.plan
    if plan is None:
        return 0, 0
    count = len(plan.steps)
    first = min(max(0, plan.current - MAX_STEPS_IN_SNAPSHOT * 3 // 4), max(0, count - MAX_STEPS_IN_SNAPSHOT))
    return first, min(count, first + MAX_STEPS_IN_SNAPSHOT)


def _steps(run: RunState) -> tuple[StepView, ...]:
    first, end = _window(run)
    return () if run.plan is None else tuple(step_view(record) for record in run.plan.steps[first:end])


def _folded(run: RunState) -> int:
    first, end = _window(run)
    return 0 if run.plan is None else len(run.plan.steps) + run.plan.folded - (end - first)
