"""One live operation: what it says, when it begins and ends. `operation()` and `track()` make these.

Longer than most modules here because `Operation` is one class, most of it docstrings of its public methods.
"""

# ruff: noqa: TC004 - `_load` fetches these names when the first operation begins

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, overload

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from otelprogress import active
from otelprogress.exceptions import InvalidValue, OperationCancelled, UsageError
from otelprogress.gate import Gate
from otelprogress.imports import late
from otelprogress.model import semconv
from otelprogress.step import ROOT_INDEX, Counts, Step, in_ucum

if TYPE_CHECKING:
    # At run time these come with the first operation (`_load`): whoever never begins one does not pay for them.
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

    from otelprogress.active import Instrumentation
    from otelprogress.model.events import Event, Source, State, StepState, run_id
    from otelprogress.otel.emitter import SpanLedger
    from otelprogress.otel.span_processor import Claim, claim_next_span
    from otelprogress.outcome import (
        as_result,
        clean,
        clean_message,
        clean_title,
        error_fields,
        outcome_of,
        parent_span_id,
        shown,
        type_name,
    )
    from otelprogress.poller import Poll

T = TypeVar("T")
AttributeScalar = str | bool | int | float

_loaded = False
_MAX_UNIT_CHARS: Final = 63
_OF_OUTCOME: Final = (
    "as_result",
    "clean",
    "clean_message",
    "clean_title",
    "error_fields",
    "outcome_of",
    "parent_span_id",
    "shown",
    "type_name",
)


def _load() -> None:
    """Import what only operations need, once."""
    global _loaded
    from otelprogress import outcome
    from otelprogress.model import events
    from otelprogress.otel import emitter, span_processor

    names: dict[str, Any] = globals()
    for module, wanted in (
        (events, ("Event", "Source", "State", "StepState", "run_id")),
        (outcome, _OF_OUTCOME),
        (emitter, ("SpanLedger",)),
        (span_processor, ("claim_next_span",)),
    ):
        for name in wanted:
            names[name] = getattr(module, name)
    _loaded = True


LEVELS: Final = frozenset({"info", "warning", "error"})
MAX_STEPS: Final = 10_000


class Plan(NamedTuple):
    """What is said about an operation when it begins; see `operation()` for the meaning of each."""

    name: str
    label: str | None = None
    steps: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    controls: tuple[str, ...] = ()
    attempt: int | None = None
    weight: float | None = None
    expected_children: int | None = None
    stall_after_s: float | None = None
    total: float | None = None
    unit: str | None = None
    initial: float = 0
    attributes: Mapping[str, AttributeScalar] = MappingProxyType({})
    kind: SpanKind = SpanKind.INTERNAL
    links: Sequence[Link] = ()


class Operation:
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
        "_cancel_said",
        "_claim",
        "_ended_by_us",
        "_event_lock",
        "_gate",
        "_ins",
        "_ledger",
        "_message",
        "_message_said",
        "_moved",
        "_open",
        "_parent_context",
        "_parent_span_id",
        "_plan",
        "_polls",
        "_result",
        "_saying",
        "_sequence",
        "_span",
        "_started_unix_ns",
        "_state",
        "_step",
        "_steps",
        "ended",
        "gate",
        "inherited",
        "label",
        "name",
        "root",
        "run_id",
        "sampled",
        "title",
    )

    def __init__(self, ins: Instrumentation | None, plan: Plan, title: str, parent: Operation | None) -> None:
        self._ins = ins
        self._plan = plan
        self.name = plan.name
        self.title = title
        self.label = plan.label
        self.run_id = ""
        self.sampled = True
        self.ended = False
        self.inherited = False
        self.root = Step(self, "", ROOT_INDEX)
        self._step = self.root
        self._moved = self.root
        self._steps: dict[str, Step] = {}
        self._open: list[Step] = []
        self._polls: list[Poll] = []
        self._sequence = itertools.count(1)
        self._event_lock = threading.RLock()
        self._saying: list[int] = []
        """Threads that are just handing over an event of it."""
        self._span: Span | None = None
        self._ledger: SpanLedger | None = None
        self._ended_by_us = True
        self._awaits_span = False
        self._cancel_said = False
        self._claim: Claim | None = None
        self._parent_context: Context | None = None
        self._parent_span_id = ""
        self._started_unix_ns = 0
        self._state: State | None = None
        self._message: str | None = None
        self._message_said: str | None = None
        self._result: str | None = None
        inherited = None if parent is None else parent.gate
        declared = "cancel" in plan.controls or "pause" in plan.controls
        self._gate = Gate(self._command_applied, inherited) if declared else None
        self.gate: Gate | None = self._gate or inherited
        """What loops and checkpoints obey: its own, else the nearest ancestor's; `None`: nobody can command it."""
        for name, weight in zip(plan.steps, plan.weights, strict=True):
            self._steps[name] = Step(self, name, len(self._steps), weight)
        if plan.total is not None or plan.unit is not None:
            self.root._total, self.root._unit = plan.total, in_ucum(plan.unit)
        if plan.initial:
            self.root._completed = self.root._initial = plan.initial

    @property
    def instrumentation(self) -> Instrumentation:
        """What it reports through."""
        assert self._ins is not None
        return self._ins

    @property
    def controls(self) -> tuple[str, ...]:
        """What it accepts: `cancel`, `pause`, `input` or own signal names; nothing by default."""
        return self._plan.controls

    @property
    def span(self) -> Span:
        """Its span; an invalid one where it has none."""
        return trace.INVALID_SPAN if self._span is None else self._span

    # --- begin and end ---------------------------------------------------------------------------------------------

    def _begin(self, span: Span | None = None) -> None:
        """Open or adopt the span and say `operation.started`."""
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
                owner=self,
            )
        self._span = opened.span
        self._ledger = SpanLedger(owned=self._ended_by_us)
        self.run_id = run_id(opened.trace_id, opened.span_id)
        self.sampled = opened.sampled
        self._started_unix_ns = getattr(opened.span, "start_time", None) or time.time_ns()
        self._parent_span_id = parent_span_id(parent, opened.trace_id, opened.parent_span_id)
        self._say(
            semconv.OPERATION_STARTED,
            time_unix_ns=self._started_unix_ns,
            name=plan.name,
            title=self.title,
            label=plan.label,
            parent_span_id=self._parent_span_id,
            start_unix_ns=self._started_unix_ns,
            span_kind=plan.kind.name.lower(),
            trace_state=opened.span.get_span_context().trace_state.to_header() or None,
            steps=plan.steps or None,
            step_weights=plan.weights or None,
            expected_children=plan.expected_children,
            attempt=plan.attempt,
            weight=plan.weight,
            controls=plan.controls or None,
            stall_after_s=plan.stall_after_s,
            attributes=shown(plan.attributes),
            lease_s=ins.lease_s,
        )
        ins.live[self.run_id] = self
        if ins.sampler is not None:
            ins.sampler.operation_began()

    def _begin_with(self, span: Span) -> None:
        """The span that it waited for was opened."""
        with self._event_lock:
            if self._awaits_span and not self.ended:
                self._begin(span)

    def _ensure_begun(self) -> None:
        """It says something before the span that it waits for was opened: it gets one of its own."""
        with self._event_lock:
            if self._awaits_span:
                self._begin()

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
            reason = error.reason if isinstance(error, OperationCancelled) else ""
            self._end(outcome, message=message or reason or None)
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
            if self.ended:
                return
            try:
                self._ensure_begun()
                if self._claim is not None:
                    self._claim.release()
                for poll in self._polls:
                    poll.finish(ask=ins.sampler is None)
            finally:
                self.ended = True
                self._state = state
                ins.live.pop(self.run_id, None)
        span, ledger = self._span, self._ledger
        now_unix_ns = time.time_ns()
        message = self._message if message is None else clean_message(message)
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
        if self._gate is not None:
            self._gate.reset_after_fork()
        self._polls.clear()
        self.ended = self.inherited = True

    # --- saying ----------------------------------------------------------------------------------------------------

    def _say(
        self, kind: str, *, time_unix_ns: int | None = None, step: Step | None = None, **fields: Any
    ) -> None:
        """One durable event, with the current step and its counts."""
        ins = self.instrumentation
        try:
            with self._event_lock:
                event = self._event(
                    kind, time_unix_ns or time.time_ns(), step or self._moved, next(self._sequence), fields
                )
            # A signal handler may have interrupted this very thread in here, with the span's lock held: what it says
            # goes past the span. (A list: taking an entry out is one call, whatever other threads do.)
            me = threading.get_ident()
            span = None if me in self._saying else self._span
            self._saying.append(me)
            try:
                # Outside the lock: processors of the user's run in there. A host puts two that cross back in order.
                ins.emitter.emit(event, span, self._ledger)
            finally:
                self._saying.remove(me)
        except Exception as problem:
            active.count_misuse(f"an event could not be made: {type(problem).__name__}: {problem}")

    def _event(
        self, kind: str, time_unix_ns: int, step: Step, sequence: int | None, said: dict[str, Any]
    ) -> Event:

        ins = self.instrumentation
        completed, total, unit, initial, counters = step.snapshot()
        rooted = step.index == ROOT_INDEX
        # Without an index counts are those of the current step: beside steps, the root's own have to say so.
        counts = completed is not None or total is not None or counters is not None
        unnamed_index = ROOT_INDEX if counts and self._steps else None
        said.setdefault("state", self._state)
        return Event(
            kind=kind,
            run_id=self.run_id,
            time_unix_ns=time_unix_ns,
            writer_id=ins.writer_id,
            sequence=sequence,
            service=ins.service or None,
            process_id=ins.process_id,
            sampled=self.sampled,
            step_name=None if rooted else step.name,
            step_index=unnamed_index if rooted else step.index,
            completed=completed,
            total=total,
            unit=unit,
            initial=initial,
            counters=counters,
            **said,
        )

    def tick(self, now_unix_ns: int) -> Event | None:
        """What moved since the last tick, as one event; `None`: nothing did. Called by the sampler only."""
        if self.ended:
            return None
        moved: Step | None = None
        for step in (self.root, *self._open):
            seen = step.snapshot()
            if step._seen is None:
                step._seen = (None, None, None, None, None)
            if seen != step._seen:
                step._seen = seen
                moved = step
        if moved is None and self._message == self._message_said:
            return None
        if moved is not None:
            self._moved = moved
        self._message_said = self._message
        fields: dict[str, Any] = {} if self._message is None else {"message": self._message}
        return self._event(semconv.OPERATION_PROGRESSED, now_unix_ns, self._moved, None, fields)

    def note(self, message: str, *, level: str = "info") -> None:
        """Say one line for people, now. At most 1,024 characters, control characters are stripped.

        Args:
            message: what to say.
            level: `info`, `warning` or `error`.
        """
        self._note(self._step, message, level)

    @active.contained
    def _note(self, step: Step, message: str, level: str) -> None:
        if self.ended:
            active.misuse(f"note() after operation {self.name!r} ended")
            return
        if str(level) not in LEVELS:
            active.misuse(f"note(level={level!r}): one of {', '.join(sorted(LEVELS))}", InvalidValue)
            level = "info"
        self._ensure_begun()
        self._say(
            semconv.OPERATION_NOTED,
            step=step,
            message=clean_message(message),
            level=None if level == "info" else level,
        )

    @active.contained
    def note_from_elsewhere(self, message: str, *, level: str, time_unix_ns: int) -> None:
        """Tell the host of a line that existing code wrote elsewhere too: a host folds floods of these."""
        if self.ended or not self.run_id:
            return
        ins = self.instrumentation
        ins.submit(
            Event(
                kind=semconv.OPERATION_NOTED,
                run_id=self.run_id,
                time_unix_ns=time_unix_ns,
                source=Source.FOREIGN,
                writer_id=ins.writer_id,
                sampled=self.sampled,
                message=clean_message(message),
                level=None if level == "info" else level,
            )
        )

    @active.contained
    def show(self, message: str | None) -> None:
        """Say with the next tick what is being done: the latest wins, unlike `note()`, which is kept."""
        self._message = None if message is None else clean_message(message)

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
            from otelprogress.no_operation import NO_OPERATION

            return NO_OPERATION.step(name)

    def _step_named(self, name: str, total: float | None, unit: str | None, initial: float) -> Step:
        name = _clean_step(str(name))
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
            for poll in [each for each in self._polls if each._step is step]:
                poll.finish(ask=ins.sampler is None)
                self._polls.remove(poll)
            self._open.remove(step)
            self._moved = step
            self._step = self._open[-1] if self._open else self.root
        # A step that was cancelled half way was not done: "skipped" would count as done.
        failed = outcome_of(error) is not State.SUCCEEDED
        self._say(
            semconv.STEP_ENDED,
            step=step,
            step_state=StepState.FAILED if failed else StepState.SUCCEEDED,
            error_type=type_name(error) if failed and error is not None else None,
        )

    # --- counting on the current step ------------------------------------------------------------------------------

    def advance(self, n: float = 1) -> None:
        """`Step.advance` of the step entered last."""
        try:
            if n >= 0:
                self._step._completed += n
                return
        except Exception:  # noqa: S110 - whatever kind of object it is: the slow way says what is wrong
            pass
        self._step.advance(n)

    def count(self, /, **counts: float) -> None:
        """`Step.count` of the step entered last."""
        self._step.count(**counts)

    def set_total(self, total: float | None, *, unit: str | None = None) -> None:
        """`Step.set_total` of the step entered last."""
        self._step.set_total(total, unit=unit)

    @property
    def counts(self) -> Counts:
        """`Step.counts` of the step entered last."""
        return self._step.counts

    @overload
    def track(
        self,
        iterable: Iterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Iterator[T]: ...
    @overload
    def track(
        self,
        iterable: AsyncIterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> AsyncIterator[T]: ...
    def track(
        self,
        iterable: Iterable[T] | AsyncIterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Iterator[T] | AsyncIterator[T]:
        """Iterate, counting for the step entered last; see `otelprogress.track`. A `name` makes a child operation."""
        from otelprogress.track import track_under

        return track_under(self._step, iterable, name, total=total, unit=unit, initial=initial)

    def poll(
        self,
        fn: Callable[[], float],
        *,
        total: float | None = None,
        unit: str | None = None,
        every_s: float = 1.0,
    ) -> None:
        """`Step.poll` of the step entered last."""
        self._step.poll(fn, total=total, unit=unit, every_s=every_s)

    # --- control ---------------------------------------------------------------------------------------------------

    @property
    def cancel_requested(self) -> bool:
        """Whether it, or an operation around it whose cancel it obeys, was cancelled. Asking raises nothing."""
        gate = self.gate
        while gate is not None:
            if gate.cancelled:
                return True
            gate = gate.parent
        return False

    def checkpoint(self) -> None:
        """Stand still while paused; on a running event loop's thread a pause is not honoured, a cancel is.

        Raises:
            OperationCancelled: it was cancelled.
        """
        if self.gate is not None:
            self.gate.check()

    async def acheckpoint(self) -> None:
        """Stand still while paused, letting the event loop go on.

        Raises:
            OperationCancelled: it was cancelled.
        """
        if self.gate is not None:
            await self.gate.acheck()

    def cancel(self, reason: str = "") -> bool:
        """Let its next item or checkpoint raise `OperationCancelled`. Any thread.

        Returns:
            Whether it will be obeyed: it declared `cancel` and has not ended.
        """
        gate = self._commanded("cancel")
        if gate is not None:
            gate.cancel(reason)
        return gate is not None

    def pause(self) -> bool:
        """Let its next item or checkpoint stand still until `resume()`. Returns whether it declared `pause` and lives."""
        gate = self._commanded("pause")
        if gate is not None:
            gate.pause()
        return gate is not None

    def resume(self) -> bool:
        """Let it go on. Returns whether it declared `pause` and lives."""
        gate = self._commanded("pause")
        if gate is not None:
            gate.resume()
        return gate is not None

    def _commanded(self, action: str) -> Gate | None:
        if self.ended:
            return None
        if self._gate is None or action not in self.controls:
            active.misuse(
                f"operation {self.name!r} does not accept {action!r}: add controls=[{action!r}]", UsageError
            )
            return None
        return self._gate

    @active.contained
    def _command_applied(self, action: str) -> None:
        """A command took effect in the instrumented code; called by the gate there."""
        if self.ended:
            return
        with self._event_lock:
            if action == "cancel":
                if self._cancel_said:
                    return
                self._cancel_said = True
            else:
                state = State.PAUSED if action == "pause" else None
                if state is self._state:
                    return
                self._state = state
        self._ensure_begun()
        gate = self._gate
        reason = gate.reason if gate is not None and action == "cancel" else ""
        self._say(semconv.CONTROL_APPLIED, control_action=action, control_reason=reason or None)
        if action != "cancel":
            self._say(
                semconv.OPERATION_STATE_CHANGED, state=State.PAUSED if action == "pause" else State.RUNNING
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
    plan = _clean_plan(plan)
    operation = Operation(ins, plan, clean_title(str(title)) if title else plan.name, parent)
    operation._parent_context = context
    if await_span:
        ins.binding.poll()
        operation._awaits_span = True
        operation._claim = claim_next_span(operation._begin_with)
    else:
        operation._begin(span)
    return operation


def _clean_plan(plan: Plan) -> Plan:
    """Names come from anywhere: none may carry control characters into a terminal or a log.

    Steps whose names are the same once they are clean are one step.
    """
    longest = semconv.MAX_NAME_CHARS
    steps: dict[str, float] = {}
    for step, weight in zip(plan.steps, plan.weights, strict=True):
        steps.setdefault(_clean_step(step), weight)
    return plan._replace(
        name=clean(plan.name, longest) or "operation",
        label=None if plan.label is None else clean(str(plan.label), longest) or None,
        steps=tuple(steps),
        weights=tuple(steps.values()),
        unit=None if plan.unit is None else clean(str(plan.unit), _MAX_UNIT_CHARS),
    )


def _clean_step(name: str) -> str:
    return clean(name, semconv.MAX_NAME_CHARS) or "step"


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
