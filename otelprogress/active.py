"""What every instrumenting module shares: the live instrumentation, the context key, and counted misuse.

`current` is `None` until `otelprogress.runtime.configure()` sets it: instrumented libraries then cost a look at one
module attribute. An application that has a TracerProvider but never configured us gets `spans_only`: spans and step
events, no thread and no port. The heavy imports stand inside that function: `import otelprogress` loads no SDK.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace

from otelprogress.imports import late

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from otelprogress.exceptions import ProgressError
    from otelprogress.model.events import Event
    from otelprogress.operation import Operation
    from otelprogress.otel.emitter import ProgressEmitter
    from otelprogress.otel.provider import ProviderBinding
    from otelprogress.remote_gate import RemoteGate
    from otelprogress.sampler import Sampler
    from otelprogress.step import Step

KEY: Final = otel_context.create_key("otelprogress-step")
"""In an OpenTelemetry context: the `Step` that counts there. An operation without open steps is its own root step."""

CONTROLLED: Final = otel_context.create_key("otelprogress-controlled")
"""In an OpenTelemetry context: whether the operation around it, which lives in another process, can be commanded."""

WARN_EVERY_S: Final = 60.0
MAX_WARNING_CHARS: Final = 1024
P = ParamSpec("P")
_logger = logging.getLogger("otelprogress")


class Submit(Protocol):
    """Hands an event to a host; never blocks, never raises."""

    def __call__(self, event: Event, /) -> None:
        """Take one event."""


class Instrumentation:
    """What operations need of the runtime. Made by `runtime` (or by `spans_only`), read by every operation.

    Attributes:
        emitter: turns events into OpenTelemetry records and hands them to the host.
        binding: opens spans with the application's provider.
        submit: hands ticks to the host, past the emitter.
        sampler: reads moved counters; `None` where no thread may run (spans only, the pytest plugin).
        writer_id: one per process incarnation.
        lease_s: how often at least this writer promises to be heard, seconds.
        live: run id → operation that has not ended.
        remote_gates: run id → what operations here obey of one that lives in another process.
    """

    __slots__ = (
        "binding",
        "emitter",
        "lease_s",
        "live",
        "process_id",
        "remote_gates",
        "sampler",
        "service",
        "strict",
        "submit",
        "writer_id",
    )

    def __init__(
        self,
        *,
        emitter: ProgressEmitter,
        binding: ProviderBinding,
        submit: Submit,
        sampler: Sampler | None = None,
        service: str = "",
        lease_s: float | None = None,
        strict: bool = False,
        writer_id: str | None = None,
    ) -> None:
        self.emitter = emitter
        self.binding = binding
        self.submit = submit
        self.sampler = sampler
        self.service = service
        self.lease_s = lease_s
        self.strict = strict
        self.writer_id = new_writer_id() if writer_id is None else writer_id
        self.process_id = os.getpid()
        self.live: dict[str, Operation] = {}
        self.remote_gates: dict[str, RemoteGate] = {}


def new_writer_id() -> str:
    """A fresh id of one process incarnation: 16 hex digits."""
    return os.urandom(8).hex()


current: Instrumentation | None = None
"""Set by the runtime; `None`: nothing configured."""

on_first_use: Callable[[], object] | None = None
"""Called by the first uses after a fork until it set `current` and took itself away; several threads may call it at
once, and each finds `current` set when its call is over. `None`: nothing to do."""

started_in: Context | None = None
"""Where operations belong that nothing is around: what `TRACEPARENT` said when this process was configured."""

flush: Callable[[float], object] | None = None
"""Waits, at most so many seconds, until what was said has left this process; `None`: it stays in this process."""

captured = False
"""Whether a test captures what is reported: a `configure()` of the code under test must not take it away."""

draws_bars = False
"""Whether a view of ours draws bars on the standard error: bars that others would draw there are shown by it."""

_spans_only: Instrumentation | None = None
_spans_only_refused = False
_lock = threading.Lock()


def instrumentation() -> Instrumentation | None:
    """What is active now; `None`: nothing configured and no TracerProvider, so that instrumentation does nothing."""
    if current is not None:
        return current
    if on_first_use is not None and (used := _used_first()) is not None:
        return used
    if _spans_only is not None:
        return _spans_only
    # Private, because the public `get_tracer_provider()` costs 0.6 µs where no provider is set: it asks the
    # environment each time. Without the attribute nothing breaks but the spans-only mode.
    try:
        if trace._TRACER_PROVIDER is None or _spans_only_refused:
            return None
    except AttributeError:
        return None
    return spans_only()


def _used_first() -> Instrumentation | None:
    call = on_first_use
    if call is not None:
        call()
    return current


def spans_only() -> Instrumentation | None:
    """Instrumentation for an application that has a TracerProvider and never called `configure()`.

    Returns:
        `None` when `OTELPROGRESS_DISABLED` is on.
    """
    global _spans_only, _spans_only_refused
    with late, _lock:  # in this order: whoever configures is inside the first, and may come by here
        if _spans_only is None and not _spans_only_refused:
            from otelprogress.config import is_disabled, strict_from_environment

            if is_disabled():
                _spans_only_refused = True
                return None
            from otelprogress.otel.emitter import ProgressEmitter
            from otelprogress.otel.provider import ProviderBinding
            from otelprogress.otel.span_processor import ProgressSpanProcessor

            writer_id = new_writer_id()
            _spans_only = Instrumentation(
                emitter=ProgressEmitter(ignore),
                binding=ProviderBinding(span_processor=ProgressSpanProcessor()),
                submit=ignore,
                writer_id=writer_id,
                strict=strict_from_environment(),
            )
        return _spans_only


def forget_spans_only() -> None:
    """Start afresh: after fork in the child, after `shutdown()`, and between tests."""
    global _spans_only, _spans_only_refused, _lock
    _lock = threading.Lock()
    if _spans_only is not None:
        _spans_only.binding.shutdown(0)
    _spans_only = None
    _spans_only_refused = False


def ignore(event: Event, /) -> None:
    """The host of an application that has none."""


def step_of(context: Context | None = None) -> Step | None:
    """The step that counts in `context` (`None`: the current one); `None` outside any live operation."""
    step: Any = (otel_context.get_current() if context is None else context).get(KEY)
    # An operation that ended may still stand in a context that somebody copied.
    return None if step is None or step.operation.ended else step


def inherited_step_of(context: Context | None) -> Step | None:
    """The step in `context` whose operation lives in the process that this one was forked from, else `None`."""
    step: Any = (otel_context.get_current() if context is None else context).get(KEY)
    return step if step is not None and step.operation.inherited else None


def enclosing_span_id(context: Context | None) -> int | None:
    """The span id of the operation that a foreign span stands in, over any ordinary spans between; `None`: in none."""
    step = step_of(context)
    return int(step.operation.run_id[33:], 16) if step is not None and step.operation.run_id else None


# --- misuse --------------------------------------------------------------------------------------------------

misuses: dict[str, int] = {}
"""Call site (`file:line`) → how often something there was refused; at most 1,000 sites are kept apart."""
_MAX_SITES: Final = 1000
_warned_at: dict[str, float] = {}


def misuse(message: str, error: type[ProgressError] | None = None, *, where: str | None = None) -> None:
    """Count a mistake in instrumented code and log it, once per call site per minute; never raises outside strict mode.

    Args:
        message: what was wrong and what to do instead.
        error: what strict mode raises; `None`: `UsageError`.
        where: the call site; `None`: the nearest frame of this thread that is not ours.

    Raises:
        ProgressError: in strict mode only.
    """
    where = count_misuse(message, where=call_site() if where is None else where)
    ins = current if current is not None else _spans_only
    if ins is not None and ins.strict:
        from otelprogress.exceptions import UsageError

        raise (UsageError if error is None else error)(f"{message} (at {where})")


def count_misuse(message: str, *, where: str | None = None) -> str:
    """`misuse` that never raises; returns the call site."""
    from otelprogress.model.text import clean

    if where is None:
        where = call_site()
    if where not in misuses and len(misuses) >= _MAX_SITES:
        where = "elsewhere"
    misuses[where] = misuses.get(where, 0) + 1
    now = time.monotonic()
    if now - _warned_at.get(where, -WARN_EVERY_S) >= WARN_EVERY_S:
        _warned_at[where] = now
        _logger.warning("%s (at %s; seen %d times)", clean(message, MAX_WARNING_CHARS), where, misuses[where])
    return where


def quoted(value: object) -> str:
    """What was given, for a message about it: `repr()`, which may be the user's own and fail."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def contain(what: str, error: Exception) -> None:
    """Let an error inside our own parts end here: counted and logged like a mistake of the caller's.

    It may be one, that nobody thought of, or of ours: neither is the instrumented code's to handle.

    Raises:
        Exception: `error` itself, in strict mode only.
    """
    ins = current if current is not None else _spans_only
    if ins is not None and ins.strict:
        raise error
    try:
        text = str(error)
    except Exception:  # a __str__ of the user's
        text = ""
    count_misuse(f"{what} failed: {type(error).__name__}: {text}")


def contained(call: Callable[P, None]) -> Callable[P, None]:
    """A method of ours that raises nothing into the code that calls it; see `contain`."""

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception as error:
            contain(call.__qualname__, error)

    return guarded


def call_site() -> str:
    """`file:line` of the nearest frame of this thread that is not ours."""
    frame = sys._getframe(2)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("otelprogress."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
