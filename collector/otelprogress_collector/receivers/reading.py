"""One request while it is read: what both encodings do with a record once they have it as plain facts.

- Log records of our conventions are events, whoever emits them.
- Other log records in the context of an operation's span are notes of it.
- Spans that carry our conventions close their operation; where nothing was heard of it before, they tell it whole.
- Spans of others go to the rules (`span_rules`), as do spans that are still open: Logfire's pending spans, and those
  in the body of a heartbeat log (`foreign_spans`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import mapping, semconv
from otelprogress.model.events import Event, Source
from otelprogress.model.events import run_id as make_run_id
from otelprogress.model.fields import as_text, json_in
from otelprogress.model.rules import SpanFacts
from otelprogress.model.text import clean
from otelprogress_collector.receivers.intake import Intake, Signal, TooLarge
from otelprogress_collector.receivers.limits import Limits
from otelprogress_collector.receivers.origin import Origin

IsOperation = Callable[[str, str], bool]
"""(run id, tenant): whether the host knows that run."""

EVENT_NAME_ATTRIBUTE: Final = "event.name"
"""Where SDKs put the name of an event before log records had a field for it."""
OPERATION_PREFIX: Final = "otelprogress.operation."
_MAX_NOTES_OF_A_SPAN: Final = 128

_START_ATTRIBUTES: Final = frozenset(
    {
        semconv.OPERATION_ID,
        semconv.OPERATION_TITLE,
        semconv.OPERATION_STEPS,
        semconv.OPERATION_STEP_WEIGHTS,
        semconv.OPERATION_EXPECTED_CHILDREN,
        semconv.OPERATION_ATTEMPT,
        semconv.OPERATION_WEIGHT,
        semconv.OPERATION_CONTROLS,
    },
)
_START_FIELDS: Final = (
    "label",
    "title",
    "steps",
    "step_weights",
    "expected_children",
    "attempt",
    "weight",
    "controls",
)


class LogFacts(msgspec.Struct, gc=False, kw_only=True):
    """One log record, free of any encoding."""

    name: str
    """Of the event; empty: a plain log record."""
    trace_id: int
    span_id: int
    time_unix_ns: int
    """When it happened, else when it was observed; 0: not said."""
    severity_number: int = 0
    sampled: bool = True
    attributes: Mapping[str, Any] = {}
    body: object = None


class Reading:
    """See the module.

    Args:
        signal: of the request.
        limits: how much it may hold.
        is_operation: which runs the host knows.
    """

    def __init__(self, signal: Signal, limits: Limits, is_operation: IsOperation) -> None:
        self.limits = limits
        self.intake = Intake(signal=signal)
        self._is_operation = is_operation
        self._started: set[tuple[str, str]] = set()
        self._conflated = 0

    # --- what becomes of a record -----------------------------------------------------------------------------

    def add(self, event: Event) -> None:
        """One more event.

        Raises:
            TooLarge: more than one request may hold.
        """
        events = self.intake.events
        if len(events) >= self.limits.max_events:
            raise TooLarge(f"a request may hold {self.limits.max_events} events of progress, not more")
        events.append(event)
        kind = event.kind
        if kind in semconv.CONFLATED_EVENTS:
            self._conflated += 1
        elif kind == semconv.OPERATION_STARTED:
            self._started.add((event.tenant, event.run_id))

    def reject(self, reason: str, count: int = 1) -> None:
        """Refuse records; the first reason is told."""
        if not self.intake.rejected:
            self.intake.reason = clean(reason, 512)
        self.intake.rejected += count

    def warn(self, about: str) -> None:
        """Tell the sender, unless there is something worse to say."""
        self.intake.reason = self.intake.reason or clean(about, 512)

    def refuse_group(self, position: int, reason: str, count: int = 0) -> None:
        """Keep all that a resource sends from the backends; `count` records are refused with it."""
        self.reject(reason, count)
        self.intake.refused_groups = (*self.intake.refused_groups, position)

    def knows(self, run_id: str, tenant: str) -> bool:
        """Whether that is an operation, of the host's or of this request's."""
        return (tenant, run_id) in self._started or self._is_operation(run_id, tenant)

    def concluded(self) -> Intake:
        """What it came to."""
        intake = self.intake
        intake.conflated_only = 0 < self._conflated == intake.records == len(intake.events)
        return intake

    # --- log records --------------------------------------------------------------------------------------------

    def own_log(self, origin: Origin, facts: LogFacts) -> None:
        """A log record of our conventions.

        Raises:
            InvalidRecord: it breaks them.
        """
        self.add(
            mapping.event_from_log(
                facts.name,
                facts.attributes,
                trace_id=facts.trace_id,
                span_id=facts.span_id,
                time_unix_ns=facts.time_unix_ns,
                resource=origin.resource,
                severity_number=facts.severity_number,
                sampled=facts.sampled,
                tenant=origin.tenant,
            )
        )

    def unknown_event(self, name: str) -> None:
        """An event in our namespace that this version does not know: a newer SDK's, or a slip of the pen."""
        self.warn(f"unknown event {clean(name, 64)!r}")

    def note(self, origin: Origin, run_id: str, facts: LogFacts) -> None:
        """What other code logs within an operation."""
        if facts.name or (isinstance(facts.body, str) and facts.body):
            self.add(
                mapping.note_from_foreign(
                    run_id,
                    facts.name,
                    facts.attributes,
                    min(facts.time_unix_ns, (1 << 63) - 1),
                    body=facts.body,
                    severity_number=facts.severity_number,
                    tenant=origin.tenant,
                )
            )

    # --- spans that carry our conventions -------------------------------------------------------------------------

    def own_span(self, origin: Origin, span: SpanFacts) -> None:
        """A span that says itself that it is an operation.

        Raises:
            InvalidRecord: it breaks the conventions, or has no valid ids.
        """
        check_ids(span)
        run_id = make_run_id(span.trace_id, span.span_id)
        heard = self.knows(run_id, origin.tenant)
        if not heard:
            # No log event of this run arrived (yet): its span tells all that happened.
            self.add(_started_by_span(origin, span))
            for name, time_unix_ns, attributes in span.events:
                if name in mapping.KNOWN_EVENTS and name != semconv.WRITER_ALIVE:
                    self.add(
                        mapping.event_from_log(
                            name,
                            attributes,
                            trace_id=span.trace_id,
                            span_id=span.span_id,
                            time_unix_ns=time_unix_ns,
                            sampled=span.sampled,
                            tenant=origin.tenant,
                            source=Source.SPAN_EVENT,
                        )
                    )
        if span.end_unix_ns is not None:
            self.add(_ended_by_span(origin, span))

    def notes_of_span(self, origin: Origin, span: SpanFacts) -> None:
        """What existing code added to the span of an operation, when the span is seen for the first time."""
        for name, time_unix_ns, attributes in span.events[:_MAX_NOTES_OF_A_SPAN]:
            if not name.startswith(semconv.PREFIX):
                self.add(
                    mapping.note_from_foreign(
                        make_run_id(span.trace_id, span.span_id),
                        name,
                        attributes,
                        min(time_unix_ns, (1 << 63) - 1),
                        tenant=origin.tenant,
                    )
                )


def is_own_span(attributes: Mapping[str, Any]) -> bool:
    """Whether a span says itself that it is an operation."""
    return any(key.startswith(OPERATION_PREFIX) for key in attributes)


def check_ids(span: SpanFacts) -> None:
    """Refuse a span whose ids or times cannot be meant.

    Raises:
        InvalidRecord: an id that is zero or too long, a time beyond 63 bits.
    """
    if not (0 < span.trace_id < 1 << 128 and 0 < span.span_id < 1 << 64):
        raise InvalidRecord(f"span {clean(span.name, 64)!r} has no valid trace id and span id")
    if span.start_unix_ns >= 1 << 63 or (span.end_unix_ns or 0) >= 1 << 63:
        raise InvalidRecord(f"the times of span {clean(span.name, 64)!r} must fit in 63 bits")


def _started_by_span(origin: Origin, span: SpanFacts) -> Event:
    started = mapping.span_started(
        span,
        service=origin.said.get("service"),
        process_id=origin.said.get("process_id"),
        tenant=origin.tenant,
        source=Source.SPAN_END,
    )
    said = mapping.event_from_log(
        semconv.OPERATION_STARTED,
        {key: value for key, value in span.attributes.items() if key in _START_ATTRIBUTES},
        trace_id=span.trace_id,
        span_id=span.span_id,
        time_unix_ns=span.start_unix_ns,
    )
    return msgspec.structs.replace(
        started,
        **{field: value for field in _START_FIELDS if (value := getattr(said, field)) is not None},
    )


def _ended_by_span(origin: Origin, span: SpanFacts) -> Event:
    ended = mapping.span_ended(span, tenant=origin.tenant)
    result = span.attributes.get(semconv.RESULT)
    if result is None:
        return ended
    kept = json_in(as_text(semconv.RESULT, result), semconv.MAX_RESULT_BYTES)
    return msgspec.structs.replace(ended, result=kept)
