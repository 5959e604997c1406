"""Log events that existing code emits on an operation's span become notes, when they happen.

``logger.emit(event_name="cache.miss", …)`` inside an operation is a note; a record without an event name is
plain logging and left alone. A record of another scope that speaks our conventions (`otelprogress.*` event
names) is taken at its word, whatever its span: that is how code with no library of ours takes part.

The processor only listens: it changes no record, exports nothing, and never makes `Logger.enabled()` true where
nobody else wants the record.
"""

from __future__ import annotations

import time
from typing import Any

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.trace import TraceFlags, get_current_span

from otelprogress.model import mapping, semconv
from otelprogress.otel import span_tap
from otelprogress.otel.notes import note
from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.registry import REGISTRY


class ProgressLogProcessor(LogRecordProcessor):
    """See the module. `errors` counts callbacks that went wrong inside, also for records that break the conventions."""

    only_listens = True

    def __init__(self) -> None:
        self.errors = 0

    bind = staticmethod(OUTLET.open)
    """Open the outlet of every processor of this process, also of those that the application made."""
    unbind = staticmethod(OUTLET.close)
    """Close it: all processors fall silent."""

    def attach_to(self, provider: Any) -> None:
        """Add this processor to an SDK LoggerProvider, unless one of ours listens there already."""
        if not any(isinstance(other, ProgressLogProcessor) for other in span_tap.processors_of(provider)):
            provider.add_log_record_processor(self)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """See `LogRecordProcessor.on_emit`."""
        try:
            record = log_record.log_record
            if not record.event_name or OUTLET.submit is None:
                return
            scope = log_record.instrumentation_scope
            if scope is not None and scope.name == semconv.SCOPE_NAME:
                return
            if record.event_name.startswith(semconv.PREFIX):
                self._take_at_its_word(log_record)
            elif record.span_id and record.trace_id:
                self._note(record)
        except Exception:
            self.errors += 1

    def _note(self, record: Any) -> None:
        tracked = REGISTRY.operation_at(record.trace_id, record.span_id)
        if tracked is not None:
            note(
                tracked,
                record.event_name,
                record.attributes,
                _time_of(record),
                body=record.body,
                severity_number=_severity_of(record),
            )

    def _take_at_its_word(self, log_record: ReadWriteLogRecord) -> None:
        submit = OUTLET.submit
        record = log_record.log_record
        if submit is not None:
            submit(
                mapping.event_from_log(
                    record.event_name or "",
                    record.attributes or {},
                    trace_id=record.trace_id or 0,
                    span_id=record.span_id or 0,
                    time_unix_ns=_time_of(record),
                    resource=log_record.resource.attributes if log_record.resource is not None else None,
                    severity_number=_severity_of(record),
                    sampled=bool((record.trace_flags or 0) & TraceFlags.SAMPLED),
                ),
            )

    def enabled(
        self,
        *,
        context: Context | None = None,
        instrumentation_scope: Any = None,
        severity_number: SeverityNumber | None = None,
        event_name: str | None = None,
    ) -> bool:
        """Whether this record would become a note: only named events, and only on an operation's span."""
        if not event_name or OUTLET.submit is None:
            return False
        return REGISTRY.find(get_current_span(context).get_span_context()) is not None

    def shutdown(self) -> None:
        """Nothing to release; records emitted afterwards are still heard."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True


def _time_of(record: Any) -> int:
    """When it happened; `Logger.emit` fills no timestamp."""
    time_unix_ns: int = record.timestamp or record.observed_timestamp or time.time_ns()
    return time_unix_ns


def _severity_of(record: Any) -> int:
    return record.severity_number.value if record.severity_number is not None else 0
