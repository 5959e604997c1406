"""The outer levels of a request: cut as protobuf reads them, and refused where they cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otelprogress_collector.receivers.frames import CHUNK_RECORDS, Frames
from otelprogress_collector.receivers.intake import BadRequest, TooLarge
from otelprogress_collector.receivers.limits import DEFAULT_LIMITS, Limits
from tests.collector.receivers.messages import Group, Log, protobuf


def parts(body: bytes, limits: Limits = DEFAULT_LIMITS) -> list:
    found = []
    for group in Frames(body, limits).groups():
        scopes = []
        for scope in group.scopes:
            records = [raw for chunk in scope.chunks for raw in chunk]
            scopes.append((scope.scope, records))
        found.append((group.resource, scopes))
    return found


def read_by_protobuf(body: bytes) -> list:
    return [
        (
            group.resource.SerializeToString(deterministic=True),
            [
                (
                    scope.scope.SerializeToString(deterministic=True),
                    [one.SerializeToString(deterministic=True) for one in scope.log_records],
                )
                for scope in group.scope_logs
            ],
        )
        for group in ExportLogsServiceRequest.FromString(body).resource_logs
    ]


sizes = st.lists(st.lists(st.integers(0, 300), max_size=3), max_size=3)


@given(sizes)
def test_the_parts_are_those_that_protobuf_reads(groups):
    body = protobuf("logs", *(Group([Log(body="x" * size) for size in one]) for one in groups))
    assert parts(body) == read_by_protobuf(body)


def test_an_empty_request_has_no_parts():
    assert parts(b"") == []


def test_fields_of_the_future_are_passed_over():
    request = ExportLogsServiceRequest.FromString(protobuf("logs", Group([Log()])))
    known = request.SerializeToString()
    future = b"\x1a\x03abc" + b"\x20\x96\x01" + b"\x29" + bytes(8) + b"\x35" + bytes(4)  # fields 3 to 6
    assert parts(future + known + future) == parts(known)


def test_the_parts_of_a_resource_that_comes_in_two_are_merged():
    first, second = b"\x0a\x02\x0a\x00", b"\x0a\x02\x18\x01"
    inner = first + second
    assert parts(b"\x0a" + bytes([len(inner)]) + inner) == [(b"\x0a\x00\x18\x01", [])]


def test_a_request_cut_short_is_refused_or_ends_between_two_groups():
    whole = protobuf("logs", Group([Log(body="one")]), Group([Log(body="two")]))
    boundary = next(iter(Frames(whole, DEFAULT_LIMITS).groups())).place[1]
    for length in range(1, len(whole)):
        if length == boundary:
            assert len(parts(whole[:length])) == 1
            continue
        with pytest.raises(BadRequest):
            parts(whole[:length])


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a length without an end
        b"\x0a\xff\xff\xff\xff\x0f",  # 4 GiB announced
        b"\x0b",  # a group, which protobuf 3 does not have
        b"\x06\x00",  # field 0
        b"\x1d\x00",  # four bytes announced, one there
        b"\x0a\x02\x12\x05",
    ],
)
def test_what_is_no_protobuf_is_refused(body):
    with pytest.raises(BadRequest):
        parts(body)


def test_records_are_counted_before_any_is_read():
    scope = b"\x12\x00" * 5_000
    raw_scope = b"\x12" + b"\x90\x4e" + scope
    body = b"\x0a" + b"\x93\x4e" + raw_scope
    assert len(parts(body)[0][1][0][1]) == 5_000
    with pytest.raises(TooLarge):
        parts(body, Limits(max_records=4_999))


def test_records_are_counted_over_all_scopes():
    body = protobuf("logs", Group([Log(), Log()]), Group([Log(), Log()]))
    assert parts(body, Limits(max_records=4))
    with pytest.raises(TooLarge):
        parts(body, Limits(max_records=3))


def test_groups_are_counted():
    with pytest.raises(TooLarge):
        parts(b"\x0a\x00" * 11, Limits(max_groups=10))


def test_records_come_some_at_a_time():
    body = protobuf("logs", Group([Log()] * (2 * CHUNK_RECORDS + 3)))
    (group,) = Frames(body, DEFAULT_LIMITS).groups()
    (scope,) = group.scopes
    assert [len(chunk) for chunk in scope.chunks] == [CHUNK_RECORDS, CHUNK_RECORDS, 3]


def test_a_scope_that_stands_behind_its_records_is_found():
    inner = b"\x12\x00" + b"\x0a\x03\x0a\x01s"
    body = b"\x0a" + bytes([len(inner) + 2]) + b"\x12" + bytes([len(inner)]) + inner
    assert parts(body) == [(b"", [(b"\x0a\x01s", [b""])])]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    try:
        parts(body, Limits(max_records=50, max_groups=20))
    except (BadRequest, TooLarge):
        return
