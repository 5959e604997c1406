from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress_collector.exporters.framing import (
    HEADER_BYTES,
    header_of,
    read_frame,
    scan,
    settled_frame,
)

MARKER = b"\xa1\x02\x03\x04"
requests = st.lists(st.tuples(st.binary(max_size=60), st.sampled_from(["protobuf", "json"])), max_size=6)


def written(bodies, marker: bytes = MARKER) -> bytes:
    return b"".join(
        header_of(marker, body, encoding, 1_000 + number) + body
        for number, (body, encoding) in enumerate(bodies)
    )


def found(data: bytes, marker: bytes = MARKER):
    """Body, encoding and time of what a scan finds, and how many damages."""
    result = scan(data, marker)
    frames = []
    for at, size in result.waiting:
        body, header = read_frame(data[at : at + size], marker)
        frames.append((body, header.encoding, header.accepted_unix_ns))
    return frames, result.damaged


def expected(bodies):
    return [(body, encoding, 1_000 + number) for number, (body, encoding) in enumerate(bodies)]


@settings(deadline=None)
@given(requests)
def test_what_was_written_is_found_in_order(bodies):
    assert found(written(bodies)) == (expected(bodies), 0)


@settings(deadline=None)
@given(requests)
def test_a_file_torn_at_any_byte_loses_nothing_but_the_frame_that_was_torn(bodies):
    data = written(bodies)
    ends = []
    for body, _ in bodies:
        ends.append((ends[-1] if ends else 0) + HEADER_BYTES + len(body))
    for cut in range(len(data)):
        whole = sum(end <= cut for end in ends)
        between = cut not in (0, *ends)
        assert found(data[:cut]) == (expected(bodies)[:whole], int(between))


@settings(deadline=None)
@given(requests.filter(bool), st.data())
def test_a_flipped_bit_costs_the_frame_it_is_in_and_no_other(bodies, data):
    content = bytearray(written(bodies))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    frames, damaged = found(bytes(content))
    start = 0
    for number, (body, _) in enumerate(bodies):
        end = start + HEADER_BYTES + len(body)
        if start <= at < end:
            hurt = number
        start = end
    assert frames == expected(bodies)[:hurt] + expected(bodies)[hurt + 1 :]
    assert damaged == 1


@settings(deadline=None)
@given(requests, st.binary(max_size=80))
def test_whatever_stands_before_them_frames_are_found(bodies, garbage):
    frames, damaged = found(garbage + written(bodies))
    assert frames == expected(bodies)
    assert damaged == int(bool(garbage))


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_can_be_scanned(data):
    frames, damaged = found(data)
    assert frames == []
    assert damaged == int(bool(data))


def test_a_client_cannot_smuggle_a_frame_in_a_body():
    fake = written([(b"smuggled", "protobuf")], b"\x09\x09\x09\x09")
    data = bytearray(written([(fake, "protobuf"), (b"next", "protobuf")]))
    data[0] ^= 0xFF  # the header that says where the body ends is gone
    assert found(bytes(data)) == ([(b"next", "protobuf", 1_001)], 1)


def test_a_settled_frame_is_skipped_and_its_body_is_gone():
    first = written([(b"canary", "protobuf")])
    rest = written([(b"next", "json")])
    data = settled_frame(MARKER, len(first)) + rest
    assert found(data) == ([(b"next", "json", 1_000)], 0)
    assert b"canary" not in data
    assert read_frame(data[: len(first)], MARKER) is None


def test_a_time_before_1970_does_not_break_the_frame():
    data = header_of(MARKER, b"x", "json", -5) + b"x"
    assert found(data) == ([(b"x", "json", 0)], 0)
