"""What becomes of OTLP requests, in both encodings alike."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from otelprogress.model import mapping, semconv
from otelprogress.model.events import Source, State, StepState
from otelprogress_collector.receivers import otlp_json
from otelprogress_collector.receivers.decoding import Decoder
from otelprogress_collector.receivers.intake import BadRequest, TooLarge
from otelprogress_collector.receivers.limits import Limits
from tests.collector.receivers.messages import (
    REQUESTS,
    START_NS,
    TRACE_ID,
    ASpan,
    Group,
    Log,
    SpanEvent,
    a_run,
    pb_attributes,
    protobuf,
    request,
    sender,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "otlp"
EXAMPLE_RUN = "5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174"

both = pytest.mark.parametrize("encoding", ["protobuf", "json"])


def decoder(*known: str, **said) -> Decoder:
    return Decoder(lambda run_id, _: run_id in known, **said)


def decode(signal, encoding, *groups, known=(), principal=None, **said):
    body = request(signal, encoding, *groups)
    return decoder(*known, **said).decode(signal, body, encoding, principal or sender())


def logs(encoding, *records, **said):
    return decode("logs", encoding, Group(list(records)), **said)


def spans(encoding, *records, **said):
    return decode("traces", encoding, Group(list(records)), **said)


def kinds(intake) -> list[str]:
    return [event.kind for event in intake.events]


# --- the examples of the specification ---------------------------------------------------------------------------


def test_the_example_of_logs_is_read():
    intake = decoder(EXAMPLE_RUN).decode("logs", (GOLDEN / "logs.json").read_bytes(), "json", sender())
    started, note, step = intake.events
    assert (intake.records, intake.rejected, intake.reason) == (3, 0, "")
    assert started.run_id == EXAMPLE_RUN
    assert (started.name, started.steps, started.step_weights) == (
        "invoices",
        ("collect", "send"),
        (1.0, 2.5),
    )
    assert (started.sequence, started.lease_s, started.process_id) == (1, 90.0, 4711)
    assert (note.message, note.level, note.source) == ("Example log record", "warning", Source.FOREIGN)
    assert (step.kind, step.step_name, step.total) == (semconv.STEP_STARTED, "collect", 12.0)
    assert {event.service for event in (started, step)} == {"billing"}


def test_the_example_of_traces_is_read():
    intake = decoder().decode("traces", (GOLDEN / "trace.json").read_bytes(), "json", sender())
    started, step, ended = intake.events
    assert intake.records == 2
    assert (started.title, started.parent_span_id, started.trace_state) == (
        "Invoices of May",
        "eee19b7ec3c1b174",
        "vendor=value",
    )
    assert (step.step_name, step.source) == ("collect", Source.SPAN_EVENT)
    assert (ended.state, ended.error_type, ended.completed) == (State.FAILED, "ValueError", 7.0)
    assert ended.counters == {"rejected": 2.0}


def test_the_example_of_metrics_is_read():
    body = (GOLDEN / "metrics.json").read_bytes()
    assert decoder().decode("metrics", body, "json", sender()).rejected == 0
    refused = decoder().decode("metrics", body, "json", sender(services=("other",)))
    assert (refused.rejected, refused.refused_groups) == (4, (0,))


@both
@pytest.mark.parametrize("signal", ["logs", "traces", "metrics"])
def test_an_empty_request_is_one_without_events(signal, encoding):
    bodies = {"protobuf": [b""], "json": [b"{}", b'{"resourceLogs":[]}', b'{"resourceSpans":null}']}
    for body in bodies[encoding]:
        intake = decoder().decode(signal, body, encoding, sender())
        assert (intake.events, intake.records, intake.rejected) == ([], 0, 0)
        assert not intake.conflated_only


# --- both encodings say the same -------------------------------------------------------------------------------

keys = st.sampled_from(
    [
        semconv.OPERATION_NAME,
        semconv.OPERATION_STEPS,
        semconv.OPERATION_STATE,
        semconv.STEP_NAME,
        semconv.STEP_INDEX,
        semconv.ITEMS_COMPLETED,
        semconv.WRITER_SEQUENCE,
        semconv.MESSAGE,
        semconv.RESULT,
        semconv.COUNTER_PREFIX + "bad",
        semconv.ATTRIBUTE_PREFIX + "region",
        semconv.EXCEPTION_TYPE,
        "event.name",
        "http.route",
        "",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "running", "failed", "load", "otelprogress.step.started", "a\nb", '{"a":1}', "é"])
    | st.binary(max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=3,
)
attributes = st.lists(st.tuples(keys, values), max_size=6)
ids = st.sampled_from([0, 1, 2, 3])
log_records = st.builds(
    Log,
    event_name=st.sampled_from(
        [*sorted(mapping.KNOWN_EVENTS), "", "cache.miss", "exception", "otelprogress.of.the.future"]
    ),
    attributes=attributes,
    trace_id=st.sampled_from([0, TRACE_ID]),
    span_id=ids,
    time_unix_nano=st.sampled_from([0, START_NS, 2**64 - 1]),
    observed_time_unix_nano=st.sampled_from([0, START_NS + 1]),
    severity_number=st.sampled_from([0, 9, 13, 17]),
    flags=st.sampled_from([0, 1]),
    body=values,
)
span_records = st.builds(
    ASpan,
    name=st.sampled_from(["import a", "import b", "GET /", ""]),
    attributes=attributes,
    trace_id=st.sampled_from([0, TRACE_ID]),
    span_id=ids,
    parent_span_id=ids,
    kind=st.integers(0, 6),
    start_time_unix_nano=st.sampled_from([0, START_NS, 2**64 - 1]),
    end_time_unix_nano=st.sampled_from([0, START_NS + 5, 2**63]),
    events=st.lists(
        st.builds(
            SpanEvent, st.sampled_from([semconv.STEP_STARTED, "exception", "hit"]), attributes=attributes
        ),
        max_size=2,
    ),
    status_code=st.integers(0, 3),
    status_message=st.sampled_from(["", "why"]),
    flags=st.sampled_from([0, 1, 0x100, 0x301]),
)
resources = st.lists(
    st.tuples(st.sampled_from(["service.name", "process.pid", "tenant", "x"]), scalars), max_size=3
)
principals = st.sampled_from(
    [sender(), sender(services=("load",)), sender(tenant_from="tenant"), sender(tenant="t")]
)


def groups(records):
    return st.lists(
        st.builds(
            Group,
            st.lists(records, max_size=4),
            resource=resources,
            scope=st.sampled_from(["", "otelprogress", "mcp-python-sdk", "flask"]),
        ),
        max_size=3,
    )


def without_reason(intake):
    return repr(msgspec.structs.replace(intake, reason=""))


@settings(max_examples=60, deadline=None)
@given(groups(log_records), principals)
def test_a_request_of_logs_means_the_same_in_both_encodings(several, principal):
    one, other = (
        decode("logs", encoding, *several, known=(a_run(2),), principal=principal)
        for encoding in ("protobuf", "json")
    )
    assert without_reason(one) == without_reason(other)


@settings(max_examples=60, deadline=None)
@given(
    groups(span_records), principals, st.sampled_from(["", "name=import *", "name=import a;children=steps"])
)
def test_a_request_of_spans_means_the_same_in_both_encodings(several, principal, rules):
    from otelprogress.model.rules import RuleSet, parse_rules

    one, other = (
        decode(
            "traces",
            encoding,
            *several,
            known=(a_run(2),),
            principal=principal,
            rules=RuleSet(parse_rules(rules)),
        )
        for encoding in ("protobuf", "json")
    )
    assert without_reason(one) == without_reason(other)


# --- log records ------------------------------------------------------------------------------------------------


@both
def test_a_log_event_of_ours_is_an_event_whoever_emits_it(encoding):
    intake = logs(
        encoding,
        Log(
            semconv.STEP_ENDED,
            [(semconv.STEP_NAME, "load"), (semconv.STEP_STATE, "succeeded"), (semconv.ITEMS_COMPLETED, 3)],
        ),
        principal=sender(tenant="acme"),
    )
    (event,) = intake.events
    assert (event.kind, event.run_id, event.step_state) == (semconv.STEP_ENDED, a_run(), StepState.SUCCEEDED)
    assert (event.completed, event.tenant, event.service, event.process_id) == (3.0, "acme", "etl", 77)
    assert event.source is Source.LOG


@both
def test_the_name_of_an_event_may_stand_in_an_attribute_as_older_sdks_send_it(encoding):
    intake = logs(encoding, Log("", [("event.name", semconv.STEP_STARTED), (semconv.STEP_NAME, "load")]))
    assert kinds(intake) == [semconv.STEP_STARTED]


@both
def test_the_time_of_observation_stands_in_for_a_time_that_is_missing(encoding):
    intake = logs(encoding, Log(semconv.STEP_STARTED, time_unix_nano=0, observed_time_unix_nano=START_NS + 7))
    assert intake.events[0].time_unix_ns == START_NS + 7


@both
def test_an_event_of_the_future_is_no_error_but_is_told(encoding):
    intake = logs(encoding, Log("otelprogress.operation.frozen"), Log(semconv.STEP_STARTED))
    assert (intake.rejected, kinds(intake)) == (0, [semconv.STEP_STARTED])
    assert intake.reason == "unknown event 'otelprogress.operation.frozen'"


@both
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([(semconv.ITEMS_COMPLETED, "three")], "must be a number"),
        ([(semconv.STEP_STATE, "sleeping")], "must be one of"),
        ([(semconv.OPERATION_STEPS, "load")], "must be a list"),
        ([(semconv.MESSAGE, ["a"])], "must be a string"),
        ([(semconv.COUNTER_PREFIX + "bad", None)], "must be a number"),
    ],
)
def test_a_record_that_breaks_the_conventions_is_refused_alone(encoding, said, reason):
    intake = logs(encoding, Log(semconv.STEP_STARTED, said), Log(semconv.STEP_STARTED))
    assert (intake.records, intake.rejected, len(intake.events)) == (2, 1, 1)
    assert reason in intake.reason


@both
def test_a_record_without_a_span_is_refused_alone(encoding):
    intake = logs(
        encoding,
        Log(semconv.STEP_STARTED, span_id=0),
        Log(semconv.STEP_STARTED, trace_id=0),
        Log(semconv.STEP_STARTED, time_unix_nano=2**64 - 1),
        Log(semconv.WRITER_ALIVE, [(semconv.WRITER_ID, "w")], trace_id=0, span_id=0),
    )
    assert (intake.rejected, kinds(intake)) == (3, [semconv.WRITER_ALIVE])


def test_ids_of_a_wrong_length_are_refused_alone():
    wrong = REQUESTS["logs"].FromString(protobuf("logs", Group([Log(semconv.STEP_STARTED)] * 4)))
    records = wrong.resource_logs[0].scope_logs[0].log_records
    records[0].trace_id = b"\x01" * 15
    records[1].span_id = b"\x01" * 9
    records[2].trace_id = b"\x01" * 1_000
    intake = decoder().decode("logs", wrong.SerializeToString(), "protobuf", sender())
    assert (intake.rejected, len(intake.events)) == (3, 1)

    as_json = json.loads(request("logs", "json", Group([Log(semconv.STEP_STARTED)] * 4)))
    records = as_json["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    records[0]["traceId"] = "ab" * 15
    records[1]["spanId"] = "not hexadecimal!"
    records[2]["traceId"] = 5
    intake = decoder().decode("logs", json.dumps(as_json).encode(), "json", sender())
    assert (intake.rejected, len(intake.events)) == (3, 1)


@both
def test_numbers_that_cannot_be_meant_are_left_to_the_host(encoding):
    intake = logs(
        encoding,
        *(
            Log(semconv.STEP_STARTED, [(semconv.ITEMS_COMPLETED, number)])
            for number in (float("nan"), -1.0, 1e300)
        ),
    )
    assert (intake.rejected, len(intake.events)) == (0, 3)


@both
def test_ticks_alone_are_marked_so(encoding):
    tick = Log(semconv.OPERATION_PROGRESSED, [(semconv.ITEMS_COMPLETED, 3.0)])
    alive = Log(semconv.WRITER_ALIVE, [(semconv.WRITER_ID, "w")])
    assert logs(encoding, tick, alive).conflated_only
    assert not logs(encoding, tick, Log(semconv.STEP_STARTED)).conflated_only
    assert not logs(encoding, tick, Log()).conflated_only
    assert not logs(encoding, tick, Log(semconv.OPERATION_PROGRESSED, span_id=0)).conflated_only


# --- notes ----------------------------------------------------------------------------------------------------------


@both
def test_what_other_code_logs_within_an_operation_is_a_note(encoding):
    intake = logs(
        encoding,
        Log("cache.miss", severity_number=13),
        Log(body="wrote 3 files"),
        Log("exception", [("exception.type", "KeyError"), ("exception.message", "'a'")]),
        Log(body="elsewhere", span_id=2),
        known=(a_run(),),
    )
    assert [(event.kind, event.message, event.level) for event in intake.events] == [
        (semconv.OPERATION_NOTED, "cache.miss", "warning"),
        (semconv.OPERATION_NOTED, "wrote 3 files", None),
        (semconv.OPERATION_NOTED, "KeyError: 'a'", "error"),
    ]
    assert {event.source for event in intake.events} == {Source.FOREIGN}
    assert intake.rejected == 0


@both
def test_plain_log_records_are_notes_only_where_that_is_wanted(encoding):
    records = [Log("cache.miss"), Log(body="wrote 3 files")]
    intake = logs(encoding, *records, known=(a_run(),), plain_logs_are_notes=False)
    assert [event.message for event in intake.events] == ["cache.miss"]


@both
def test_an_operation_that_starts_in_the_same_request_has_notes_too(encoding):
    intake = logs(
        encoding, Log(semconv.OPERATION_STARTED, [(semconv.OPERATION_NAME, "import")]), Log("cache.miss")
    )
    assert kinds(intake) == [semconv.OPERATION_STARTED, semconv.OPERATION_NOTED]


@both
def test_a_log_record_that_says_nothing_is_no_note(encoding):
    assert logs(encoding, Log(), Log(body={"a": 1}), known=(a_run(),)).events == []


# --- spans of ours ----------------------------------------------------------------------------------------------


@both
def test_the_span_of_a_known_operation_closes_it_and_says_no_more(encoding):
    span = ASpan(
        attributes=[(semconv.OPERATION_STATE, "cancelled"), (semconv.ITEMS_COMPLETED, 5.0)],
        events=[SpanEvent(semconv.STEP_STARTED, [(semconv.STEP_NAME, "load")])],
    )
    intake = spans(encoding, span, known=(a_run(),))
    (ended,) = intake.events
    assert (ended.kind, ended.state, ended.source) == (
        semconv.OPERATION_ENDED,
        State.CANCELLED,
        Source.SPAN_END,
    )
    assert ended.completed == 5.0


@both
def test_the_span_of_an_operation_that_was_never_heard_of_tells_all(encoding):
    span = ASpan(
        "nightly",
        attributes=[
            (semconv.OPERATION_STATE, "succeeded"),
            (semconv.OPERATION_ID, "job-7"),
            (semconv.OPERATION_STEPS, ["load", "check"]),
            (semconv.OPERATION_RATIO, 1.0),
            (semconv.RESULT, '{"rows": 3}'),
        ],
        events=[
            SpanEvent(semconv.STEP_STARTED, [(semconv.STEP_NAME, "load")], START_NS + 1),
            SpanEvent("cache.miss"),
        ],
        parent_span_id=9,
        kind=2,
    )
    started, step, ended = spans(encoding, span).events
    assert (started.kind, started.source, started.name) == (
        semconv.OPERATION_STARTED,
        Source.SPAN_END,
        "nightly",
    )
    assert (started.label, started.steps, started.state, started.ratio) == (
        "job-7",
        ("load", "check"),
        None,
        None,
    )
    assert (started.parent_span_id, started.span_kind, started.service) == (f"{9:016x}", "server", "etl")
    assert (step.step_name, step.source, step.time_unix_ns) == ("load", Source.SPAN_EVENT, START_NS + 1)
    assert (ended.state, ended.result, ended.time_unix_ns) == (
        State.SUCCEEDED,
        '{"rows":3}',
        START_NS + 10**9,
    )


@both
def test_a_span_of_ours_with_wrong_ids_or_attributes_is_refused_alone(encoding):
    own = [(semconv.OPERATION_STATE, "succeeded")]
    intake = spans(
        encoding,
        ASpan(attributes=own, span_id=0),
        ASpan(attributes=[*own, (semconv.OPERATION_STEPS, 3)], span_id=2),
        ASpan(attributes=own, start_time_unix_nano=2**64 - 1, span_id=3),
        ASpan(attributes=own, span_id=4),
    )
    assert intake.rejected == 3
    assert {event.run_id for event in intake.events} == {a_run(4), a_run(2)} - {a_run(2)}


@both
def test_other_spans_are_nothing(encoding):
    intake = spans(encoding, ASpan(), ASpan("GET /", [("http.route", "otelprogress.operation.state")]))
    assert (intake.events, intake.records, intake.rejected) == ([], 2, 0)


# --- who may write what ---------------------------------------------------------------------------------------------


def step() -> Log:
    return Log(semconv.STEP_STARTED)


@both
def test_a_token_writes_only_for_its_services(encoding):
    mine = Group([step()], [("service.name", "etl")])
    others = Group([step(), step()], [("service.name", "shop")])
    nameless = Group([step()], [])
    intake = decode("logs", encoding, others, mine, nameless, principal=sender(services=("etl", "web")))
    assert (len(intake.events), intake.rejected, intake.refused_groups) == (1, 3, (0, 2))
    assert intake.reason == "this token may not write the service 'shop'"


@both
def test_a_resource_that_names_two_services_is_refused_where_services_are_restricted(encoding):
    twice = Group([step()], [("service.name", "shop"), ("service.name", "etl")])
    assert decode("logs", encoding, twice, principal=sender(services=("etl",))).refused_groups == (0,)
    assert decode("logs", encoding, twice).rejected == 0


@both
def test_a_gateways_resources_name_their_tenants(encoding):
    groups = [
        Group([step()], [("service.name", "etl"), ("org", tenant)] if tenant is not None else [])
        for tenant in ("acme", "umbrella", None, "", 5, "a\nb", "x" * 200)
    ]
    intake = decode("logs", encoding, *groups, principal=sender(tenant="never", tenant_from="org"))
    assert [event.tenant for event in intake.events] == ["acme", "umbrella"]
    assert intake.refused_groups == (2, 3, 4, 5, 6)
    assert intake.reason == "the resource must name its tenant in 'org'"


@both
def test_the_same_span_ids_of_two_tenants_are_two_operations(encoding):
    started = Log(semconv.OPERATION_STARTED, [(semconv.OPERATION_NAME, "import")])
    intake = decode(
        "logs",
        encoding,
        Group([started], [("org", "acme")]),
        Group([Log("cache.miss")], [("org", "umbrella")]),
        principal=sender(tenant_from="org"),
    )
    assert kinds(intake) == [semconv.OPERATION_STARTED]


def test_refused_metrics_are_counted_by_data_points():
    message = REQUESTS["metrics"]()
    group = message.resource_metrics.add()
    group.resource.attributes.extend(pb_attributes([("service.name", "shop")]))
    metric = Metric(name="rows")
    metric.sum.data_points.add()
    metric.sum.data_points.add()
    empty = Metric(name="nothing")
    group.scope_metrics.add(metrics=[metric, metric, empty])
    body = message.SerializeToString()
    assert decoder().decode("metrics", body, "protobuf", sender()).records == 3
    intake = decoder().decode("metrics", body, "protobuf", sender(services=("etl",)))
    assert (intake.rejected, intake.refused_groups) == (4, (0,))


# --- bad input ------------------------------------------------------------------------------------------------------


def nested(depth: int, shape: str = "list"):
    value = "the bottom"
    for _ in range(depth):
        value = [value] if shape == "list" else {"k": value}
    return value


@both
@pytest.mark.parametrize("shape", ["list", "map"])
def test_nesting_is_limited_where_it_is_read_and_ignored_where_not(encoding, shape):
    intake = logs(
        encoding,
        Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, nested(17, shape))]),
        Log(semconv.STEP_STARTED, [("whatever", nested(17, shape))]),
        Log(semconv.STEP_STARTED),
    )
    assert (intake.rejected, len(intake.events)) == (1, 2)
    assert "nested 16 deep" in intake.reason


def deep_json(depth: int) -> bytes:
    value = '{"arrayValue":{"values":[' * depth + "{}" + "]}}" * depth
    attribute = f'{{"key":"{semconv.STEP_NAME}","value":{value}}}'
    good = f'{{"eventName":"otelprogress.step.started","traceId":"{1:032x}","spanId":"{1:016x}"}}'
    bad = good[:-1] + f',"attributes":[{attribute}]}}'
    return f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{bad},{good}]}}]}}]}}'.encode()


def test_json_nested_a_hundred_thousand_deep_is_refused_and_nothing_falls_over():
    with pytest.raises(BadRequest, match="too deep"):
        decoder().decode("logs", deep_json(100_000), "json", sender())
    with pytest.raises(BadRequest, match="too deep"):
        decoder().decode("metrics", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json", sender())


def test_json_nested_deeper_than_allowed_spoils_one_record_only():
    intake = decoder().decode("logs", deep_json(100), "json", sender())
    assert (intake.rejected, len(intake.events)) == (1, 1)


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def protobuf_with(attribute: bytes) -> bytes:
    record = field(12, semconv.STEP_STARTED.encode()) + field(9, b"\x01" * 16) + field(10, b"\x01" * 8)
    bad = record + field(6, attribute)
    return field(1, field(2, field(2, bad) + field(2, record)))


def test_protobuf_nested_ten_thousand_deep_spoils_one_record_only():
    value = b""
    for _ in range(5_000):
        value = field(5, field(1, value))
    key = field(1, semconv.STEP_NAME.encode())
    intake = decoder().decode("logs", protobuf_with(key + field(2, value)), "protobuf", sender())
    assert (intake.rejected, len(intake.events)) == (1, 1)


def test_in_protobuf_invalid_utf8_spoils_one_record_only():
    for attribute in (
        field(1, semconv.STEP_NAME.encode()) + field(2, field(1, b"\xff\xfe")),
        field(1, b"\xff\xfe") + field(2, field(1, b"x")),
        field(1, semconv.MESSAGE.encode()) + field(2, field(1, b"\xc3")),
    ):
        intake = decoder().decode("logs", protobuf_with(attribute), "protobuf", sender())
        assert (intake.rejected, len(intake.events)) == (1, 1)


@pytest.mark.parametrize("signal", REQUESTS)
@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"], ids=bytes.hex)
def test_json_that_is_no_utf8_is_no_request_wherever_that_stands(signal, bad):
    for template in ('{"schemaUrl":"PLACE"}', '{"a":{"b":["PLACE"]}}', '{"PLACE":1}', "{}PLACE"):
        body = template.encode().replace(b"PLACE", b"\xc3\xa4" + bad)
        with pytest.raises(BadRequest, match="no UTF-8"):
            decoder().decode(signal, body, "json", sender())


@pytest.mark.parametrize("signal", REQUESTS)
def test_json_with_half_of_a_surrogate_pair_is_no_request_wherever_that_stands(signal):
    for half in ("\\ud800", "\\ud800 and so on", "\\udc00"):
        with pytest.raises(BadRequest):
            decoder().decode(signal, f'{{"a":{{"b":["{half}"]}}}}'.encode(), "json", sender())


@pytest.mark.parametrize("character", ["ä", "€", "🎉"])
def test_characters_may_lie_across_the_slices_in_which_they_are_looked_at(character, monkeypatch):
    monkeypatch.setattr(otlp_json, "_UTF8_SLICE_BYTES", 3)
    body = request("logs", "json", Group([Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, "PLACE")])]))
    assert b"PLACE" in body
    whole = body.replace(b"PLACE", (character * 10).encode())
    [event] = decoder().decode("logs", whole, "json", sender()).events
    assert event.step_name == character * 10
    with pytest.raises(BadRequest, match="no UTF-8"):
        decoder().decode("logs", b'{"a":"' + character.encode()[:-1], "json", sender())


@both
def test_names_of_a_megabyte_are_cut(encoding):
    intake = logs(encoding, Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, "x" * 1_000_000)]))
    assert len(intake.events[0].step_name) == semconv.MAX_NAME_CHARS


@both
def test_a_record_with_too_many_attributes_is_refused_alone(encoding):
    many = [(f"a{number}", 1) for number in range(1_025)]
    intake = logs(encoding, Log(semconv.STEP_STARTED, many), Log(semconv.STEP_STARTED))
    assert (intake.rejected, len(intake.events)) == (1, 1)


@both
def test_too_many_records_or_events_are_too_much(encoding):
    with pytest.raises(TooLarge):
        logs(encoding, *[Log()] * 11, limits=Limits(max_records=10))
    with pytest.raises(TooLarge):
        logs(encoding, *[step()] * 11, limits=Limits(max_events=10))
    assert len(logs(encoding, *[step()] * 10, limits=Limits(max_records=10, max_events=10)).events) == 10


def test_json_with_too_many_values_is_refused_before_any_is_made():
    body = b'{"resourceLogs":[' + b"0," * 1_000 + b"0]}"
    with pytest.raises(TooLarge):
        decoder(limits=Limits(max_json_commas=999)).decode("logs", body, "json", sender())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"resourceLogs":{}}',
        b'{"resourceLogs":[7]}',
        b'{"resourceLogs":[{"scopeLogs":[[]]}]}',
        b'{"resourceLogs":[{"resource":{"attributes":[{"key":7}]}}]}',
        b"\xff\xfe{}",
        b"{} {}",
        b'{"a":NaN}',
        b"\x0a\x00",
    ],
)
def test_what_is_no_otlp_json_is_refused(body):
    with pytest.raises(BadRequest):
        decoder().decode("logs", body, "json", sender())


@pytest.mark.parametrize("body", [b"{}", b"GET / HTTP/1.1", b"\x0a\x05\x0a", b"\xff" * 64])
def test_what_is_no_protobuf_is_refused(body):
    with pytest.raises(BadRequest):
        decoder().decode("logs", body, "protobuf", sender())


def test_a_request_that_is_cut_short_anywhere_is_refused():
    for encoding in ("protobuf", "json"):
        whole = request("logs", encoding, Group([step(), step()]))
        for length in range(1, len(whole)):
            with pytest.raises(BadRequest):
                decoder().decode("logs", whole[:length], encoding, sender())


def test_a_resource_that_cannot_be_read_is_refused_with_its_records():
    record = field(2, field(2, field(12, semconv.STEP_STARTED.encode())))
    broken = field(1, field(1, field(1, b"\xff")) + record)
    intake = decoder().decode("logs", broken, "protobuf", sender())
    assert (intake.rejected, intake.refused_groups, intake.events) == (1, (0,), [])


def test_the_records_of_a_scope_that_cannot_be_read_are_refused():
    body = protobuf("traces", Group([ASpan(attributes=[(semconv.OPERATION_STATE, "failed")])], scope="PLACE"))
    intake = decoder().decode("traces", body.replace(b"PLACE", b"\xff" * 5), "protobuf", sender())
    assert (intake.records, intake.rejected, intake.events) == (1, 1, [])


fuzzed = (
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"\x0a", b"\x12", b"\x02", b"\x62", b"otelprogress.step.started"])).map(
        b"".join
    )
    | st.builds(
        lambda position, byte, whole: (
            whole[: position % len(whole)] + byte + whole[position % len(whole) + 1 :]
        ),
        st.integers(0, 10_000),
        st.binary(min_size=1, max_size=1),
        st.sampled_from(
            [
                request(
                    "logs", "protobuf", Group([Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, "load")])])
                ),
                request("logs", "json", Group([Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, "load")])])),
                request(
                    "traces", "protobuf", Group([ASpan(attributes=[(semconv.OPERATION_STATE, "failed")])])
                ),
                request("traces", "json", Group([ASpan(attributes=[(semconv.OPERATION_STATE, "failed")])])),
            ]
        ),
    )
)


@settings(max_examples=500, deadline=None)
@given(
    fuzzed,
    st.sampled_from(["logs", "traces", "metrics"]),
    st.sampled_from(["protobuf", "json"]),
    st.sampled_from([sender(), sender(services=("etl",)), sender(tenant_from="org")]),
)
def test_any_bytes_are_read_or_refused_as_bad_or_too_large(body, signal, encoding, principal):
    from otelprogress.model.rules import RuleSet, SpanRule

    rules = RuleSet([SpanRule("*", children="steps")])
    try:
        intake = Decoder(lambda *_: True, rules=rules).decode(signal, body, encoding, principal)
    except (BadRequest, TooLarge):
        return
    assert intake.rejected >= 0
