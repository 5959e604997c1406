"""OTLP/JSON to protobuf, for backends that speak gRPC only.

Protobuf's own JSON reading is right for OTLP but for the ids: OTLP writes them in hex, protobuf's mapping in base64
(OTLP specification, "JSON Protobuf Encoding").
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelprogress.otel.target import Signal

_REQUESTS: Final[dict[Signal, type[Message]]] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
_PLACES: Final[dict[Signal, tuple[str, ...]]] = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}


def to_protobuf(signal: Signal, body: bytes) -> bytes:
    """The same request in protobuf; unknown fields are left out.

    Raises:
        ValueError: it is no OTLP/JSON request of that signal.
    """
    try:
        document = json.loads(body)
        for record in _records(document, _PLACES[signal]):
            _ids_in_base64(record)
            for one in (*record.get("links", ()), *_exemplars(record)):
                _ids_in_base64(one)
        request = json_format.ParseDict(document, _REQUESTS[signal](), ignore_unknown_fields=True)
    except (json_format.ParseError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"no OTLP/JSON request of {signal}: {error}") from error
    return request.SerializeToString()


def _records(document: Any, places: tuple[str, ...]) -> list[Any]:
    level = [document]
    for place in places:
        level = [member for one in level for member in one.get(place) or ()]
    return level


def _ids_in_base64(record: dict[str, Any]) -> None:
    for name in _IDS & record.keys():
        record[name] = base64.b64encode(bytes.fromhex(record[name])).decode()


def _exemplars(metric: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        exemplar
        for kind in ("gauge", "sum", "histogram", "exponentialHistogram")
        for point in (metric.get(kind) or {}).get("dataPoints") or ()
        for exemplar in point.get("exemplars") or ()
    ]
