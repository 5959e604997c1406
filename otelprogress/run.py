"""One live operation: when it begins and ends, and its steps. `operation()` and `track()` make these.

What it says stands in `voice`, what it obeys in `commands`, what it asks in `asking`, its counts in `counting`.
It is long because a begin and an end have one owner, whichever of them comes by code, by a span or by a fork.
"""

# ruff: noqa: TC004 - `_load` fetches these names when the first operation begins

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace

from otelprogress import active, asking, commands, voice
from otelprogress.asking import Asking
from otelprogress.counting import Counting
from otelprogress.imports import fetch, first_use, late
from otelprogress.model import semconv
from otelprogress.plan import Plan
from otelprogress.step import ROOT_INDEX, Step, in_ucum

if TYPE_CHECKING:
    # At run time these come with the first operation (`_load`): whoever never begins one does not pay for them.
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from otelprogress.active import Instrumentation
    from otelprogress.gate import Gate
    from otelprogress.model.events import Event, State, StepState, run_id
    from otelprogress.otel.emitter import SpanLedger
    from otelprogress.otel.span_processor import Claim, claim_next_span
    from otelprogress.outcome import (
        as_result,
        clean_message,
        clean_plan,
        clean_step,
        clean_title,
        error_fields,
        outcome_of,
        parent_span_id,
        reason_of,
        shown,
        type_name,
    )
    from otelprogress.poller import Poll
    from otelprogress.remote_gate import RemoteGate

__all__ = ["MAX_STEPS", "Operation", "Plan", "begin", "context_of"]

MAX_STEPS: Final = 10_000
MAX_REMOTE_GATES: Final = 256
"""Operations of other processes that are remembered beyond the last one below them here."""
_FETCHED: Final = {
    "otelprogress.model.events": ("State", "StepState", "run_id"),
    "otelprogress.otel.emitter": ("SpanLedger",),
    "otelprogress.otel.span_processor": ("claim_next_span",),
    "otelprogress.remote_gate": ("RemoteGate",),
    "otelprogress.outcome": (
        "as_result",
        "clean_message",
        "clean_plan",
        "clean_step",
        "clean_title",
        "error_fields",
        "outcome_of",
        "parent_span_id",
        "reason_of",
        "shown",
        "type_name",
    ),
}
_loaded = False


def _load() -> None:
    """Import what only operations need, once."""
    global _loaded
    fetch(globals(), _FETCHED)
    voice.load()
    commands.load()
    asking.load()
    _loaded = True


class Operation(Asking, Counting):
    """One execution of an operation, from its begin to its end. Every method may be called from any thread.

    Attributes:
        name: of low cardinality.
        title: for people.
        label: the caller's own; `None`: none was given.
        run_id: `<trace id>-<span id>` in hex; empty while it waits for a span to adopt, and outside any operation.
        controls: what it accepts: `cancel`, `pause`, `input` or own signal names.
        ended: whether it has its outcome.
        inherited: whether it lives in the process that this one was forked from; here it has ended.
        root: the step that counts where no step is open.
    """

    __slots__ = (
        "_awaits_span",
        "_claim",
        "_ended_by_us",
        "_parent_context",
        "_parent_span_id",
        "_plan",
        "_polls",
        "_result",
        "_started_unix_ns",
        "inherited",
        "label",
        "title",
    )

    def __init__(
        self, ins: Instrumentation | None, plan: Plan, title: str, above: Gate | None = None
    ) -> None:
        root = Step(self, "", ROOT_INDEX)
        super().__init__(ins, plan.name, root, controls=plan.controls, above=above)
        self._plan = plan
        self.title = title
        self.label = plan.label
        self.inherited = False
        self._polls: list[Poll] = []
        self._ended_by_us = True
        self._awaits_span = False
        self._claim: Claim | None = None
        self._parent_context: Context | None = None
        self._parent_span_id = ""
        self._started_unix_ns = 0
        self._result: str | None = None
        for name, weight in zip(plan.steps, plan.weights, strict=True):
            self._steps[name] = Step(self, name, len(self._steps), weight)
        if plan.total is not None or plan.unit is not None:
            root._total, root._unit = plan.total, in_ucum(plan.unit)
        if plan.initial:
            root._completed = root._initial = plan.initial

    @property
    def span(self) -> Span:
        """Its span; an invalid one where it has none."""
        return trace.INVALID_SPAN if self._span is None else self._span

    # --- begin and end ---------------------------------------------------------------------------------------------

    def _begin(self, span: Span | None = None) -> None:
        """Open or adopt the span and say `operation.started`."""
        self._open_span(span)
        self._lives(self._started())

    def _open_span(self, span: Span | None) -> None:
        """Have a span, and with it a run id."""
        ins = self.instrumentation
        self._awaits_span = False
        parent = self._parent_context
        plan = self._plan
        opened = None
        if span is not None:
            opened = ins.binding.adopt(span, owner=self, before_end=self._span_ends)
            self._ended_by_us = opened is None
        if opened is None:
            opened = ins.binding.open_span(
                plan.name,
                parent=parent,
                kind=plan.kind,
                attributes=plan.attributes,
                links=plan.links,
                start_unix_ns=plan.start_unix_ns,
                given=plan.ids,
                owner=self,
            )
        self._span = opened.span
        self._ledger = SpanLedger(owned=self._ended_by_us)
        self.run_id = run_id(opened.trace_id, opened.span_id)
        self.sampled = opened.sampled
        self._started_unix_ns = (
            getattr(opened.span, "start_time", None) or plan.start_unix_ns or time.time_ns()
        )
        self._parent_span_id = parent_span_id(parent, opened.trace_id, opened.parent_span_id)

    def _started(self) -> Event | None:
        plan = self._plan
        return self._made(
            semconv.OPERATION_STARTED,
            time_unix_ns=self._started_unix_ns,
            name=plan.name,
            title=self.title,
            label=plan.label,
            parent_span_id=self._parent_span_id,
            start_unix_ns=self._started_unix_ns,
            span_kind=plan.kind.name.lower(),
            trace_state=self.span.get_span_context().trace_state.to_header() or None,
            steps=plan.steps or None,
            step_weights=plan.weights or None,
            expected_children=plan.expected_children,
            attempt=plan.attempt,
            weight=plan.weight,
            controls=plan.controls or None,
            stall_after_s=plan.stall_after_s,
            attributes=shown(plan.attributes),
            lease_s=self.instrumentation.lease_s,
        )

    def _lives(self, started: Event | None) -> None:
        """Say that it started, and let the sampler and commands find it."""
        ins = self.instrumentation
        with self._event_lock:
            if not self.ended:  # by another thread, meanwhile
                # Before anybody hears of it: who does may command it at once.
                ins.live[self.run_id] = self
        self._hand_over(started)
        self._announced = True
        if ins.sampler is not None:
            ins.sampler.operation_began()

    def _ensure_begun(self) -> None:
        """It says something before the span that it waits for was opened: it gets one of its own."""
        if self._awaits_span or not self.run_id:
            self._begin_with(None)

    def _begin_with(self, span: Span | None) -> None:
        """The span that it waited for was opened; `None`: it gets one of its own."""
        # Opening a span of its own runs samplers and processors of the user's with the lock held: whoever wants to
        # say something has to wait for its run id anyway. A span that is adopted was opened already.
        with self._event_lock:
            if not self._awaits_span or self.ended:
                return
            self._open_span(span)
            started = self._started()
        # Outside: what others say now has a higher number, and a host puts it in order.
        self._lives(started)

    def _span_ends(self) -> None:
        """Its adopted span is being ended by its opener."""
        status = getattr(self._span, "status", None)
        if status is not None and status.status_code is trace.StatusCode.ERROR:
            self._end(State.FAILED, error_message=clean_message(status.description or "") or None)
        else:
            self.end()

    @active.contained
    def end(self, error: BaseException | None = None, *, message: str | None = None) -> None:
        """End it, with the outcome that `error` means: `None` succeeded, a cancelling one cancelled, others failed.

        A second call does nothing.
        """
        outcome = outcome_of(error)
        if outcome is State.FAILED:
            assert error is not None
            self._end(outcome, message=message, **error_fields(error))
        elif outcome is State.CANCELLED:
            self._end(outcome, message=message or reason_of(error) or None)
        else:
            self._end(outcome, message=message, result=self._result)

    @active.contained
    def end_failed(self, error: BaseException, *, said: bool = False) -> None:
        """End it as failed, whatever kind of exception it was.

        Args:
            error: what went wrong.
            said: it was only said in words: `error.type` and a stack trace would say nothing.
        """
        fields = error_fields(error)
        if said:
            fields["error_type"] = "_OTHER"
            fields["error_stacktrace"] = None
        self._end(State.FAILED, **fields)

    def end_failed_as(self, error_type: str, message: str) -> None:
        """End it as failed where no exception says how: by a word of low cardinality, and a line for people."""
        self._end(State.FAILED, error_type=error_type, error_message=clean_message(message) or None)

    def end_cancelled(self, message: str) -> None:
        """End it as cancelled, saying why."""
        self._end(State.CANCELLED, message=message)

    def end_lost(self, detector: str, cause: str | None = None) -> None:
        """End it as lost: the interpreter leaves with it open."""
        self._end(State.LOST, lost_detector=detector, lost_evidence_unix_ns=time.time_ns(), lost_cause=cause)

    @active.contained
    def _end(self, state: State, *, message: str | None = None, **fields: Any) -> None:
        ins = self.instrumentation
        with self._event_lock:
            if self.ended or self._ends:
                return
            self._ends = True
        try:
            # Outside the lock: processors and polls of the user's run in there, and may wait for who wants to say
            # something. What is said meanwhile comes before the end.
            self._ensure_begun()
            if self._claim is not None:
                self._claim.release()
            for poll in list(self._polls):
                poll.finish(ask=ins.sampler is None)
            self._settle_orders(cancelled=state is State.CANCELLED)
        finally:
            with self._event_lock:
                self.ended = True
                self._state = state
                ins.live.pop(self.run_id, None)
            self._wake_questions()
        span, ledger = self._span, self._ledger
        now_unix_ns = time.time_ns()
        if message is not None:
            message = clean_message(message)
        elif state is not State.CANCELLED:  # whose message is the reason, and here is none
            message = self._message
        self._say(semconv.OPERATION_ENDED, time_unix_ns=now_unix_ns, message=message, **fields)
        ins.emitter.finish(span, ledger)
        if span is not None and self._ended_by_us:
            if getattr(span, "end_time", None) is None:
                _quietly(lambda: span.end(end_time=now_unix_ns))
            else:
                active.count_misuse(
                    f"the span of operation {self.name!r} was ended before it: leave its end to the operation"
                )

    def leave_to_parent(self) -> None:
        """In a forked child: the parent process goes on with it, here it says nothing more.

        No lock is taken: a thread that exists no more may hold it.
        """
        self._event_lock = threading.RLock()
        for step in (self.root, *self._steps.values()):
            step._lock = threading.RLock()
        if self.gate is not None:
            self.gate.reset_after_fork()
        self._questions.clear()
        self._polls.clear()
        self.ended = self.inherited = True

    @active.contained
    def set_result(self, value: object) -> None:
        """Keep what came out, as JSON of at most 4 KiB, redacted, for `operation.ended`. Longer ones are left out."""
        self._result = as_result(value)

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(
        self,
        name: str,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Step:
        """The step of that name, for `with`; entered again it continues. An unknown name is appended to the plan.

        Args:
            name: at most 256 characters.
            total: items in all; `None`: unknown, or what loops in it say.
            unit: `row` means `{row}`.
            initial: items done before this run.
        """
        try:
            return self._step_named(name, total, unit, initial)
        except Exception as error:
            active.contain("step()", error)
            first_use("otelprogress.no_operation")
            from otelprogress.no_operation import NO_OPERATION

            return NO_OPERATION.step(name)

    def _step_named(self, name: str, total: float | None, unit: str | None, initial: float) -> Step:
        name = clean_step(str(name))
        with self._event_lock:
            step = self._steps.get(name)
            if step is None:
                if len(self._steps) >= MAX_STEPS:
                    active.misuse(
                        f"more than {MAX_STEPS} steps: use operations inside a step for repeated work"
                    )
                    return next(reversed(self._steps.values()))
                step = self._steps[name] = Step(self, name, len(self._steps))
        if total is not None or unit is not None:
            step.set_total(step._total if total is None else total, unit=unit)
        if initial:
            step.set_initial(initial)
        return step

    @property
    def step_names(self) -> tuple[str, ...]:
        """The plan as it stands, appended steps included."""
        return tuple(self._steps)

    @active.contained
    def _step_entered(self, step: Step) -> None:
        self._ensure_begun()
        with self._event_lock:
            step._entered += 1
            if step._entered > 1:
                return
            self._open.append(step)
            self._step = self._moved = step
        self._say(semconv.STEP_STARTED, step=step, step_state=StepState.RUNNING)

    @active.contained
    def _step_left(self, step: Step, error: BaseException | None) -> None:
        ins = self.instrumentation
        with self._event_lock:
            step._entered -= 1
            if step._entered or self.ended:
                return
            over = [each for each in self._polls if each._step is step]
            for poll in over:
                self._polls.remove(poll)
            self._open.remove(step)
            self._moved = step
            self._step = self._open[-1] if self._open else self.root
        for poll in over:  # outside the lock: it is the user's function that is asked
            poll.finish(ask=ins.sampler is None)
        # A step that was cancelled half way was not done: "skipped" would count as done.
        failed = outcome_of(error) is not State.SUCCEEDED
        self._say(
            semconv.STEP_ENDED,
            step=step,
            step_state=StepState.FAILED if failed else StepState.SUCCEEDED,
            error_type=type_name(error) if failed and error is not None else None,
        )

    def __repr__(self) -> str:
        return f"<Operation {self.name!r} {self.run_id or 'without a run'}>"


def begin(
    ins: Instrumentation,
    plan: Plan,
    *,
    title: str | None = None,
    below: Step | None = None,
    span: Span | None = None,
    await_span: bool = False,
) -> Operation:
    """Begin an operation; the caller attaches its context, if at all, and ends it.

    Args:
        ins: what it reports through.
        plan: what is known.
        title: for people; `None`: the name.
        below: the step whose child it is; `None`: that of the current context.
        span: to adopt, which its opener ends; `None`: it gets one of its own.
        await_span: begin with the first span that is opened in its context, or with the first thing it says.

    Returns:
        One that does nothing where it could not begin, for whatever reason: outside strict mode nothing is raised.
    """
    try:
        return _begun(ins, plan, title, below, span, await_span=await_span)
    except Exception as error:
        active.contain(f"the begin of operation {plan.name!r}", error)
        first_use("otelprogress.no_operation")
        from otelprogress.no_operation import NO_OPERATION

        return NO_OPERATION


def _begun(
    ins: Instrumentation,
    plan: Plan,
    title: str | None,
    below: Step | None,
    span: Span | None,
    *,
    await_span: bool,
) -> Operation:
    if not _loaded:
        with late:
            _load()
    context = otel_context.get_current()
    current = active.step_of(context)
    if below is not None and below is not current:
        context = otel_context.set_value(
            active.KEY, below, trace.set_span_in_context(below.operation.span, context)
        )
        current = below
    elif current is None and active.started_in is not None:
        context = _or_started_in(context, active.started_in)
    parent = None if current is None else current.operation
    if parent is not None:
        parent._ensure_begun()
    plan = clean_plan(plan)
    above = _remote_gate(ins, context) if parent is None else parent.gate
    operation = Operation(ins, plan, clean_title(str(title)) if title else plan.name, above)
    if isinstance(above, RemoteGate):
        above.add(operation)
    operation.around = parent
    operation._parent_context = context
    if await_span:
        ins.binding.poll()
        operation._awaits_span = True
        operation._claim = claim_next_span(operation._begin_with)
    else:
        operation._begin(span)
    return operation


def _remote_gate(ins: Instrumentation, context: Context) -> RemoteGate | None:
    """What stands for the operation around `context` where that lives in another process and can be commanded."""
    inherited = active.inherited_step_of(context)
    if inherited is None:
        if not context.get(active.CONTROLLED):
            return None
        span = trace.get_current_span(context).get_span_context()
        parent_id = run_id(span.trace_id, span.span_id)
    elif inherited.operation.gate is None:
        return None
    else:
        parent_id = inherited.operation.run_id
    gates = ins.remote_gates
    if len(gates) >= MAX_REMOTE_GATES:
        unused = [
            (each, gate.cancelled or gate.paused) for each, gate in list(gates.items()) if not gate.in_use
        ]
        # One that is closed still means what begins here later, unless there are too many of them.
        full = all(closed for _, closed in unused)
        for known_id, closed in unused:
            if full or not closed:
                gates.pop(known_id, None)
    # One call: two threads that begin the first two operations below it at once share one.
    return gates.setdefault(parent_id, RemoteGate())


def _or_started_in(context: Context, started_in: Context) -> Context:
    if trace.get_current_span(context).get_span_context().is_valid:
        return context
    return trace.set_span_in_context(trace.get_current_span(started_in), context)


def context_of(operation: Operation, context: Context | None = None) -> Context:
    """`context` (`None`: the current one) with the operation and its span in it."""
    if operation._span is not None:
        context = trace.set_span_in_context(operation._span, context)
    return otel_context.set_value(active.KEY, operation.root, context)


def _quietly(call: Callable[[], object]) -> None:
    """End a span of the user's provider: its processors' errors are theirs, and go no further."""
    try:
        call()
    except Exception as error:
        active.count_misuse(f"ending a span raised {type(error).__name__}: {error}")
