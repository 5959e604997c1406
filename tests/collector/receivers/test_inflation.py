"""gzip bodies: whole, joined, cut short, followed by rubbish, and bombs."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.receivers.inflation import MAX_MEMBERS, PIECE_BYTES, Inflater
from otelprogress_collector.receivers.intake import BadRequest, TooLarge


def inflate(*parts: bytes, max_bytes: int = 10**7) -> bytes:
    inflater = Inflater(max_bytes)
    inflated = b"".join(piece for part in parts for piece in inflater.feed(part))
    inflater.finish()
    return inflated


@given(st.binary(max_size=500), st.integers(1, 40))
def test_a_body_is_inflated_however_it_is_cut(content, size):
    packed = gzip.compress(content)
    assert inflate(*(packed[at : at + size] for at in range(0, len(packed), size))) == content


def test_joined_files_are_one_body():
    packed = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    assert inflate(packed) == b"one two"
    assert inflate(*(packed[at : at + 1] for at in range(len(packed)))) == b"one two"


def test_a_body_of_exactly_the_limit_is_taken():
    assert len(inflate(gzip.compress(bytes(5_000)), max_bytes=5_000)) == 5_000
    with pytest.raises(TooLarge):
        inflate(gzip.compress(bytes(5_001)), max_bytes=5_000)


def test_the_limit_counts_joined_files_together():
    with pytest.raises(TooLarge):
        inflate(gzip.compress(bytes(3_000)) * 2, max_bytes=5_000)


def test_a_bomb_of_a_thousand_to_one_costs_no_more_memory_than_the_limit():
    bomb = gzip.compress(bytes(64 * 1024 * 1024), 9)
    assert len(bomb) * 900 < 64 * 1024 * 1024
    inflater = Inflater(4 * PIECE_BYTES)
    largest = 0
    tracemalloc.start()
    with pytest.raises(TooLarge):
        for piece in inflater.feed(bomb):
            largest = max(largest, len(piece))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest <= PIECE_BYTES
    assert peak < 4 * PIECE_BYTES


@pytest.mark.parametrize("cut", [1, 5, 9, 10, 15, -1, -8])
def test_a_body_that_is_cut_short_is_refused(cut):
    with pytest.raises(BadRequest, match="cut short"):
        inflate(gzip.compress(b"a body with content")[:cut])


@pytest.mark.parametrize("rubbish", [b"x", b"\x00", b"\x00" * 512, b"\x1f\x8c", b"PK\x03\x04"])
def test_what_follows_the_last_file_is_refused(rubbish):
    with pytest.raises(BadRequest):
        inflate(gzip.compress(b"content") + rubbish)


@pytest.mark.parametrize(
    "body", [b"{}", b"\x1f\x8b\x08\x00" + b"\xff" * 40, b"\x78\x9c\x03\x00\x00\x00\x00\x01"]
)
def test_what_is_no_gzip_is_refused(body):
    with pytest.raises(BadRequest):
        inflate(body)


def test_a_wrong_checksum_is_refused():
    packed = bytearray(gzip.compress(b"content"))
    packed[-6] ^= 1
    with pytest.raises(BadRequest):
        inflate(bytes(packed))


def test_joined_files_are_counted():
    assert inflate(gzip.compress(b"") * MAX_MEMBERS) == b""
    with pytest.raises(BadRequest, match="joins more than"):
        inflate(gzip.compress(b"") * (MAX_MEMBERS + 1))


@given(st.binary(max_size=100))
def test_any_bytes_are_inflated_or_refused(body):
    try:
        inflate(b"\x1f\x8b\x08" + body, max_bytes=1_000)
    except (BadRequest, TooLarge):
        return
