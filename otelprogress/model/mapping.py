"""Events to log attributes and back: what makes progress ordinary OpenTelemetry.

Pure, over plain data: the adapters of `otel` and of the collector bring records here as names, numbers and mappings.
Reading accepts what any SDK may write and refuses, naming the attribute, what it cannot mean; every text is cleaned,
capped and redacted on the way in. Spans and events of existing instrumentation are read by `model.span_mapping`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event, Source
from otelprogress.model.events import run_id as make_run_id
from otelprogress.model.fields import (
    FLOATS,
    INTEGERS,
    JSON_TEXTS,
    TEXT_LISTS,
    TEXTS,
    as_flag,
    as_float,
    as_integer,
    as_list,
    as_state,
    as_step_state,
    as_text,
    counters_in,
    json_in,
    names_in,
    sanitized,
    stacktrace_in,
    text_in,
)
from otelprogress.model.redaction import allowed_attributes, redacted
from otelprogress.model.span_mapping import (
    child_step_ended,
    child_step_started,
    note_from_foreign,
    span_ended,
    span_started,
)
from otelprogress.model.text import clean

__all__ = [
    "KNOWN_EVENTS",
    "AttributeValue",
    "child_step_ended",
    "child_step_started",
    "event_from_log",
    "event_to_attributes",
    "note_from_foreign",
    "sanitized",
    "span_ended",
    "span_started",
]

AttributeValue = str | bool | int | float | tuple[str, ...] | tuple[float, ...]

KNOWN_EVENTS: Final = semconv.DURABLE_EVENTS | semconv.CONFLATED_EVENTS | {semconv.STEPS_FOLDED}

_AS_THEY_ARE: Final = (*TEXT_LISTS, *JSON_TEXTS)
_SEVERITY_WARN: Final = 13
_SEVERITY_ERROR: Final = 17
_SAMPLED_FLAG: Final = 1


def event_to_attributes(event: Event) -> dict[str, AttributeValue]:
    """The attributes of the log record that carries the event.

    The record itself carries the event's name, time, trace and span id and the sampled flag; the resource carries
    `service.name` and `process.pid`.
    """
    said: dict[str, AttributeValue] = {}
    for field, attribute, *_ in TEXTS:
        value = getattr(event, field)
        if value is not None and (value != "" or field != "writer_id"):
            said[attribute] = value
    for field, attribute in FLOATS:
        value = getattr(event, field)
        if value is not None:
            said[attribute] = float(value)
    for field, attribute in INTEGERS:
        value = getattr(event, field)
        if value is not None:
            said[attribute] = value
    for field, attribute, _ in _AS_THEY_ARE:
        value = getattr(event, field)
        if value is not None:
            said[attribute] = value
    if event.step_weights is not None:
        said[semconv.OPERATION_STEP_WEIGHTS] = tuple(float(weight) for weight in event.step_weights)
    if event.state is not None:
        said[semconv.OPERATION_STATE] = event.state.value
    if event.step_state is not None:
        said[semconv.STEP_STATE] = event.step_state.value
    if event.stalled is not None:
        said[semconv.OPERATION_STALLED] = event.stalled
    if event.error_type is not None:
        said[semconv.EXCEPTION_TYPE] = event.error_type
    if event.error_stacktrace is not None:
        said[semconv.EXCEPTION_STACKTRACE] = event.error_stacktrace
    for name, count in (event.counters or {}).items():
        said[semconv.COUNTER_PREFIX + name] = float(count)
    for name, attribute_value in (event.attributes or {}).items():
        said[semconv.ATTRIBUTE_PREFIX + name] = attribute_value
    return said


def event_from_log(
    event_name: str,
    attributes: Mapping[str, Any],
    *,
    trace_id: int,
    span_id: int,
    time_unix_ns: int,
    resource: Mapping[str, Any] | None = None,
    severity_number: int = 0,
    sampled: bool = True,
    tenant: str = "",
    source: Source = Source.LOG,
) -> Event:
    """The event that a log record, or a span event of ours, carries.

    Args:
        event_name: one of `KNOWN_EVENTS`.
        attributes: of the record; lists as lists or tuples. What is not of the conventions is not read.
        trace_id: of the record's span context; 0 only for `writer.alive`.
        span_id: likewise.
        time_unix_ns: of the record, else when it was observed.
        resource: attributes of the resource, for `service.name` and `process.pid`.
        severity_number: gives a note its level where it has none (13: warning, 17: error).
        sampled: the trace flag.
        tenant: from the sender's token, never from the record.
        source: `Source.SPAN_EVENT` for an event that stood on a span.

    Raises:
        InvalidRecord: the event is unknown, the ids are zero or an attribute has the wrong type; the message names it.
    """
    if event_name not in KNOWN_EVENTS:
        raise InvalidRecord(f"unknown event {clean(event_name, 64)!r}")
    if event_name == semconv.WRITER_ALIVE:
        run_id = ""
    elif 0 < trace_id < 1 << 128 and 0 < span_id < 1 << 64:
        run_id = make_run_id(trace_id, span_id)
    else:
        raise InvalidRecord(
            f"{event_name} must be in the context of a span: trace id and span id must not be zero"
        )
    if not 0 <= time_unix_ns < 1 << 63:
        raise InvalidRecord(f"the time of {event_name} must fit in 63 bits")
    said: dict[str, Any] = {}
    for text in TEXTS:
        value = attributes.get(text.attribute)
        if value is not None:
            said[text.field] = text_in(text, as_text(text.attribute, value))
    for field, attribute in FLOATS:
        value = attributes.get(attribute)
        if value is not None:
            said[field] = as_float(attribute, value)
    for field, attribute in INTEGERS:
        value = attributes.get(attribute)
        if value is not None:
            said[field] = as_integer(attribute, value)
    for field, attribute, most in TEXT_LISTS:
        value = attributes.get(attribute)
        if value is not None:
            said[field] = names_in(as_list(attribute, value, as_text, most), most)
    for field, attribute, limit in JSON_TEXTS:
        value = attributes.get(attribute)
        if value is not None:
            said[field] = json_in(as_text(attribute, value), limit, schema=field == "input_schema")
    _read_the_rest(attributes, said)
    if "level" not in said and event_name == semconv.OPERATION_NOTED and severity_number >= _SEVERITY_WARN:
        said["level"] = "error" if severity_number >= _SEVERITY_ERROR else "warning"
    _read_resource(resource or {}, said)
    return Event(
        kind=event_name,
        run_id=run_id,
        time_unix_ns=time_unix_ns,
        source=source,
        tenant=tenant,
        sampled=sampled,
        **said,
    )


def _read_the_rest(attributes: Mapping[str, Any], said: dict[str, Any]) -> None:
    """What is not a plain text or number."""
    if (value := attributes.get(semconv.OPERATION_STEP_WEIGHTS)) is not None:
        said["step_weights"] = as_list(
            semconv.OPERATION_STEP_WEIGHTS, value, as_float, semconv.MAX_PLANNED_STEPS
        )
    if (value := attributes.get(semconv.OPERATION_STATE)) is not None:
        said["state"] = as_state(semconv.OPERATION_STATE, value)
    if (value := attributes.get(semconv.STEP_STATE)) is not None:
        said["step_state"] = as_step_state(semconv.STEP_STATE, value)
    if (value := attributes.get(semconv.OPERATION_STALLED)) is not None:
        said["stalled"] = as_flag(semconv.OPERATION_STALLED, value)
    if "error_type" not in said and (value := attributes.get(semconv.EXCEPTION_TYPE)) is not None:
        said["error_type"] = redacted(as_text(semconv.EXCEPTION_TYPE, value), semconv.MAX_NAME_CHARS)
    if (value := attributes.get(semconv.EXCEPTION_STACKTRACE)) is not None:
        said["error_stacktrace"] = stacktrace_in(as_text(semconv.EXCEPTION_STACKTRACE, value))
    counters: dict[str, float] = {}
    own: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(semconv.COUNTER_PREFIX):
            counters[key[len(semconv.COUNTER_PREFIX) :]] = as_float(key, value)
        elif key.startswith(semconv.ATTRIBUTE_PREFIX):
            own[key[len(semconv.ATTRIBUTE_PREFIX) :]] = value
    if counters:
        said["counters"] = counters_in(counters)
    if own:
        said["attributes"] = allowed_attributes(own, allowed=None) or None


def _read_resource(resource: Mapping[str, Any], said: dict[str, Any]) -> None:
    service, pid = resource.get(semconv.SERVICE_NAME), resource.get(semconv.PROCESS_PID)
    if isinstance(service, str):
        said["service"] = clean(service, semconv.MAX_NAME_CHARS)
    if isinstance(pid, int) and not isinstance(pid, bool) and 0 < pid < 1 << 31:
        said["process_id"] = pid
