"""Frames on the wire: as `websockets` writes them, and made once for all who get the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from otelprogress_collector.api.wire import SharedWire, text_frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 300_000])
def test_a_frame_is_what_another_implementation_writes(size: int):
    payload = b"x" * size
    assert text_frames([payload]) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_several_frames_are_those_frames_one_after_the_other(payloads: list[bytes]):
    assert text_frames(payloads) == b"".join(text_frames([payload]) for payload in payloads)


def test_the_same_objects_are_encoded_once_until_the_pass_is_over():
    made = []

    def encode(payloads) -> bytes:
        made.append(payloads)
        return b"".join(payloads)

    wire = SharedWire(encode)
    one, two = b"one" * 9, b"two" * 9
    assert wire.of([one]) is wire.of([one])
    assert wire.of([one, two]) is wire.of([one, two])
    assert wire.of([two]) == two
    assert len(made) == 3
    wire.clear()
    wire.of([one])
    assert len(made) == 4


def test_objects_that_are_gone_are_not_taken_for_new_ones():
    wire = SharedWire()
    for number in range(2_000):
        payload = b"%d" % number * 40
        assert wire.of([payload]) == text_frames([payload])


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("otelprogress_collector.api.wire._MAX_BYTES", 10_000)
    wire = SharedWire()
    for number in range(100):
        wire.of([b"%d" % number * 1_000])
    assert wire._bytes < 20_000
