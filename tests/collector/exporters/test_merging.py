from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelprogress_collector.exporters.merging import is_whole


def request_with(*names: str) -> bytes:
    request = ExportTraceServiceRequest()
    for name in names:
        request.resource_spans.add().scope_spans.add().spans.add(name=name)
    return request.SerializeToString()


def names_in(body: bytes) -> list[str]:
    return [
        span.name
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


requests = st.lists(st.text(max_size=200), max_size=5).map(lambda names: request_with(*names))


@settings(deadline=None)
@given(st.lists(requests, max_size=5))
def test_joined_requests_hold_the_records_of_each_in_order(bodies):
    assert all(is_whole(body) for body in bodies)
    assert names_in(b"".join(bodies)) == [name for body in bodies for name in names_in(body)]


@settings(deadline=None)
@given(requests, st.data())
def test_a_request_that_was_cut_is_whole_only_between_two_of_its_fields(body, data):
    cut = data.draw(st.integers(0, len(body)))
    if is_whole(body[:cut]):
        assert ExportTraceServiceRequest.FromString(body[:cut]) is not None


@settings(deadline=None)
@given(st.binary(max_size=50))
def test_any_bytes_can_be_asked_about_and_whole_ones_join(body):
    if is_whole(body):
        # Whatever it means, what follows begins where it ends.
        assert is_whole(body + request_with("next"))


def test_unknown_fields_of_every_kind_are_understood():
    varint, fixed64, fixed32 = b"\x80\x01\x05", b"\x81\x01" + bytes(8), b"\x85\x01" + bytes(4)
    assert is_whole(varint + fixed64 + fixed32 + request_with("a"))
    assert not is_whole(b"\x0b")  # a group: long gone from protobuf
    assert not is_whole(fixed64[:-1])
    assert not is_whole(fixed32[:-1])
    assert not is_whole(b"\x80\x01")


def test_a_request_of_thousands_of_fields_is_left_alone():
    assert is_whole(b"\x0a\x00" * 4_095)
    assert not is_whole(b"\x0a\x00" * 5_000)


def test_a_number_without_an_end_is_no_field():
    assert not is_whole(b"\xff" * 40)
