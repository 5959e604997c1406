"""Spans and events of existing instrumentation as events of an operation, without an edit to that code.

A span that a rule matches (`model.rules`) speaks through its processor: its start is `operation.started`, its end
`operation.ended`, its children are steps or operations of their own, what it records is a note. The times are those
of the span. None of these events has a sequence: hosts tell repetitions by their content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import OUTCOMES, Event, Source, State, StepState
from otelprogress.model.events import run_id as make_run_id
from otelprogress.model.fields import FLOATS, as_float, counters_in, sanitized
from otelprogress.model.redaction import allowed_attributes
from otelprogress.model.rules import SpanFacts, SpanRule
from otelprogress.model.text import clean

EXCEPTION_EVENT: Final = "exception"
NAMELESS: Final = "unnamed"
_SEVERITY_WARN: Final = 13
_SEVERITY_ERROR: Final = 17
_COUNTS: Final = frozenset({"completed", "total", "ratio"})


def span_started(
    span: SpanFacts,
    rule: SpanRule | None = None,
    *,
    writer_id: str = "",
    lease_s: float | None = None,
    service: str | None = None,
    process_id: int | None = None,
    tenant: str = "",
    source: Source = Source.LOG,
) -> Event:
    """`operation.started` of a span that is an operation.

    Args:
        span: as it starts; its ids must not be zero.
        rule: the one that matched, for its title; `None`: a child of a match.
        writer_id: the incarnation of the process that watches the span; empty: unknown.
        lease_s: that writer's promise to be heard; `None`: it gives none.
        service: `service.name` of the resource.
        process_id: of the process.
        tenant: from the sender's token.
        source: `Source.SPAN_END` where log events of the operation itself may still come, and say it better.

    Raises:
        InvalidRecord: the span has no valid ids.
    """
    return sanitized(
        Event(
            kind=semconv.OPERATION_STARTED,
            run_id=_run_id(span),
            time_unix_ns=span.start_unix_ns,
            source=source,
            tenant=tenant,
            writer_id=writer_id,
            lease_s=lease_s,
            service=service,
            process_id=process_id,
            name=span.name or NAMELESS,
            title=rule.title_of(span) if rule is not None else None,
            parent_span_id=f"{span.parent_span_id:016x}" if span.parent_span_id else "",
            start_unix_ns=span.start_unix_ns,
            span_kind=span.kind,
            trace_state=span.trace_state or None,
            sampled=span.sampled,
            attributes=allowed_attributes(span.attributes) or None,
        ),
    )


def span_ended(
    span: SpanFacts,
    *,
    writer_id: str = "",
    tenant: str = "",
    source: Source = Source.SPAN_END,
) -> Event:
    """`operation.ended` of a span that is an operation.

    The outcome is the one that stands on the span (`otelprogress.operation.state`), else `failed` for the status
    error, else `succeeded`; final counts are read where the conventions put them.

    Args:
        span: as it ended.
        writer_id: see `span_started`.
        tenant: from the sender's token.
        source: `Source.SPAN_END` lets the host wait for a better word from the operation itself; `Source.LOG` where
            there can be none, because the span is an operation only by a rule.

    Raises:
        InvalidRecord: the span has no valid ids or has not ended.
    """
    ended_unix_ns = _end(span)
    failure = _failure(span)
    return sanitized(
        Event(
            kind=semconv.OPERATION_ENDED,
            run_id=_run_id(span),
            time_unix_ns=ended_unix_ns,
            source=source,
            tenant=tenant,
            writer_id=writer_id,
            sampled=span.sampled,
            state=_outcome(span),
            **failure,
            **_final_counts(span.attributes),
        ),
    )


def child_step_started(operation: str, span: SpanFacts, index: int | None, *, writer_id: str = "") -> Event:
    """`step.started` of the operation whose child span just started (rules with `children="steps"`).

    Args:
        operation: the run id of the matched span.
        span: the child as it starts.
        index: its place among the steps, from 0; `None`: the host finds it by name.
        writer_id: see `span_started`.
    """
    return sanitized(
        Event(
            kind=semconv.STEP_STARTED,
            run_id=operation,
            time_unix_ns=span.start_unix_ns,
            writer_id=writer_id,
            step_name=span.name or NAMELESS,
            step_index=index,
            step_state=StepState.RUNNING,
        ),
    )


def child_step_ended(operation: str, span: SpanFacts, index: int | None, *, writer_id: str = "") -> Event:
    """`step.ended` of the operation whose child span just ended; see `child_step_started`.

    Raises:
        InvalidRecord: the span has not ended.
    """
    return sanitized(
        Event(
            kind=semconv.STEP_ENDED,
            run_id=operation,
            time_unix_ns=_end(span),
            writer_id=writer_id,
            step_name=span.name or NAMELESS,
            step_index=index,
            step_state=StepState.FAILED if span.status == "error" else StepState.SUCCEEDED,
            message=span.status_description if span.status == "error" else None,
            **_final_counts(span.attributes),
        ),
    )


def note_from_foreign(
    operation: str,
    name: str,
    attributes: Mapping[str, Any] | None,
    time_unix_ns: int,
    *,
    body: object = None,
    severity_number: int = 0,
    writer_id: str = "",
    tenant: str = "",
) -> Event:
    """`operation.noted` for what existing code says in an operation's span: `add_event`, `logger.emit`.

    Args:
        operation: the run id of the span.
        name: of the span event or log event; may be empty for a log record.
        attributes: its attributes; only those of an exception are read.
        time_unix_ns: when it was said.
        body: of a log record; a text is the note.
        severity_number: of a log record: from 13 a warning, from 17 an error; an exception is an error.
        writer_id: see `span_started`.
        tenant: from the sender's token.
    """
    attributes = attributes or {}
    error_type = _text(attributes, semconv.EXCEPTION_TYPE)
    message = body if isinstance(body, str) and body else name
    level = None
    if severity_number >= _SEVERITY_WARN:
        level = "error" if severity_number >= _SEVERITY_ERROR else "warning"
    if name == EXCEPTION_EVENT and error_type:
        said = _text(attributes, semconv.EXCEPTION_MESSAGE)
        message = f"{error_type}: {said}" if said else error_type
        level = "error"
    return sanitized(
        Event(
            kind=semconv.OPERATION_NOTED,
            run_id=operation,
            time_unix_ns=time_unix_ns,
            source=Source.FOREIGN,
            tenant=tenant,
            writer_id=writer_id,
            message=message or NAMELESS,
            level=level,
        ),
    )


def _run_id(span: SpanFacts) -> str:
    if not (0 < span.trace_id < 1 << 128 and 0 < span.span_id < 1 << 64):
        raise InvalidRecord(f"span {clean(span.name, 64)!r} has no valid trace id and span id")
    return make_run_id(span.trace_id, span.span_id)


def _end(span: SpanFacts) -> int:
    if span.end_unix_ns is None:
        raise InvalidRecord(f"span {clean(span.name, 64)!r} has not ended")
    return max(span.end_unix_ns, span.start_unix_ns)


def _outcome(span: SpanFacts) -> State:
    said = span.attributes.get(semconv.OPERATION_STATE)
    if isinstance(said, str) and said in OUTCOMES:
        return State(said)
    return State.FAILED if span.status == "error" else State.SUCCEEDED


def _failure(span: SpanFacts) -> dict[str, Any]:
    if span.status != "error":
        return {}
    recorded: Mapping[str, Any] = next(
        (said for name, _, said in reversed(span.events) if name == EXCEPTION_EVENT), {}
    )
    return {
        "error_type": _text(span.attributes, semconv.ERROR_TYPE) or _text(recorded, semconv.EXCEPTION_TYPE),
        "error_message": _text(recorded, semconv.EXCEPTION_MESSAGE) or span.status_description,
        "error_stacktrace": _text(recorded, semconv.EXCEPTION_STACKTRACE),
    }


def _final_counts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Counts that the conventions put on the span; what is malformed is not read, the end counts all the same."""
    said: dict[str, Any] = {}
    counters: dict[str, float] = {}
    for key, value in attributes.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if key.startswith(semconv.COUNTER_PREFIX):
            counters[key[len(semconv.COUNTER_PREFIX) :]] = float(value)
    for field, attribute in FLOATS:
        if field in _COUNTS and attribute in attributes:
            try:
                said[field] = as_float(attribute, attributes[attribute])
            except InvalidRecord:
                continue
    if unit := _text(attributes, semconv.ITEMS_UNIT):
        said["unit"] = unit
    if counters:
        said["counters"] = counters_in(counters)
    return said


def _text(attributes: Mapping[str, Any], key: str) -> str | None:
    value = attributes.get(key)
    return value if isinstance(value, str) else None
