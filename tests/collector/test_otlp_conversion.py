"""OTLP/JSON as protobuf, ids and all."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelprogress_collector.otlp_conversion import to_protobuf

TRACE, SPAN, PARENT = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "eee19b7ec3c1b173"


def converted(signal, kind, document):
    return kind.FromString(to_protobuf(signal, json.dumps(document).encode()))


def test_the_ids_of_spans_and_their_links_are_hex():
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "etl"}}]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": TRACE,
                                "spanId": SPAN,
                                "parentSpanId": PARENT,
                                "name": "load",
                                "kind": 2,
                                "startTimeUnixNano": "1544712660000000000",
                                "links": [{"traceId": TRACE, "spanId": PARENT}],
                                "unheardOf": 3,
                                "attributes": [
                                    {"key": "bytes", "value": {"bytesValue": "AQI="}},
                                    {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "7"}]}}},
                                ],
                            }
                        ]
                    }
                ],
            }
        ]
    }
    span = converted("traces", ExportTraceServiceRequest, document).resource_spans[0].scope_spans[0].spans[0]
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN, PARENT)
    assert span.links[0].span_id.hex() == PARENT
    assert (span.kind, span.start_time_unix_nano) == (2, 1544712660000000000)
    assert span.attributes[0].value.bytes_value == b"\x01\x02"
    assert span.attributes[1].value.array_value.values[0].int_value == 7


def test_the_ids_of_log_records_are_hex():
    document = {
        "resourceLogs": [
            {"scopeLogs": [{"logRecords": [{"traceId": TRACE, "spanId": SPAN, "eventName": "e"}]}]}
        ]
    }
    [record] = (
        converted("logs", ExportLogsServiceRequest, document).resource_logs[0].scope_logs[0].log_records
    )
    assert (record.trace_id.hex(), record.span_id.hex(), record.event_name) == (TRACE, SPAN, "e")


def test_the_ids_of_exemplars_are_hex():
    document = {
        "resourceMetrics": [
            {
                "scopeMetrics": [
                    {
                        "metrics": [
                            {
                                "name": "m",
                                "sum": {
                                    "aggregationTemporality": 2,
                                    "dataPoints": [
                                        {"asInt": "3", "exemplars": [{"traceId": TRACE, "spanId": SPAN}]}
                                    ],
                                },
                            }
                        ]
                    }
                ]
            }
        ]
    }
    [metric] = (
        converted("metrics", ExportMetricsServiceRequest, document)
        .resource_metrics[0]
        .scope_metrics[0]
        .metrics
    )
    assert metric.sum.data_points[0].exemplars[0].trace_id.hex() == TRACE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"resourceSpans": 3}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
    ],
)
def test_what_is_no_request_is_a_value_error(body):
    with pytest.raises(ValueError):
        to_protobuf("traces", body)
