"""`operation()` as a decorator and in `with`, and the functions that speak to whatever operation is current.

Longer than most modules: what it wraps comes in four kinds (functions, coroutines, generators, async generators),
each with the same few lines around it, and every public function carries its limits in its docstring.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, cast, overload

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from otelprogress import active
from otelprogress.exceptions import InvalidValue
from otelprogress.model import semconv
from otelprogress.no_operation import NO_OPERATION, NoOperation
from otelprogress.plan import AttributeScalar, Plan
from otelprogress.run import Operation, begin, context_of
from otelprogress.step import Step, as_count

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

    from otelprogress.active import Instrumentation

__all__ = [
    "NoOperation",
    "Operation",
    "acheckpoint",
    "adopt",
    "advance",
    "cancel_requested",
    "checkpoint",
    "count",
    "current_operation",
    "note",
    "operation",
    "poll",
    "set_total",
    "step",
]

P = ParamSpec("P")
R = TypeVar("R")
Steps = Sequence[str] | Mapping[str, float]
Adopt = Literal["inner", "current"]


def _context_reader() -> Callable[[], Context]:
    """`get_current`, read from the context variable itself: two calls less are half of what `advance()` costs."""
    variable = getattr(getattr(otel_context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    return variable.get if isinstance(variable, ContextVar) else otel_context.get_current


_get_current = _context_reader()
_KEY = active.KEY


class OperationPlan:
    """What `operation(...)` returns: a decorator, and a context manager, sync and async. Reusable and re-entrant."""

    __slots__ = ("_adopt", "_entered", "_plan", "_result", "_span", "_title")

    def __init__(
        self,
        plan: Plan,
        title: str | None,
        adopt: Adopt | None,
        result: bool | Callable[[Any], object],
        span: Span | None = None,
    ) -> None:
        self._plan = plan
        self._title = title
        self._adopt = adopt
        self._result = result
        self._span = span
        self._entered: dict[int, tuple[Operation, Context, Context]] = {}

    # --- with --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Operation:
        ins = active.instrumentation()
        if ins is None:
            return NO_OPERATION
        operation = self._begin(ins, self._title, "" if self._plan.name else "operation")
        before = otel_context.get_current()
        inside = context_of(operation, before)
        otel_context.attach(inside)
        self._entered[id(inside)] = (operation, before, inside)
        return operation

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Several threads and tasks may be inside: each finds its own operation, by the context that it is in. Taking
        # an entry out is one call that no other thread can come between.
        current = otel_context.get_current()
        found = self._entered.pop(id(current), None)
        if found is None:
            try:
                _, found = self._entered.popitem()
            except KeyError:
                return
        operation, before, inside = found
        # Put back, not reset by token: a generator may be resumed in another context than it was entered in.
        if current is inside:
            otel_context.attach(before)
        operation.end(error)

    async def __aenter__(self) -> Operation:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    # --- decorator ---------------------------------------------------------------------------------------------

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        """Make every call of `func` an operation; generators are current only while their own code runs."""
        named = self if self._plan.name else self._named(_name_of(func))
        kind: Any
        if inspect.isasyncgenfunction(func):
            kind = _async_generator
        elif inspect.isgeneratorfunction(func):
            kind = _generator
        elif inspect.iscoroutinefunction(func):
            kind = _coroutine
        else:
            kind = _function
        return cast("Callable[P, R]", functools.wraps(func)(kind(named, func)))

    def _named(self, name: str) -> Self:
        return type(self)(self._plan._replace(name=name), self._title, self._adopt, self._result, self._span)

    def _title_for(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str | None:
        title = self._title
        if not isinstance(title, str) or "{" not in title:
            return title
        try:
            bound = inspect.signature(func).bind(*args, **kwargs)
            bound.apply_defaults()
            return title.format_map(bound.arguments)
        except Exception as error:
            active.contain(f"filling in the title {title!r}", error)
            return None

    def _begin(self, ins: Instrumentation, title: str | None, default_name: str = "") -> Operation:
        plan = self._plan
        if default_name:
            plan = self._named(default_name)._plan
        span = self._span
        if self._adopt == "current":
            current = trace.get_current_span()
            span = current if current.get_span_context().is_valid else None
        return begin(ins, plan, title=title, span=span, await_span=self._adopt == "inner")

    def _keep_result(self, operation: Operation, value: object) -> None:
        chosen = self._result
        if chosen is False:
            return
        if chosen is not True:
            try:
                value = chosen(value)
            except Exception as error:
                active.contain("the function given as result=", error)
                return
        operation.set_result(value)


def _name_of(func: Callable[..., Any]) -> str:
    name = getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or type(func).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _function(plan: OperationPlan, func: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        ins = active.current
        if ins is None and (ins := active.instrumentation()) is None:
            return func(*args, **kwargs)
        operation = plan._begin(ins, plan._title_for(func, args, kwargs))
        before = otel_context.get_current()
        otel_context.attach(context_of(operation, before))
        try:
            value = func(*args, **kwargs)
            plan._keep_result(operation, value)
        except BaseException as error:
            otel_context.attach(before)
            operation.end(error)
            raise
        otel_context.attach(before)
        operation.end()
        return value

    return call


def _coroutine(plan: OperationPlan, func: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        ins = active.instrumentation()
        if ins is None:
            return await func(*args, **kwargs)
        operation = plan._begin(ins, plan._title_for(func, args, kwargs))
        before = otel_context.get_current()
        otel_context.attach(context_of(operation, before))
        try:
            value = await func(*args, **kwargs)
            plan._keep_result(operation, value)
        except BaseException as error:
            otel_context.attach(before)
            operation.end(error)
            raise
        otel_context.attach(before)
        operation.end()
        return value

    return call


def _generator(plan: OperationPlan, func: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        ins = active.instrumentation()
        if ins is None:
            return (yield from func(*args, **kwargs))
        operation = plan._begin(ins, plan._title_for(func, args, kwargs))
        body = func(*args, **kwargs)
        inside = context_of(operation)
        sent: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                outside = otel_context.get_current()
                otel_context.attach(inside)
                try:
                    item = body.send(sent) if thrown is None else body.throw(thrown)
                finally:
                    # Steps that are open across a `yield` stay in the context that the body gets back.
                    inside = otel_context.get_current()
                    otel_context.attach(outside)
                sent = thrown = None
                try:
                    sent = yield item
                except BaseException as error:
                    thrown = error
        except StopIteration as stop:
            plan._keep_result(operation, stop.value)
            operation.end()
            return stop.value
        except BaseException as error:
            operation.end(error)
            raise

    return call


def _async_generator(plan: OperationPlan, func: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        ins = active.instrumentation()
        body = func(*args, **kwargs)
        if ins is None:
            operation: Operation = NO_OPERATION
            inside = otel_context.get_current()
        else:
            operation = plan._begin(ins, plan._title_for(func, args, kwargs))
            inside = context_of(operation)
        sent: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                outside = otel_context.get_current()
                if ins is not None:
                    otel_context.attach(inside)
                try:
                    item = await (body.asend(sent) if thrown is None else body.athrow(thrown))
                finally:
                    if ins is not None:
                        inside = otel_context.get_current()
                        otel_context.attach(outside)
                sent = thrown = None
                try:
                    sent = yield item
                except BaseException as error:
                    thrown = error
        except StopAsyncIteration:
            operation.end()
        except BaseException as error:
            operation.end(error)
            raise

    return call


@overload
def operation(name: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def operation(
    name: str | None = None,
    *,
    title: str | None = None,
    steps: Steps = (),
    label: str | None = None,
    controls: Sequence[str] = (),
    adopt: Adopt | None = None,
    total: float | None = None,
    unit: str | None = None,
    initial: float = 0,
    attempt: int | None = None,
    weight: float | None = None,
    expected_children: int | None = None,
    stall_after_s: float | None = None,
    attributes: Mapping[str, AttributeScalar] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Link] = (),
    result: bool | Callable[[Any], object] = False,
) -> OperationPlan: ...
def operation(
    name: str | Callable[P, R] | None = None,
    *,
    title: str | None = None,
    steps: Steps = (),
    label: str | None = None,
    controls: Sequence[str] = (),
    adopt: Adopt | None = None,
    total: float | None = None,
    unit: str | None = None,
    initial: float = 0,
    attempt: int | None = None,
    weight: float | None = None,
    expected_children: int | None = None,
    stall_after_s: float | None = None,
    attributes: Mapping[str, AttributeScalar] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Link] = (),
    result: bool | Callable[[Any], object] = False,
) -> OperationPlan | Callable[P, R]:
    """Make a function, or the body of a `with` statement, an operation: a span whose progress is seen live.

    Returning means succeeded; an exception failed; `OperationCancelled`, `asyncio.CancelledError`,
    `KeyboardInterrupt` and `GeneratorExit` cancelled; `SystemExit` with 0 or nothing succeeded, with anything
    else failed. Nothing configured and no TracerProvider: the function is called, and that is all.

    Args:
        name: of low cardinality, at most 256 characters; `None`: the function's.
        title: for people, at most 120 characters; `{arg}` is replaced by the call's arguments. `None`: the name.
        steps: planned names in order: a list weighs them equally, a dict gives their positive weights.
        label: of your own, to find the operation by; stands as `otelprogress.operation.id`.
        controls: commands that it accepts: `cancel`, `pause`, `input` or own names. None by default.
        adopt: take a span that existing instrumentation opens instead of a new one: `inner`, the first one that
            the function opens; `current`, the one that is current when it is called. `None`: a span of its own.
        total: items in all, where there are no steps; `None`: unknown.
        unit: of those items; `row` means `{row}`.
        initial: items done before this run: counted as done, left out of the rate.
        attempt: 1 for the first try; `None`: not said.
        weight: share of its parent's progress, positive; `None`: 1.
        expected_children: how many child operations there will be; `None`: unknown.
        stall_after_s: without a move for longer, it counts as stalled; `None`: the host decides.
        attributes: of the span, and for filters and views; what looks secret is left out of the latter.
        kind: of the span.
        links: of the span.
        result: `True` keeps the returned value as JSON of at most 4 KiB, redacted; a function makes the value to keep.
    """
    if callable(name):
        return OperationPlan(plan_of(_name_of(name)), None, None, result=False)(name)
    plan = plan_of(
        "" if name is None else name,
        steps=steps,
        label=label,
        controls=controls,
        attempt=attempt,
        weight=weight,
        expected_children=expected_children,
        stall_after_s=stall_after_s,
        total=total,
        unit=unit,
        initial=initial,
        attributes=_attributes(attributes),
        kind=kind,
        links=links,
    )
    return OperationPlan(plan, title, adopt, result)


def plan_of(
    name: str,
    *,
    steps: Steps = (),
    controls: Sequence[str] = (),
    attempt: int | None = None,
    weight: float | None = None,
    expected_children: int | None = None,
    stall_after_s: float | None = None,
    total: float | None = None,
    initial: float = 0,
    **said: Any,
) -> Plan:
    """A plan of what can be meant; what cannot is misuse, and left out.

    A host refuses an event that breaks the conventions: one bad number must not cost the operation.
    """
    names, weights = _steps_and_weights(steps)
    return Plan(
        name="".join(_names("name", (name,)))[: semconv.MAX_NAME_CHARS],
        steps=names,
        weights=weights,
        controls=_names("controls", controls),
        attempt=_number("attempt", attempt, whole=True, least=1),
        weight=_number("weight", weight, above=0),
        expected_children=_number("expected_children", expected_children, whole=True),
        stall_after_s=_number("stall_after_s", stall_after_s, above=0),
        total=_number("total", total),
        initial=_number("initial", initial) or 0,
        **said,
    )


def _number(
    name: str, value: Any, *, whole: bool = False, least: float = 0, above: float | None = None
) -> Any:
    number = as_count(value)
    if value is None or (
        number is not None
        and number >= least
        and (above is None or number > above)
        and (not whole or number == int(number))
    ):
        return int(number) if whole and number is not None else number
    wanted = f"more than {above:g}" if above is not None else f"at least {least:g}"
    active.misuse(
        f"{name}={active.quoted(value)}: give a {'whole ' if whole else ''}number, {wanted}, or None",
        InvalidValue,
    )
    return None


def _names(word: str, names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    try:
        return (str(names),) if isinstance(names, (str, bytes)) else tuple(str(name) for name in names)
    except Exception as error:
        active.misuse(
            f"{word}={active.quoted(names)}: give text, or a list of it ({type(error).__name__})",
            InvalidValue,
        )
        return ()


def _attributes(attributes: Mapping[str, AttributeScalar] | None) -> dict[str, AttributeScalar]:
    try:
        return {} if attributes is None else dict(attributes)
    except Exception as error:
        active.misuse(
            f"attributes={active.quoted(attributes)}: give a dict ({type(error).__name__})", InvalidValue
        )
        return {}


def _steps_and_weights(steps: Steps) -> tuple[tuple[str, ...], tuple[float, ...]]:
    if isinstance(steps, Mapping):
        weights = {
            str(name): _number(f"the weight of step {name!r}", weight, above=0) or 1.0
            for name, weight in steps.items()
        }
    else:
        weights = dict.fromkeys(_names("steps", steps), 1.0)
    return tuple(weights), tuple(float(weight) for weight in weights.values())


def adopt(
    span: Span,
    name: str | None = None,
    *,
    title: str | None = None,
    steps: Steps = (),
    label: str | None = None,
    controls: Sequence[str] = (),
) -> OperationPlan:
    """Make a span that somebody else opened and will end an operation: `with progress.adopt(span) as op:`.

    Args:
        span: recording, and not ended before the `with` statement is left.
        name: `None`: the span's.
        title: for people; `None`: the name.
        steps: planned names, or names with weights; see `operation()`.
        label: of your own, to find the operation by.
        controls: commands that it accepts.
    """
    span_name = getattr(span, "name", None)
    name = name or (span_name if isinstance(span_name, str) else "") or "operation"
    plan = plan_of(name, steps=steps, label=label, controls=controls)
    return OperationPlan(plan, title, None, result=False, span=span)


# --- whatever is current ------------------------------------------------------------------------------------------


def current_operation() -> Operation:
    """The operation around this code; outside any, one that does nothing. Never `None`."""
    found = active.step_of()
    return NO_OPERATION if found is None else found.operation


def step(name: str, *, total: float | None = None, unit: str | None = None, initial: float = 0) -> Step:
    """The current operation's step of that name: `with progress.step("extract"):`; see `Operation.step`."""
    return current_operation().step(name, total=total, unit=unit, initial=initial)


def advance(n: float = 1) -> None:
    """Count `n` more items of the current step done; see `Step.advance`."""
    # As Step.advance does, in one frame: a call more would be a third of what this costs.
    try:
        if n >= 0:
            _get_current()[_KEY]._completed += n  # type: ignore[attr-defined]  # a Step: nothing else stands there
            return
    except KeyError:  # no operation is current
        return
    except Exception:  # noqa: S110 - whatever kind of object it is: the slow way says what is wrong
        pass
    found = active.step_of()
    if found is not None:
        found.advance(n)


def count(**counts: float) -> None:
    """Add to named counts of the current step: `progress.count(rejected=1)`; see `Step.count`."""
    found = active.step_of()
    if found is not None:
        found.count(**counts)


def set_total(total: float | None, *, unit: str | None = None) -> None:
    """Say how many items the current step has in all; see `Step.set_total`."""
    found = active.step_of()
    if found is not None:
        found.set_total(total, unit=unit)


def note(message: str, *, level: str = "info") -> None:
    """Say one line for people, now; see `Operation.note`."""
    found = active.step_of()
    if found is not None:
        found.note(message, level=level)


def poll(
    fn: Callable[[], float],
    *,
    total: float | None = None,
    unit: str | None = None,
    every_s: float = 1.0,
) -> None:
    """Ask `fn` how many items are done, until the current step ends; see `Step.poll`."""
    found = active.step_of()
    if found is not None:
        found.poll(fn, total=total, unit=unit, every_s=every_s)


def checkpoint() -> None:
    """Honour what was commanded to the current operation; see `Operation.checkpoint`.

    Raises:
        OperationCancelled: it was cancelled.
    """
    current_operation().checkpoint()


async def acheckpoint() -> None:
    """Honour what was commanded to the current operation; see `Operation.acheckpoint`.

    Raises:
        OperationCancelled: it was cancelled.
    """
    await current_operation().acheckpoint()


def cancel_requested() -> bool:
    """Whether the current operation was cancelled. Asking raises nothing."""
    return current_operation().cancel_requested
