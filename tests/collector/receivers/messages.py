"""OTLP requests for the tests of this folder: one logical request, written in both encodings."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelprogress.model.events import run_id
from otelprogress_collector.auth.principal import WRITE, Principal

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
START_NS = 1_763_719_200_000_000_000
REQUESTS = {
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}

Attributes = list[tuple[str, Any]]


def a_run(number: int = 1) -> str:
    return run_id(TRACE_ID, number)


def sender(**said: Any) -> Principal:
    return Principal(actor="test", scopes=frozenset({WRITE}), **said)


@dataclass
class Log:
    event_name: str = ""
    attributes: Attributes = field(default_factory=list)
    trace_id: int = TRACE_ID
    span_id: int = 1
    time_unix_nano: int = START_NS
    observed_time_unix_nano: int = 0
    severity_number: int = 0
    flags: int = 1
    body: Any = None


@dataclass
class SpanEvent:
    name: str
    attributes: Attributes = field(default_factory=list)
    time_unix_nano: int = START_NS


@dataclass
class ASpan:
    name: str = "import flights"
    attributes: Attributes = field(default_factory=list)
    trace_id: int = TRACE_ID
    span_id: int = 1
    parent_span_id: int = 0
    trace_state: str = ""
    kind: int = 1
    start_time_unix_nano: int = START_NS
    end_time_unix_nano: int = START_NS + 10**9
    events: list[SpanEvent] = field(default_factory=list)
    status_code: int = 0
    status_message: str = ""
    flags: int = 0


@dataclass
class Group:
    records: list[Any] = field(default_factory=list)
    resource: Attributes = field(default_factory=lambda: [("service.name", "etl"), ("process.pid", 77)])
    scope: str = "test"


# --- protobuf ------------------------------------------------------------------------------------------------------


def pb_value(value: Any) -> AnyValue:
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    message = AnyValue()
    if isinstance(value, dict):
        message.kvlist_value.SetInParent()
        message.kvlist_value.values.extend(pb_attributes(value.items()))
    else:
        message.array_value.SetInParent()
        message.array_value.values.extend(pb_value(item) for item in value)
    return message


def pb_attributes(attributes: Any) -> list[KeyValue]:
    return [KeyValue(key=key, value=pb_value(value)) for key, value in attributes]


def pb_id(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big") if number else b""


def pb_log(log: Log) -> LogRecord:
    return LogRecord(
        time_unix_nano=log.time_unix_nano,
        observed_time_unix_nano=log.observed_time_unix_nano,
        severity_number=log.severity_number,
        event_name=log.event_name,
        trace_id=pb_id(log.trace_id, 16),
        span_id=pb_id(log.span_id, 8),
        flags=log.flags,
        attributes=pb_attributes(log.attributes),
        body=pb_value(log.body),
    )


def pb_span(span: ASpan) -> Span:
    message = Span(
        name=span.name,
        trace_id=pb_id(span.trace_id, 16),
        span_id=pb_id(span.span_id, 8),
        parent_span_id=pb_id(span.parent_span_id, 8),
        trace_state=span.trace_state,
        kind=span.kind,
        start_time_unix_nano=span.start_time_unix_nano,
        end_time_unix_nano=span.end_time_unix_nano,
        attributes=pb_attributes(span.attributes),
        events=[
            Span.Event(
                name=one.name, time_unix_nano=one.time_unix_nano, attributes=pb_attributes(one.attributes)
            )
            for one in span.events
        ],
        flags=span.flags,
    )
    message.status.code = span.status_code
    message.status.message = span.status_message
    return message


def protobuf(signal: str, *groups: Group) -> bytes:
    request = REQUESTS[signal]()
    for group in groups:
        if signal == "logs":
            target = request.resource_logs.add()
            target.scope_logs.add(log_records=[pb_log(one) for one in group.records])
            target.scope_logs[0].scope.name = group.scope
        else:
            target = request.resource_spans.add()
            target.scope_spans.add(spans=[pb_span(one) for one in group.records])
            target.scope_spans[0].scope.name = group.scope
        target.resource.attributes.extend(pb_attributes(group.resource))
    return request.SerializeToString()


# --- JSON ----------------------------------------------------------------------------------------------------------


def js_value(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        return {"intValue": str(value) if value % 2 else value}
    if isinstance(value, float):
        if math.isfinite(value):
            return {"doubleValue": value}
        return {"doubleValue": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": js_attributes(value.items())}}
    return {"arrayValue": {"values": [js_value(item) for item in value]}}


def js_attributes(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": js_value(value)} for key, value in attributes]


def js_id(number: int, size: int) -> str:
    return f"{number:0{2 * size}X}" if number else ""


def js_log(log: Log) -> dict[str, Any]:
    return {
        "timeUnixNano": str(log.time_unix_nano),
        "observedTimeUnixNano": log.observed_time_unix_nano,
        "severityNumber": log.severity_number,
        "eventName": log.event_name,
        "traceId": js_id(log.trace_id, 16),
        "spanId": js_id(log.span_id, 8),
        "flags": log.flags,
        "attributes": js_attributes(log.attributes),
        "body": js_value(log.body),
        "unknownToUs": [{}],
    }


def js_span(span: ASpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "traceId": js_id(span.trace_id, 16),
        "spanId": js_id(span.span_id, 8),
        "parentSpanId": js_id(span.parent_span_id, 8),
        "traceState": span.trace_state,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_time_unix_nano),
        "endTimeUnixNano": span.end_time_unix_nano,
        "attributes": js_attributes(span.attributes),
        "events": [
            {
                "name": one.name,
                "timeUnixNano": one.time_unix_nano,
                "attributes": js_attributes(one.attributes),
            }
            for one in span.events
        ],
        "status": {"code": span.status_code, "message": span.status_message},
        "flags": span.flags,
    }


def in_json(signal: str, *groups: Group) -> bytes:
    outer, middle, inner, write = (
        ("resourceLogs", "scopeLogs", "logRecords", js_log)
        if signal == "logs"
        else ("resourceSpans", "scopeSpans", "spans", js_span)
    )
    request = {
        outer: [
            {
                "resource": {"attributes": js_attributes(group.resource)},
                middle: [{"scope": {"name": group.scope}, inner: [write(one) for one in group.records]}],
            }
            for group in groups
        ]
    }
    return json.dumps(request).encode()


def request(signal: str, encoding: str, *groups: Group) -> bytes:
    return protobuf(signal, *groups) if encoding == "protobuf" else in_json(signal, *groups)
