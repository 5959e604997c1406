"""The one place where progress becomes OpenTelemetry: a span event, the user's own log record, an `Event`.

`emit()` is called on the application's thread by `operation` and `step`. It never raises and never waits: what
fails inside is counted in `stats`. Ticks never come here: they go straight to the host.

How an operation ends::

    emitter.emit(ended, span, ledger)      # writes summary attributes, the status, held-back step events
    emitter.finish(span, ledger)           # idempotent; also forgets the span
    span.end()

`emit()` takes the span's lock for the length of one append. So do not call it with a span from a finalizer or
a signal handler, which may have interrupted just that append on the same thread: hand over to another thread
there, or pass `span=None`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.otel import span_tap
from otelprogress.otel.notes import flush_notes
from otelprogress.otel.records import (
    SEVERITY_TEXT,
    body_of,
    severity_of,
    span_event_attributes,
    start_attributes,
    summary_attributes,
)
from otelprogress.otel.registry import REGISTRY

if TYPE_CHECKING:
    from opentelemetry._logs import Logger

    from otelprogress.otel.metrics import ProgressMetrics

_TAIL_RESERVE: Final = 3
"""Span events kept free for the end: `steps.folded`, `exception`, `operation.ended`."""


class EmitterStats:
    """Counters of one emitter, for `doctor`; they only rise."""

    __slots__ = ("emitted", "folded", "span_errors", "submit_errors", "user_log_errors")

    def __init__(self) -> None:
        self.emitted = 0
        self.span_errors = 0
        self.user_log_errors = 0
        self.submit_errors = 0
        self.folded = 0
        """Span events that no span carries, because a span had its budget full."""


class SpanLedger:
    """What progress has put on one span: the first events directly, the last ones held back until its end.

    Args:
        owned: whether the span is ours to give a status and an exception event. `False` for adopted spans,
            whose opener does that.
    """

    __slots__ = ("finished", "folded", "folded_from_unix_ns", "head_left", "held", "owned")

    def __init__(self, *, owned: bool = True) -> None:
        self.owned = owned
        self.head_left = -1  # -1: the span's limit was not looked at yet
        self.held: deque[Event] | None = None
        self.folded = 0
        self.folded_from_unix_ns = 0
        self.finished = False


class ProgressEmitter:
    """Emits the durable events of this process's operations.

    Args:
        submit: takes each event on, never blocks: `Host.submit`.
        user_logs: the logger of the application's own LoggerProvider, where records would reach somewhere
            that our sender does not; `None`: there is none. Asked at every event, so it has to be cheap:
            `ProviderBinding.user_logger`.
        metrics: recorded here, on the application's thread, only when given. Leave it out where the
            metrics listen to the host, which costs the application nothing.
        span_event_budget: how many events progress may put on one span; less where the span's own limit
            is lower.
    """

    def __init__(
        self,
        submit: Callable[[Event], object],
        *,
        user_logs: Callable[[], Logger | None] | None = None,
        metrics: ProgressMetrics | None = None,
        span_event_budget: int = semconv.SPAN_EVENT_BUDGET,
    ) -> None:
        self._submit = submit
        self._user_logs = user_logs
        self._metrics = metrics
        self._budget = span_event_budget
        self.stats = EmitterStats()

    def emit(self, event: Event, span: Span | None, ledger: SpanLedger | None) -> None:
        """Say one durable event everywhere it belongs. Never raises.

        Args:
            event: `kind` one of `semconv.DURABLE_EVENTS`.
            span: the operation's span; `None`: it has none any more, or must not be touched.
            ledger: the span's, made once per operation; `None`: nothing is put on the span.
        """
        if event.kind == semconv.OPERATION_ENDED and span is not None:
            self._flush_notes(span)
        if span is not None and ledger is not None and not ledger.finished:
            try:
                self._put_on_span(event, span, ledger)
            except Exception:
                self.stats.span_errors += 1
        if self._user_logs is not None:
            try:
                if (logger := self._user_logs()) is not None:
                    emit_log_record(logger, event, span)
            except Exception:
                self.stats.user_log_errors += 1
        try:
            self._submit(event)
            if self._metrics is not None:
                self._metrics.record(event)
        except Exception:
            self.stats.submit_errors += 1
        self.stats.emitted += 1

    def finish(self, span: Span | None, ledger: SpanLedger | None) -> None:
        """Write what was held back, and forget the span. Call before `span.end()`; a second call does nothing."""
        if span is None:
            return
        try:
            if ledger is not None and not ledger.finished:
                if span.is_recording():  # an ended span answers every event with a warning
                    self._flush(span, ledger)
                ledger.finished = True
            span_tap.untap(span)
            REGISTRY.discard(span.get_span_context().span_id)
        except Exception:
            self.stats.span_errors += 1

    def _flush_notes(self, span: Span) -> None:
        try:
            tracked = REGISTRY.find(span.get_span_context())
            if tracked is not None and tracked.notes is not None:
                flush_notes(tracked)
        except Exception:
            self.stats.submit_errors += 1

    def _put_on_span(self, event: Event, span: Span, ledger: SpanLedger) -> None:
        if not span.is_recording():
            return
        kind = event.kind
        if kind == semconv.OPERATION_STARTED:
            if attributes := start_attributes(event):
                span.set_attributes(attributes)
            return
        if kind == semconv.OPERATION_ENDED:
            self._end_on_span(event, span, ledger)
            return
        if ledger.head_left < 0:
            self._open_budget(span, ledger)
        if ledger.head_left > 0:
            ledger.head_left -= 1
            span_tap.add_own_event(span, kind, span_event_attributes(event), event.time_unix_ns)
            return
        held = ledger.held
        if held is None:
            return
        if len(held) == held.maxlen:
            if not ledger.folded:
                ledger.folded_from_unix_ns = held[0].time_unix_ns if held else event.time_unix_ns
            ledger.folded += 1
            self.stats.folded += 1
        held.append(event)

    def _open_budget(self, span: Span, ledger: SpanLedger) -> None:
        budget = self._budget
        limit = span_tap.event_limit(span)
        if limit is not None:
            # A quarter of a tight limit is left to the application's own events: the SDK drops the oldest
            # of too many without a word.
            budget = min(budget, max(limit * 3 // 4, _TAIL_RESERVE))
        spendable = max(budget - _TAIL_RESERVE, 0)
        ledger.head_left = (spendable + 1) // 2
        ledger.held = deque(maxlen=spendable // 2)

    def _flush(self, span: Span, ledger: SpanLedger) -> None:
        if ledger.folded:
            span_tap.add_own_event(
                span,
                semconv.STEPS_FOLDED,
                {semconv.STEP_FOLDED: ledger.folded},
                ledger.folded_from_unix_ns,
            )
        held, ledger.held = ledger.held, None
        # A copy, made in one C call: another thread may be holding back one more at this moment.
        for event in list(held or ()):
            span_tap.add_own_event(span, event.kind, span_event_attributes(event), event.time_unix_ns)

    def _end_on_span(self, event: Event, span: Span, ledger: SpanLedger) -> None:
        self._flush(span, ledger)
        ledger.finished = True
        failed = event.state in (State.FAILED, State.LOST)
        if failed and ledger.owned and event.error_type is not None:
            said = {semconv.EXCEPTION_TYPE: event.error_type}
            if event.error_message is not None:
                said[semconv.EXCEPTION_MESSAGE] = event.error_message
            if event.error_stacktrace is not None:
                said[semconv.EXCEPTION_STACKTRACE] = event.error_stacktrace
            span_tap.add_own_event(span, "exception", said, event.time_unix_ns)
        span_tap.add_own_event(span, event.kind, span_event_attributes(event), event.time_unix_ns)
        span.set_attributes(summary_attributes(event, folded=ledger.folded))
        if failed and ledger.owned:
            description = event.error_message or event.lost_cause or event.message
            span.set_status(Status(StatusCode.ERROR, description))


def emit_log_record(logger: Logger, event: Event, span: Span | None) -> None:
    """One log record of `event` through the application's own pipeline, in the context of its span."""
    from opentelemetry._logs import SeverityNumber

    from otelprogress.model.mapping import event_to_attributes

    severity = severity_of(event)
    if span is None:
        flags = TraceFlags(TraceFlags.SAMPLED if event.sampled else TraceFlags.DEFAULT)
        with contextlib.suppress(ValueError):
            ids = SpanContext(
                int(event.trace_id, 16), int(event.span_id, 16), is_remote=False, trace_flags=flags
            )
            span = NonRecordingSpan(ids)
    logger.emit(
        timestamp=event.time_unix_ns,  # the SDK does not fill it
        # Threads do not inherit the context, and the current span may be another one.
        context=set_span_in_context(span) if span is not None else None,
        severity_number=SeverityNumber(severity),
        severity_text=SEVERITY_TEXT[severity],
        body=body_of(event),
        attributes=event_to_attributes(event),
        event_name=event.kind,
    )
