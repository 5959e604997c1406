"""The short way of reading log records of ours is the long way, faster."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import mapping, semconv
from otelprogress.model.fields import FLOATS, INTEGERS, TEXTS
from otelprogress_collector.receivers import known_attributes, shapes
from otelprogress_collector.receivers.attribute_values import attributes_of
from otelprogress_collector.receivers.known_attributes import KnownAttributes, Unusual
from otelprogress_collector.receivers.limits import DEFAULT_LIMITS
from otelprogress_collector.receivers.origin import Origin
from tests.collector.receivers.messages import Log, pb_log

ORIGIN = Origin("acme", {"service": "etl", "process_id": 77}, {"service.name": "etl", "process.pid": 77})

names = st.sampled_from(
    sorted(
        {text.attribute for text in TEXTS}
        | {attribute for _, attribute in FLOATS}
        | {attribute for _, attribute in INTEGERS}
        | {
            semconv.OPERATION_STATE,
            semconv.STEP_STATE,
            semconv.OPERATION_STALLED,
            semconv.OPERATION_STEPS,
            semconv.RESULT,
            semconv.EXCEPTION_TYPE,
            semconv.EXCEPTION_STACKTRACE,
            semconv.COUNTER_PREFIX + "rejected",
            semconv.COUNTER_PREFIX,
            semconv.ATTRIBUTE_PREFIX + "region",
            semconv.PREFIX + "of.the.future",
            "thread.name",
            "",
        }
    )
)
texts = st.sampled_from(
    [
        "",
        "running",
        "succeeded",
        "lost",
        "{row}",
        "load rows",
        "warning",
        "a\x1b[31mred\nline",
        "password=hunter22",
        "é" * 70,
        "x" * 2000,
    ]
)
values = (
    texts
    | st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=3)
    | st.lists(texts, max_size=2)
    | st.dictionaries(st.sampled_from("ab"), texts, max_size=2)
)
logs = st.builds(
    Log,
    event_name=st.sampled_from(sorted(mapping.KNOWN_EVENTS)),
    attributes=st.lists(st.tuples(names, values), max_size=8),
    trace_id=st.sampled_from([0, 1, 2**128 - 1]),
    span_id=st.sampled_from([0, 1, 2**64 - 1]),
    time_unix_nano=st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1]),
    observed_time_unix_nano=st.sampled_from([0, 5]),
    severity_number=st.sampled_from([0, 9, 13, 17, 24]),
    flags=st.sampled_from([0, 1, 257]),
)


def the_long_way(record):
    return mapping.event_from_log(
        record.event_name,
        attributes_of(record.attributes, DEFAULT_LIMITS),
        trace_id=int.from_bytes(record.trace_id, "big"),
        span_id=int.from_bytes(record.span_id, "big"),
        time_unix_ns=record.time_unix_nano or record.observed_time_unix_nano,
        resource=ORIGIN.resource,
        severity_number=record.severity_number,
        sampled=bool(record.flags & 1),
        tenant=ORIGIN.tenant,
    )


def same(one, other) -> bool:
    return repr(one) == repr(other)  # NaN is not equal to itself, but written alike


@settings(max_examples=300, deadline=None)
@given(st.lists(logs, max_size=4))
def test_both_ways_make_the_same_event(several):
    known = KnownAttributes(DEFAULT_LIMITS)
    for log in several + several:  # the second time from memory
        record = shapes.LogRecord.FromString(pb_log(log).SerializeToString())
        try:
            event = known.event(log.event_name, record, ORIGIN)
        except Unusual:
            continue
        assert same(event, the_long_way(record))


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)])
def test_any_integer_is_read(number):
    record = shapes.LogRecord.FromString(
        pb_log(Log(attributes=[(semconv.WRITER_SEQUENCE, number)])).SerializeToString()
    )
    event = KnownAttributes(DEFAULT_LIMITS).event(semconv.STEP_STARTED, record, ORIGIN)
    assert event.sequence == number


def test_a_whole_number_will_do_for_a_count_and_a_double_for_a_sequence():
    record = shapes.LogRecord.FromString(
        pb_log(
            Log(attributes=[(semconv.ITEMS_COMPLETED, 3), (semconv.WRITER_SEQUENCE, 4.0)])
        ).SerializeToString()
    )
    event = KnownAttributes(DEFAULT_LIMITS).event(semconv.STEP_STARTED, record, ORIGIN)
    assert (event.completed, event.sequence) == (3.0, 4)
    assert isinstance(event.completed, float)


@pytest.mark.parametrize("said", [[], [(semconv.MESSAGE_LEVEL, "info")], [(semconv.MESSAGE_LEVEL, None)]])
@pytest.mark.parametrize("severity", [0, 9, 13, 17])
@pytest.mark.parametrize("kind", [semconv.OPERATION_NOTED, semconv.STEP_STARTED])
def test_a_notes_level_is_the_one_that_is_said_or_that_of_its_severity(said, severity, kind):
    record = shapes.LogRecord.FromString(
        pb_log(Log(kind, said, severity_number=severity)).SerializeToString()
    )
    assert same(KnownAttributes(DEFAULT_LIMITS).event(kind, record, ORIGIN), the_long_way(record))


def test_a_long_note_takes_the_short_way_too():
    record = shapes.LogRecord.FromString(
        pb_log(Log(attributes=[(semconv.MESSAGE, "x" * 900)])).SerializeToString()
    )
    assert KnownAttributes(DEFAULT_LIMITS).event(semconv.OPERATION_NOTED, record, ORIGIN).message == "x" * 900


def test_what_hardly_comes_again_is_not_kept():
    known = KnownAttributes(DEFAULT_LIMITS)
    for number in range(50):
        log = Log(
            attributes=[
                (semconv.WRITER_SEQUENCE, number),
                (semconv.ITEMS_COMPLETED, math.pi * number),
                (semconv.MESSAGE, f"row {number}"),
                (semconv.STEP_NAME, "load"),
                (semconv.COUNTER_PREFIX + "bad", 1.0),
            ]
        )
        known.event(
            semconv.STEP_STARTED, shapes.LogRecord.FromString(pb_log(log).SerializeToString()), ORIGIN
        )
    assert len(known) == 2


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(known_attributes, "MAX_KEPT", 10)
    known = KnownAttributes(DEFAULT_LIMITS)
    for number in range(100):
        log = Log(attributes=[(semconv.STEP_NAME, f"step {number}")])
        event = known.event(
            semconv.STEP_STARTED, shapes.LogRecord.FromString(pb_log(log).SerializeToString()), ORIGIN
        )
        assert event.step_name == f"step {number}"
        assert len(known) <= 10


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x0a",
        b"\x0a\xff",
        b"\x0a\x1cotelprogress.items.completed",
        b"\x0a\x1cotelprogress.items.completed\x12",
        b"\x0a\x1cotelprogress.items.completed\x12\x09!\x00",
        b"\x0a\x14otelprogress.message\x12\x04\x0a\x02\xff\xfe",
        b"\x0a\x1cotelprogress.writer.sequence\x12\x0b\x18" + b"\xff" * 10,
    ],
)
def test_broken_attributes_go_the_long_way_which_refuses_or_ignores_them(raw):
    record = shapes.LogRecord(
        event_name=semconv.STEP_STARTED,
        trace_id=bytes(15) + b"\x01",
        span_id=bytes(7) + b"\x01",
        attributes=[raw],
    )
    known = KnownAttributes(DEFAULT_LIMITS)
    try:
        event = known.event(semconv.STEP_STARTED, record, ORIGIN)
    except Unusual:
        return
    assert same(event, the_long_way(record))


def test_values_behind_the_first_do_not_count_twice():
    # A KeyValue whose AnyValue says two things: the last one counts, as protobuf has it.
    double = b"!" + struct.pack("<d", 5.0)
    raw = b"\x0a\x1cotelprogress.items.completed\x12\x12" + double + b"!" + struct.pack("<d", 6.0)
    record = shapes.LogRecord(
        event_name=semconv.STEP_STARTED,
        trace_id=bytes(15) + b"\x01",
        span_id=bytes(7) + b"\x01",
        attributes=[raw],
    )
    assert KnownAttributes(DEFAULT_LIMITS).event(semconv.STEP_STARTED, record, ORIGIN).completed == 6.0


def test_too_many_attributes_are_refused_by_the_long_way():
    many = [b"\x0a\x01a"] * (DEFAULT_LIMITS.max_attributes + 1)
    with pytest.raises(InvalidRecord, match="1024 attributes"):
        attributes_of(many, DEFAULT_LIMITS)
