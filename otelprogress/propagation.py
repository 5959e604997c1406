"""Carry the current operation into threads, pools and processes, so that what they do is its child.

Three ways: `propagate(fn)` for anything that runs a callable elsewhere, `environment()` for programs that are started,
and, with nothing to do, a plain `os.fork()`. In another process the callable's operations are reported over the
worker link to the process that the operation came from; that process opens no port and draws nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otelprogress import active
from otelprogress.exceptions import OperationCancelled, WorkerCancelled
from otelprogress.imports import first_use

if TYPE_CHECKING:
    from opentelemetry.context import Context

P = ParamSpec("P")
R = TypeVar("R")

TRACEPARENT: Final = "TRACEPARENT"
TRACESTATE: Final = "TRACESTATE"
LINK: Final = "OTELPROGRESS_LINK"
CONTROLLED: Final = "OTELPROGRESS_CONTROLLED"
"""`1`: the operation that a process is started for can be cancelled or paused, and means what is below it too."""
FLUSH_S: Final = 1.0
"""How long the end of a call in another process may wait until its events have left the process."""

_W3C: Final = TraceContextTextMapPropagator()


def propagate(fn: Callable[P, R]) -> Callable[P, R]:
    """Wrap `fn` so that, wherever it runs, its operations are children of the operation that is current *here*.

    For threads and executors of any kind: `ThreadPoolExecutor`, `ProcessPoolExecutor`, and the pools of
    `multiprocessing` with any start method. The result can be pickled where `fn` can. In another process it joins
    that process to this one's feed on the first call, and waits at the end of each call until its events have left
    that process: a pool may kill its workers right after their last result. That takes a second at most, and for an
    OTLP endpoint that is slow to answer a tenth of the time at most.

    Args:
        fn: a function or a coroutine function. Wrap results of a pool with `track()`, not its inputs.

    Returns:
        A callable of the same signature. It raises what `fn` raises, and nothing of its own.
    """
    wrapper = _PropagatedCoroutine if inspect.iscoroutinefunction(fn) else Propagated
    return cast("Callable[P, R]", wrapper(fn, _carrier(), otel_context.get_current()))


def environment() -> dict[str, str]:
    """Variables that make a program started with them report to the current operation, once it calls `configure()`.

    `subprocess.run(command, env={**os.environ, **propagation.environment()})`

    Returns:
        `TRACEPARENT` (and `TRACESTATE`) of the current operation, else of the current span; `OTELPROGRESS_LINK` when
        this process has a feed or reports to one; `OTELPROGRESS_CONTROLLED` when the operation can be commanded. Empty
        where there is neither.
    """
    names = {"traceparent": TRACEPARENT, "tracestate": TRACESTATE, LINK: LINK, CONTROLLED: CONTROLLED}
    return {names[key]: value for key, value in _carrier().items() if key in names}


def inherited_context(environ: Mapping[str, str] = os.environ) -> Context | None:
    """The context that this process was started in: what `TRACEPARENT` in its environment says.

    Returns:
        `None` where it says nothing, or nothing that can be read.
    """
    if not environ.get(TRACEPARENT):
        return None
    context = _W3C.extract(
        {"traceparent": environ[TRACEPARENT], "tracestate": environ.get(TRACESTATE, "")},
        otel_context.Context(),
    )
    if not trace.get_current_span(context).get_span_context().is_valid:
        return None
    return _told_of_controls(context, environ)


def _told_of_controls(context: Context, carrier: Mapping[str, str]) -> Context:
    return otel_context.set_value(active.CONTROLLED, True, context) if carrier.get(CONTROLLED) else context


def _carrier() -> dict[str, str]:
    """The current operation, else the current span, as W3C headers, and the way to this process's feed."""
    context = otel_context.get_current()
    step = active.step_of(context)
    if step is not None:
        context = trace.set_span_in_context(step.operation.span, context)
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    if step is not None and step.operation.gate is not None:
        carrier[CONTROLLED] = "1"
    link = os.environ.get(LINK)
    if link and active.current is not None:
        carrier[LINK] = link
    return carrier


class Propagated(Generic[P, R]):
    """What `propagate()` returns: a callable that remembers where it comes from."""

    def __init__(self, fn: Callable[P, R], carrier: Mapping[str, str], context: Context | None) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._carrier = dict(carrier)
        self._context = context
        self._pid = os.getpid()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it with the operation current that was current when it was wrapped.

        Raises:
            WorkerCancelled: in another process, where an operation in there was cancelled: pools let nothing else through.
        """
        with self._inside() as here:
            try:
                return self._fn(*args, **kwargs)
            except OperationCancelled as cancelled:
                if here:
                    raise
                raise WorkerCancelled(cancelled.reason) from None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle the function and the carrier; a context belongs to its process."""
        return _unpickled, (type(self), self._fn, self._carrier)

    @contextmanager
    def _inside(self) -> Iterator[bool]:
        """Be in the context that it belongs to; gives whether that is the one it was wrapped in."""
        here = self._context is not None and self._pid == os.getpid()
        context = self._context if here else self._arrive()
        token = None if context is None else otel_context.attach(context)
        try:
            yield here
        finally:
            if token is not None:
                otel_context.detach(token)
            if not here:
                _leave()

    def _arrive(self) -> Context | None:
        """In another process: join the feed of the process it came from; the context to run in."""
        try:
            link = self._carrier.get(LINK)
            if link and active.current is None:
                os.environ.setdefault(LINK, link)  # for the children of this process
                first_use("otelprogress.runtime")
                # Looked up by name: the composition root stands above this module.
                importlib.import_module("otelprogress.runtime").join_link(link)
            # On top of what is current here: baggage and the like of this process stay. A fork may have left an
            # operation of the parent's in it, which need not be the one that the call belongs to.
            arrived = _W3C.extract(self._carrier, otel_context.set_value(active.KEY, None))
            return _told_of_controls(arrived, self._carrier)
        except Exception as error:
            active.count_misuse(f"a call could not join its parent's feed: {type(error).__name__}: {error}")
            return None


class _PropagatedCoroutine(Propagated[P, R]):
    """The same around a coroutine function."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:  # type: ignore[override]  # a coroutine is R
        """Await it with the operation current that was current when it was wrapped."""
        with self._inside() as here:
            try:
                return await cast("Any", self._fn(*args, **kwargs))
            except OperationCancelled as cancelled:
                if here:
                    raise
                raise WorkerCancelled(cancelled.reason) from None


def _unpickled(
    kind: type[Propagated[..., Any]], fn: Callable[..., Any], carrier: Mapping[str, str]
) -> Propagated[..., Any]:
    wrapped = kind(fn, carrier, None)
    # Back in the process it came from (a pool of threads that pickles) the carrier does as well.
    wrapped._pid = -1
    return wrapped


def _leave() -> None:
    """The end of a call in another process: what it said has to be on its way before its result is."""
    flush = active.flush
    if flush is not None:
        flush(FLUSH_S)
