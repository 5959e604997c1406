"""What one event does to the record of its run: absolute, idempotent, never backwards.

Order between carriers: sequenced events come in the order of their sequence; ticks have none, so a tick counts
where its time is not before what is known already, and a durable event does not undo what a later tick said.
A clock that stepped back by more than a minute is followed, not fought. It is long because these rules are one table of
what may change what, and are read together.
"""

from __future__ import annotations

from sys import intern
from typing import Final

from otelprogress.model import semconv
from otelprogress.model.estimate import Estimator
from otelprogress.model.events import NO_STEP_INDEX, OUTCOMES, Event, Source, State, StepState
from otelprogress.model.rollup import adopt_share, refresh, refresh_step
from otelprogress.model.state import (
    IDLE_STATES,
    STEPS_DONE,
    Plan,
    RunState,
    StepRecord,
    check_operation,
    check_step,
)

CHANGED: Final = 1
"""Flag: something is different now."""
MOVED: Final = 2
"""Flag: its progress moved: a count, a step, an end."""

STEP_EVENTS: Final = frozenset({semconv.STEP_STARTED, semconv.STEP_ENDED})
CONTROL_EVENTS: Final = frozenset({semconv.CONTROL_APPLIED, semconv.CONTROL_REFUSED})
_FACT_EVENTS: Final = frozenset({semconv.OPERATION_STARTED, semconv.OPERATION_ENDED})

CLOCK_STEP_NS: Final = 60 * 10**9
MAX_STEPS: Final = 1024
"""Step records of one run; later steps share the last record and are counted."""
FEW_STEPS: Final = 8


def reduce(run: RunState, event: Event, *, late: bool = False) -> int:
    """Apply one event to its run, in place.

    Args:
        run: the record.
        event: numbers and times already repaired (`model.bounds`).
        late: it came after its place in the order was given up: it fills what is missing and undoes nothing.

    Returns:
        0 when nothing changed, else `CHANGED`, with `MOVED` when progress moved.

    Raises:
        IllegalTransition: the run or the step cannot make that move. Nothing was changed by then but facts
            that were missing.
    """
    kind = event.kind
    if kind == semconv.OPERATION_PROGRESSED:
        flags = _state(run, event, late=late) if event.state is not None else 0
        flags |= _progress(run, event, late=late)
    else:
        flags = _facts(run, event)
        if kind == semconv.OPERATION_ENDED:
            flags |= _progress(run, event, late=late or not run.live)
            flags |= _end(run, event)
        else:
            if event.state is not None or event.stalled is not None:
                flags |= _state(run, event, late=late)
            flags |= _progress(run, event, late=late)
            if kind == semconv.OPERATION_NOTED:
                flags |= _note(run, event)
            elif kind == semconv.INPUT_REQUESTED:
                flags |= _input(run, event)
            elif kind in CONTROL_EVENTS:
                flags |= CHANGED  # the audit of a command is said whatever it changed
    if flags:
        if event.ratio is not None:
            run.said_ratio, run.said_source = event.ratio, event.ratio_source
        refresh(run)
    elif event.ratio is not None and event.ratio != run.said_ratio and not late and run.live:
        run.said_ratio, run.said_source = event.ratio, event.ratio_source
        before = run.ratio, run.raw_ratio
        refresh(run)
        if (run.ratio, run.raw_ratio) != before:
            flags = CHANGED | MOVED
    return flags


def _follows(time_ns: int, mark_ns: int, *, late: bool) -> bool:
    return time_ns >= mark_ns or (not late and time_ns < mark_ns - CLOCK_STEP_NS)


def _facts(run: RunState, event: Event) -> int:
    """What is said once, at the start as a rule; the first word counts, later ones fill what is missing."""
    flags = 0
    if event.name and not run.name:
        run.name = intern(event.name)
        flags = CHANGED
    if event.title and not run.title:
        run.title = event.title
        flags = CHANGED
    start_ns = event.start_unix_ns
    if start_ns is None and event.kind == semconv.OPERATION_STARTED:
        start_ns = event.time_unix_ns
    if start_ns is not None and start_ns < run.started_ns:
        run.started_ns = start_ns
        flags = CHANGED
    if event.steps and (run.plan is None or not run.plan.declared):
        _declare(run, event.steps, event.step_weights or ())
        flags = CHANGED
    if event.kind in _FACT_EVENTS:
        flags |= _rare_facts(run, event)
    return flags


def _rare_facts(run: RunState, event: Event) -> int:
    flags = 0
    for source, target in _RARE:
        value = getattr(event, source)
        if value is None or value == ():
            continue
        extra = run.details()
        if getattr(extra, target) is None or (target == "controls" and not extra.controls):
            setattr(extra, target, value)
            flags = CHANGED
            if target == "stall_after_s":
                run.stall_queued = False  # it is looked at when the other limit would have been over
    if event.attempt is not None and event.attempt > 1 and run.details().attempt == 1:
        run.details().attempt = event.attempt
        flags = CHANGED
    return flags


_RARE: Final = (
    ("label", "label"),
    ("controls", "controls"),
    ("attributes", "attributes"),
    ("expected_children", "expected_children"),
    ("stall_after_s", "stall_after_s"),
    ("span_kind", "span_kind"),
    ("trace_state", "trace_state"),
)


def _declare(run: RunState, names: tuple[str, ...], weights: tuple[float, ...]) -> None:
    """Take over the planned steps; steps that were entered before keep their state and follow where unplanned."""
    known = {} if run.plan is None else {record.name: record for record in run.plan.steps}
    current = None if run.plan is None or run.plan.current < 0 else run.plan.steps[run.plan.current]
    records = []
    for position, name in enumerate(names[:MAX_STEPS]):
        record = known.pop(name, None) or StepRecord(name=intern(name), index=position)
        if position < len(weights):
            record.weight = weights[position]
        records.append(record)
    records += list(known.values())
    plan = run.plan or Plan([])
    plan.steps, plan.declared = records, True
    plan.folded += max(0, len(names) - MAX_STEPS)
    plan.by_name, plan.open = None, []
    plan.weight = plan.done = 0.0
    plan.finished = plan.soft = 0
    run.plan = plan
    for position, record in enumerate(records):
        record.index = position
        if record.share is not None:
            record.share.step_index = position
        if record is current:
            plan.current = position
        if record.state is StepState.RUNNING:
            plan.open.append(position)
        plan.weight += record.weight
        plan.done += record.weight * (record.ratio or 0.0)
        plan.finished += record.state in STEPS_DONE
        plan.soft += record.soft


def _state(run: RunState, event: Event, *, late: bool) -> int:
    flags = 0
    requested = event.state
    by_tick = event.kind == semconv.OPERATION_PROGRESSED
    if requested is not None and requested not in OUTCOMES:
        in_order = not late and not by_tick and not run.state_by_tick
        if requested is not run.state and (in_order or _follows(event.time_unix_ns, run.state_ns, late=late)):
            if run.state in OUTCOMES and event.kind != semconv.OPERATION_STATE_CHANGED:
                requested = None  # only a change of state that says so leads out of an outcome
            else:
                check_operation(run.state, requested)
                set_state(run, requested, event.time_unix_ns)
                run.state_by_tick = by_tick
                flags = CHANGED | MOVED
        elif requested is run.state and event.time_unix_ns > run.state_ns:
            run.state_ns, run.state_by_tick = event.time_unix_ns, by_tick
    if event.stalled is not None and event.stalled is not (run.stalled_since_ns is not None) and run.live:
        run.stalled_since_ns = event.time_unix_ns if event.stalled else None
        flags = CHANGED
    return flags


def set_state(run: RunState, state: State, time_ns: int) -> None:
    """Put a run into a live state, keeping the time that is in no rate. The move was checked."""
    if state in IDLE_STATES:
        if run.idle_since_ns is None:
            run.idle_since_ns = time_ns
        run.stalled_since_ns = None
    elif run.idle_since_ns is not None:
        run.idle_ns += max(0, time_ns - run.idle_since_ns)
        run.idle_since_ns = None
        record = run.current_step()
        if record is not None and record.estimator is not None:
            record.estimator.resume(time_ns)
    if state is State.RUNNING and run.extra is not None:
        run.extra.input_id = run.extra.input_prompt = run.extra.input_schema = run.extra.input_default = None
        run.extra.input_deadline_ns = None
        if run.state is State.LOST:
            _found_again(run)
    run.state, run.state_ns = state, time_ns


def _found_again(run: RunState) -> None:
    run.ended_ns = None
    if run.extra is not None:
        run.extra.lost_detector = run.extra.lost_cause = run.extra.lost_evidence_ns = None


def _end(run: RunState, event: Event) -> int:
    requested = event.state
    if requested is None:
        requested = State.FAILED if event.error_type else State.SUCCEEDED
    extra = run.extra
    if run.state in OUTCOMES and not (run.state is State.LOST and requested is not State.LOST):
        return _fill_end(run, event)
    check_operation(run.state, requested)
    if run.state is State.LOST:
        _found_again(run)
    if run.idle_since_ns is not None:
        run.idle_ns += max(0, event.time_unix_ns - run.idle_since_ns)
        run.idle_since_ns = None
    run.state, run.state_ns, run.stalled_since_ns = requested, event.time_unix_ns, None
    run.ended_ns = max(event.time_unix_ns, run.started_ns)
    if requested is State.LOST:
        extra = run.details()
        evidence_ns = event.lost_evidence_unix_ns
        extra.lost_evidence_ns = None if evidence_ns is None else max(evidence_ns, run.started_ns)
    if requested is State.CANCELLED and extra is not None:
        # What it said last is no reason of the canceller's.
        extra.message = extra.level = None
    _fill_end(run, event)
    if extra is not None:
        extra.input_id = extra.input_prompt = extra.input_schema = extra.input_default = None
        extra.input_deadline_ns = None
    _close_steps(run, requested)
    return CHANGED | MOVED


def _fill_end(run: RunState, event: Event) -> int:
    flags = 0
    pairs = [
        ("error_type", event.error_type),
        ("error_message", event.error_message),
        ("result", event.result),
    ]
    if run.state is State.LOST:
        pairs += [("lost_detector", event.lost_detector), ("lost_cause", event.lost_cause)]
    for name, value in pairs:
        if value is not None and (run.extra is None or getattr(run.extra, name) is None):
            setattr(run.details(), name, value)
            flags = CHANGED
    if event.message is not None and (run.extra is None or event.time_unix_ns > run.extra.message_ns):
        extra = run.details()
        extra.message, extra.level, extra.message_ns = event.message, event.level, event.time_unix_ns
        flags = CHANGED
    return flags


def _close_steps(run: RunState, outcome: State) -> None:
    """An end closes what it left open; a lost run keeps its open steps: that is where it died."""
    plan = run.plan
    if plan is None or outcome is State.LOST:
        return
    state = StepState.SUCCEEDED if outcome is State.SUCCEEDED else StepState.FAILED
    for position in plan.open:
        record = plan.steps[position]
        record.state = state
        record.ended_ns = run.ended_ns
        plan.finished += state in STEPS_DONE
        refresh_step(plan, record, None if run.extra is None else run.extra.expected_children)
    plan.open.clear()


def _note(run: RunState, event: Event) -> int:
    extra = run.details()
    if event.level in {"warning", "error"}:
        extra.warnings += 1 + (event.folded or 0)
    if event.message is not None and event.time_unix_ns >= extra.message_ns:
        extra.message, extra.level, extra.message_ns = event.message, event.level, event.time_unix_ns
    return CHANGED


def _input(run: RunState, event: Event) -> int:
    extra = run.details()
    extra.input_id, extra.input_prompt = event.input_id, event.input_prompt
    extra.input_schema, extra.input_default = event.input_schema, event.input_default
    extra.input_deadline_ns = event.input_deadline_unix_ns
    return CHANGED


def _progress(run: RunState, event: Event, *, late: bool) -> int:
    """The step and the counts that an event carries."""
    if event.source is Source.FOREIGN:
        return 0
    kind = event.kind
    record = _record(run, event)
    if record is None:
        return 0
    flags = 0
    if record.index != NO_STEP_INDEX:
        flags = _step_state(run, record, event, late=late)
    elif record.started_ns is None:
        record.state, record.started_ns = StepState.RUNNING, run.started_ns
        flags = CHANGED
    flags |= _counts(record, event, late=late)
    if flags & MOVED or kind in STEP_EVENTS:
        plan = run.plan
        if plan is not None and record.index >= 0:
            refresh_step(plan, record, None if run.extra is None else run.extra.expected_children)
    return flags


def _record(run: RunState, event: Event) -> StepRecord | None:
    name, index, plan = event.step_name, event.step_index, run.plan
    if not name:
        if index is not None and index >= 0:
            if plan is not None and index < len(plan.steps):
                return plan.steps[index]
            return None
        if event.completed is None and event.total is None and not event.counters:
            return None
        if plan is not None and plan.current >= 0 and index is None:
            return plan.steps[plan.current]
        if run.counts is None:
            run.counts = StepRecord(name="", index=NO_STEP_INDEX)
        return run.counts
    if plan is None:
        plan = run.plan = Plan([])
    steps = plan.steps
    if index is not None and 0 <= index < len(steps) and steps[index].name == name:
        return steps[index]
    if plan.by_name is None:
        if len(steps) <= FEW_STEPS:
            for record in steps:
                if record.name == name:
                    return record
            return _append(plan, name)
        plan.by_name = {record.name: record.index for record in reversed(steps)}
    position = plan.by_name.get(name)
    return steps[position] if position is not None else _append(plan, name)


def _append(plan: Plan, name: str) -> StepRecord:
    """A step that nobody planned. Beyond the limit the last record stands for it too."""
    steps = plan.steps
    if len(steps) >= MAX_STEPS:
        record = steps[-1]
        plan.folded += 1
        if plan.by_name is not None:
            plan.by_name.pop(record.name, None)
            plan.by_name[name] = record.index
        record.name = name
        return record
    record = StepRecord(name=intern(name), index=len(steps))
    steps.append(record)
    plan.weight += record.weight
    if plan.by_name is not None:
        plan.by_name[record.name] = record.index
    return record


def _step_state(run: RunState, record: StepRecord, event: Event, *, late: bool) -> int:
    plan = run.plan
    assert plan is not None
    kind, time_ns = event.kind, event.time_unix_ns
    flags = 0
    if kind == semconv.STEP_ENDED:
        requested = event.step_state
        if requested is None or requested in {StepState.PENDING, StepState.RUNNING}:
            requested = StepState.SUCCEEDED
        if not late or record.state in {StepState.PENDING, StepState.RUNNING}:
            flags = _end_step(run, plan, record, requested, time_ns)
    elif kind == semconv.STEP_STARTED:
        if record.state is StepState.PENDING or (not late and record.state is not StepState.RUNNING):
            flags = _open_step(run, plan, record, time_ns)
        elif record.started_ns is None or time_ns < record.started_ns:
            record.started_ns = time_ns
            flags = CHANGED
    elif record.state is StepState.PENDING and run.state not in OUTCOMES and not late:
        flags = _open_step(run, plan, record, time_ns)  # its start is on the way, or lost
    if record.state is StepState.RUNNING and _make_current(plan, record, event, late=late):
        adopt_share(run, record)
        flags |= CHANGED
    record.moved_ns = max(record.moved_ns, time_ns)
    return flags


def _make_current(plan: Plan, record: StepRecord, event: Event, *, late: bool) -> bool:
    """Let the open step that moved last be the current one; whether that changed."""
    time_ns = event.time_unix_ns
    by_tick = event.kind == semconv.OPERATION_PROGRESSED
    if record.moved_ns > time_ns:
        # A later tick came before the event that opens the step.
        time_ns, by_tick = record.moved_ns, True
    current = plan.steps[plan.current] if plan.current >= 0 else None
    changed = record is not current and (
        current is None
        or current.state is not StepState.RUNNING
        or not (late or by_tick or plan.current_by_tick)
        or _follows(time_ns, current.moved_ns, late=late)
    )
    if changed:
        plan.current = record.index
    if changed or (record is current and time_ns >= record.moved_ns):
        plan.current_by_tick = by_tick
    return changed


def _open_step(run: RunState, plan: Plan, record: StepRecord, time_ns: int) -> int:
    check_step(record.state, StepState.RUNNING)
    if record.state in STEPS_DONE:
        plan.finished -= 1
    record.state, record.ended_ns = StepState.RUNNING, None
    if record.started_ns is None:
        record.started_ns = time_ns
    if record.estimator is not None:
        record.estimator.resume(time_ns)
    if record.index in plan.open:
        plan.open.remove(record.index)
    plan.open.append(record.index)
    return CHANGED | MOVED


def _end_step(run: RunState, plan: Plan, record: StepRecord, requested: StepState, time_ns: int) -> int:
    if record.state is requested:
        return 0
    if record.state is StepState.PENDING and requested is not StepState.SKIPPED:
        _open_step(run, plan, record, time_ns)  # its start was lost
    check_step(record.state, requested)
    record.state = requested
    record.ended_ns = max(time_ns, record.started_ns or time_ns)
    plan.finished += requested in STEPS_DONE
    if record.index in plan.open:
        plan.open.remove(record.index)
    if plan.open and plan.current == record.index:
        plan.current = max(plan.open, key=lambda position: plan.steps[position].moved_ns)
        plan.current_by_tick = True
    elif plan.current < 0:
        plan.current = record.index
    return CHANGED | MOVED


def _counts(record: StepRecord, event: Event, *, late: bool) -> int:
    completed, total = event.completed, event.total
    if completed is None and total is None and not event.counters and event.unit is None:
        return 0
    time_ns = event.time_unix_ns
    if not _follows(time_ns, record.counts_ns, late=late):
        return 0
    flags = 0
    if total is not None and total != record.total:
        record.total = total
        flags = CHANGED | MOVED
    if event.unit is not None and event.unit != record.unit:
        record.unit = intern(event.unit)
        flags |= CHANGED
    if event.initial is not None and record.initial is None:
        record.initial = event.initial
        flags |= CHANGED
    if completed is not None and completed != record.completed:
        estimator = record.estimator
        if estimator is None:
            estimator = record.estimator = _estimator(record, completed, time_ns)
        estimator.observe(completed, time_ns)
        record.completed = completed
        flags = CHANGED | MOVED
    if event.counters:
        flags |= _counters(record, event.counters)
    if flags or time_ns > record.counts_ns:
        record.counts_ns = time_ns
    return flags


def _estimator(record: StepRecord, completed: float, time_ns: int) -> Estimator:
    """Counting began with the step, at what was there before (`initial`), unless nobody saw that beginning."""
    start_ns = record.started_ns
    if start_ns is None or start_ns >= time_ns:
        return Estimator(completed if record.initial is None else record.initial, time_ns)
    return Estimator(record.initial or 0.0, start_ns)


def _counters(record: StepRecord, said: dict[str, float]) -> int:
    counters = record.counters
    if counters is None:
        counters = record.counters = {}
    flags = 0
    for name, value in said.items():
        if counters.get(name) != value and (name in counters or len(counters) < semconv.MAX_COUNTERS):
            counters[intern(name)] = value
            flags = CHANGED | MOVED
    return flags
