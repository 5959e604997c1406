from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.model.mapping import event_from_log
from otelprogress.otel import otlp_encode
from otelprogress.otel.otlp_encode import LogEncoder, any_value, encode_record
from tests.otel.events import ended, event, started, step_started


def encoder() -> LogEncoder:
    return LogEncoder({"service.name": "etl", "host.name": "h"}, "1")


def value_of(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(value_of(one) for one in value.array_value.values)
    return getattr(value, kind) if kind else None


def attributes_of(record) -> dict:
    return {one.key: value_of(one.value) for one in record.attributes}


def test_what_is_encoded_is_read_back_as_the_same_event():
    said = step_started(
        3,
        sequence=7,
        completed=1.5,
        total=3.0,
        unit="{row}",
        counters={"rejected": 2.0},
        message="half way",
        state=State.RUNNING,
    )
    record = encode_record(said)
    read = event_from_log(
        record.event_name,
        attributes_of(record),
        trace_id=int.from_bytes(record.trace_id),
        span_id=int.from_bytes(record.span_id),
        time_unix_ns=record.time_unix_nano,
        sampled=bool(record.flags & 1),
    )
    assert read == said


def test_severity_tells_a_failure_from_a_note():
    assert encode_record(started()).severity_text == "INFO"
    assert encode_record(event(semconv.OPERATION_NOTED, level="warning", message="x")).severity_number == 13
    assert encode_record(ended(state=State.FAILED)).severity_number == 17
    assert encode_record(ended(state=State.CANCELLED)).severity_number == 9


def test_an_alive_writer_has_no_span():
    record = encode_record(event(semconv.WRITER_ALIVE, run_id="", lease_s=90.0))
    assert (record.trace_id, record.span_id) == (b"", b"")
    assert not record.HasField("body")


def test_events_of_other_processes_keep_their_resource():
    body, count = encoder().encode([started(1), started(2, service="child", process_id=9), started(3)])
    request = ExportLogsServiceRequest.FromString(body)
    assert count == 3
    resources = [
        {one.key: value_of(one.value) for one in group.resource.attributes} for group in request.resource_logs
    ]
    assert resources == [
        {"service.name": "etl", "host.name": "h"},
        {"service.name": "child", "host.name": "h", "process.pid": 9},
    ]
    assert [len(group.scope_logs[0].log_records) for group in request.resource_logs] == [2, 1]
    assert request.resource_logs[0].scope_logs[0].scope.name == "otelprogress"


def test_a_request_stays_below_what_receivers_take(monkeypatch):
    monkeypatch.setattr(otlp_encode, "MAX_REQUEST_BYTES", 4_000)
    events = [event(semconv.OPERATION_NOTED, number, message="x" * 1_000) for number in range(1, 11)]
    rest, sizes = list(events), []
    one = encoder()
    while rest:
        body, count = one.encode(rest)
        sizes.append(len(body))
        del rest[:count]
    assert max(sizes) < 5_000
    assert len(sizes) > 2


def test_an_event_larger_than_a_request_goes_alone(monkeypatch):
    monkeypatch.setattr(otlp_encode, "MAX_REQUEST_BYTES", 10)
    assert encoder().encode([started(1), started(2)])[1] == 1


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()


@given(
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
)
def test_any_value_at_all_can_be_encoded(value):
    any_value(value).SerializeToString()


@given(st.text(st.characters(codec=None)))
def test_lone_surrogates_are_replaced(text):
    encoded = any_value(text)
    assert encoded.string_value == text.encode("utf-8", "replace").decode()
    encoded.SerializeToString()
