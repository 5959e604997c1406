"""Requests for backends without the secrets in them: canaries in every text of OTLP, and nothing else changed."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otelprogress.model import semconv
from otelprogress_collector.exporters.redaction import names_secret, redacted_at_once, redacted_request
from otelprogress_collector.otlp_conversion import to_protobuf

CANARY = "c4n4ry" + "Q7x9" * 6
SECRET = f"failed with password={CANARY} twice"
REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
LEFT_ALONE = {
    "trace_state": "goes on with the trace as it came",
    "schema_url": "a public address, compared",
    "InstrumentationScope.name": "the name of a library, filtered by",
    "InstrumentationScope.version": "likewise",
    "Metric.name": "what the series is found by",
    "Metric.unit": "compared",
}


def taken_out(signal: str, body: bytes, encoding: str = "protobuf"):
    return redacted_at_once(signal, body, encoding)


def texts_of(message: Message, depth: int = 0):
    """Every way to put a text or bytes into such a message: paths of fields."""
    for field in message.DESCRIPTOR.fields:
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield (field,)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth < 9:
            for path in texts_of(field.message_type._concrete_class(), depth + 1):
                yield (field, *path)


def put(message: Message, path, value: str) -> None:
    for field in path[:-1]:
        inner = getattr(message, field.name)
        message = inner.add() if hasattr(inner, "add") else inner
    field = path[-1]
    said = value.encode() if field.type == FieldDescriptor.TYPE_BYTES else value
    held = getattr(message, field.name)
    if hasattr(held, "append"):
        held.append(said)
    else:
        setattr(message, field.name, said)


def is_left_alone(path) -> bool:
    last = path[-1]
    return last.name in LEFT_ALONE or f"{last.containing_type.name}.{last.name}" in LEFT_ALONE


def is_id(path) -> bool:
    return path[-1].name in {"trace_id", "span_id", "parent_span_id"}


@pytest.mark.parametrize("signal", REQUESTS)
def test_a_secret_in_any_text_of_a_request_does_not_go(signal):
    paths = [path for path in texts_of(REQUESTS[signal]()) if not is_left_alone(path) and not is_id(path)]
    assert len(paths) > 20
    for path in paths:
        request = REQUESTS[signal]()
        put(request, path, SECRET)
        said = ".".join(field.name for field in path)
        for encoding, body in (
            ("protobuf", request.SerializeToString()),
            ("json", json_format.MessageToJson(request).encode()),
        ):
            kept = taken_out(signal, body, encoding)
            held = kept.body
            if encoding == "json":
                held = to_protobuf(signal, held)
            assert CANARY.encode() not in held, said
            assert b"[redacted]" in held, said
            assert kept.unreadable == 0


@pytest.mark.parametrize("signal", REQUESTS)
def test_identities_are_no_prose(signal):
    for path in texts_of(REQUESTS[signal]()):
        if is_left_alone(path):
            request = REQUESTS[signal]()
            put(request, path, "auth:requests:rate5m")
            body = request.SerializeToString()
            assert taken_out(signal, body).body is body
            body = json_format.MessageToJson(request).encode()
            assert taken_out(signal, body, "json").body is body


def span_request(*attributes: KeyValue) -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="load", attributes=attributes)
    return request.SerializeToString()


def attributes_in(body: bytes) -> dict[str, AnyValue]:
    span = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0]
    return {one.key: one.value for one in span.attributes}


def as_json(body: bytes) -> bytes:
    return json_format.MessageToJson(ExportTraceServiceRequest.FromString(body)).encode()


def both(body: bytes) -> list[dict[str, AnyValue]]:
    """The attributes that go, once sent as protobuf and once as JSON."""
    return [
        attributes_in(taken_out("traces", body).body),
        attributes_in(to_protobuf("traces", taken_out("traces", as_json(body), "json").body)),
    ]


@pytest.mark.parametrize("key", ["password", "db.password", "x-api-key", "client_secret", "session.id"])
def test_every_text_in_an_attribute_with_the_name_of_a_secret_goes(key):
    value = AnyValue()
    value.kvlist_value.values.add(key="list").value.array_value.values.add(string_value="correct horse")
    value.kvlist_value.values.add(key="bytes").value.bytes_value = b"\xffhorse"
    value.kvlist_value.values.add(key="number").value.int_value = 7
    for kept in both(span_request(KeyValue(key=key, value=value))):
        found = {one.key: one.value for one in kept[key].kvlist_value.values}
        assert found["list"].array_value.values[0].string_value == "[redacted]"
        assert found["bytes"].bytes_value == b"[redacted]"
        assert found["number"].int_value == 7


def test_numbers_stay_whatever_they_are_called():
    body = span_request(KeyValue(key="gen_ai.usage.input_tokens", value=AnyValue(int_value=1234)))
    assert taken_out("traces", body).body is body
    assert taken_out("traces", as_json(body), "json").body == as_json(body)


@pytest.mark.parametrize("content", [SECRET.encode(), b"\xff " + SECRET.encode()])
def test_bytes_are_looked_through_as_text(content):
    for kept in both(span_request(KeyValue(key="blob", value=AnyValue(bytes_value=content)))):
        assert kept["blob"].bytes_value == content.replace(CANARY.encode(), b"[redacted]")


def test_results_and_schemas_are_looked_through_by_the_names_of_their_members():
    result = json.dumps({"password": [CANARY], "rows": 7})
    schema = '{"properties": {"password": {"type": "string"}}}'
    body = span_request(
        KeyValue(key=semconv.RESULT, value=AnyValue(string_value=result)),
        KeyValue(key=semconv.INPUT_SCHEMA, value=AnyValue(string_value=schema)),
    )
    for kept in both(body):
        assert json.loads(kept[semconv.RESULT].string_value) == {"password": ["[redacted]"], "rows": 7}
        assert kept[semconv.INPUT_SCHEMA].string_value == schema


def test_colours_and_lines_stay_unless_a_secret_hides_behind_them():
    coloured = f"\x1b[32mok\x1b[0m\n\ttoken={CANARY}\n"
    hidden = f"\x1b[32mpassword\x1b[0m={CANARY}\nnext"
    body = span_request(
        KeyValue(key="a", value=AnyValue(string_value=coloured)),
        KeyValue(key="b", value=AnyValue(string_value=hidden)),
    )
    for kept in both(body):
        assert kept["a"].string_value == "\x1b[32mok\x1b[0m\n\ttoken=[redacted]\n"
        assert kept["b"].string_value == "password=[redacted]\nnext"


def test_no_attribute_of_the_conventions_has_the_name_of_a_secret():
    names = [value for value in vars(semconv).values() if isinstance(value, str)]
    assert len(names) > 50
    assert not [name for name in names if names_secret(name)]


def test_what_stands_beside_a_secret_stays_byte_for_byte():
    unknown = b"\x82\x4b\x03abc"  # field 1200
    plain = ExportTraceServiceRequest()
    plain.resource_spans.add(schema_url="https://a").scope_spans.add().spans.add(
        name="https://session token", start_time_unix_nano=3
    )
    before, after = plain.SerializeToString() + unknown, plain.SerializeToString()
    secret = span_request(KeyValue(key="password", value=AnyValue(string_value=CANARY)))
    kept = taken_out("traces", before + secret + after).body
    assert kept.startswith(before)
    assert kept.endswith(after)
    expected = span_request(KeyValue(key="password", value=AnyValue(string_value="[redacted]")))
    assert kept == before + expected + after


def test_long_records_keep_their_lengths_right():
    attributes = [
        KeyValue(key=f"k{number}", value=AnyValue(string_value="x" * 500)) for number in range(1000)
    ]
    attributes.append(KeyValue(key="note", value=AnyValue(string_value=SECRET)))
    kept = attributes_in(taken_out("traces", span_request(*attributes)).body)
    assert len(kept) == 1001
    assert kept["k999"].string_value == "x" * 500
    assert kept["note"].string_value == "failed with password=[redacted] twice"


def test_a_record_that_cannot_be_read_is_left_out_and_its_neighbours_go():
    good = ExportTraceServiceRequest()
    good.resource_spans.add().scope_spans.add().spans.add(name="load")
    broken = b"\x2a\x7fpassword"  # a name of 127 bytes, of which 8 are there
    scope = b"\x12" + bytes((len(broken),)) + broken
    group = b"\x12" + bytes((len(scope),)) + scope
    kept = taken_out("traces", good.SerializeToString() + b"\x0a" + bytes((len(group),)) + group)
    assert kept.unreadable == 1
    assert b"password" not in kept.body
    read = ExportTraceServiceRequest.FromString(kept.body)
    assert [span.name for one in read.resource_spans for two in one.scope_spans for span in two.spans] == [
        "load"
    ]


@pytest.mark.parametrize(
    ("body", "encoding"), [(b"\x0a\x05abc", "protobuf"), (b"{", "json"), (b"[" * 9999, "json")]
)
def test_a_request_that_cannot_be_read_does_not_go(body, encoding):
    kept = taken_out("metrics", body, encoding)
    assert (kept.body, kept.unreadable) == (b"", 1)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(body):
    for signal in REQUESTS:
        for encoding in ("protobuf", "json"):
            taken_out(signal, body, encoding)


def test_a_large_request_goes_in_many_pieces():
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(3_000):
        records.add().body.string_value = f"{'x' * 100} {SECRET}"
    records.add().body.string_value = "a key of auth " * 20_000
    body = request.SerializeToString()
    for encoding, said in (("protobuf", body), ("json", json_format.MessageToJson(request).encode())):
        pieces = redacted_request("logs", said, encoding)
        assert sum(1 for _ in pieces) > 30
    kept = ExportLogsServiceRequest.FromString(taken_out("logs", body).body)
    read = kept.resource_logs[0].scope_logs[0].log_records
    assert len(read) == 3_001
    assert read[3_000] == records[3_000]
    assert CANARY not in str(kept)


def test_base64_of_either_alphabet_is_read():
    content = b"\xfb\xff>? " + SECRET.encode()
    for text in (base64.b64encode(content), base64.urlsafe_b64encode(content).rstrip(b"=")):
        document = {
            "resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"bytesValue": text.decode()}}]}]}]
        }
        kept = json.loads(taken_out("logs", json.dumps(document).encode(), "json").body)
        held = kept["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"]["bytesValue"]
        assert base64.b64decode(held) == content.replace(CANARY.encode(), b"[redacted]")
