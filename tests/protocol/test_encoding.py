"""Frames to messages and back; what is too large, too deep or no message."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.model.events import FeedEvent, OperationView, State, StepView
from otelprogress.protocol.encoding import (
    CLIENT_MESSAGES,
    UnknownMessage,
    decode,
    depth,
    encode,
    encode_event,
    encode_operation,
)
from otelprogress.protocol.messages import Ack, Hello, Subscribe

VIEW = OperationView(id="r", handle="h", name="n", state=State.RUNNING, revision=1, as_of_unix_ns=1)


def client(frame: str | bytes, max_bytes: int = 4096):
    return decode(CLIENT_MESSAGES, frame, max_bytes=max_bytes)


def test_text_and_its_utf8_are_the_same_message():
    frame = '{"type":"hello","version":1,"client":"ü"}'
    assert client(frame) == client(frame.encode()) == Hello(version=1, client="ü")


def test_unknown_fields_are_ignored():
    assert client('{"type":"ack","id":"1","frames":2,"later":{"x":[1]}}') == Ack(id="1", frames=2)


def test_what_is_left_out_has_its_default():
    assert client('{"type":"subscribe","id":"1"}') == Subscribe(id="1")


def test_a_frame_over_the_limit_is_1009_counted_in_bytes():
    with pytest.raises(RemoteProtocolError) as caught:
        client('{"type":"hello","version":1,"client":"' + "ü" * 40 + '"}', max_bytes=100)
    assert caught.value.code == 1009


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "null",
        "[]",
        "1",
        '{"type":1}',
        '{"version":1}',
        "\udc80",
        b"\xff",
        '{"type":"hello"',
        "nan",
        "{]",
    ],
)
def test_what_is_no_message_is_4400(frame: str | bytes):
    with pytest.raises(RemoteProtocolError) as caught:
        client(frame)
    assert caught.value.code == 4400


def test_an_unknown_type_and_a_wrong_field_are_told_apart():
    with pytest.raises(UnknownMessage) as caught:
        client('{"type":"dance","id":"7"}')
    assert (caught.value.kind, caught.value.ref, caught.value.known) == ("dance", "7", False)
    with pytest.raises(UnknownMessage) as caught:
        client('{"type":"subscribe","id":"7","level":"all"}')
    assert (caught.value.kind, caught.value.ref, caught.value.known) == ("subscribe", "7", True)


def test_sixteen_levels_pass_and_seventeen_do_not():
    def nested(levels: int) -> str:
        return '{"type":"ack","id":"1","frames":1,"x":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"

    assert client(nested(16)) == Ack(id="1", frames=1)
    with pytest.raises(RemoteProtocolError, match="deeper than 16"):
        client(nested(17))


def test_brackets_inside_texts_do_not_nest():
    text = json.dumps("[" * 100 + '\\"{"')
    assert depth(text.encode()) == 0
    assert client('{"type":"hello","version":1,"client":' + text + "}").client.startswith("[[[")


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_the_depth_is_that_of_the_parsed_value(value: object):
    def real(value: object) -> int:
        if isinstance(value, list):
            return 1 + max(map(real, value), default=0)
        if isinstance(value, dict):
            return 1 + max(map(real, value.values()), default=0)
        return 0

    assert depth(json.dumps(value).encode()) == real(value)


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_no_input_raises_anything_else(frame: str | bytes):
    with contextlib.suppress(RemoteProtocolError):
        client(frame)


def test_an_event_too_large_for_a_frame_loses_its_longest_parts_and_says_so():
    steps = tuple(StepView(name="s" * 200, index=index) for index in range(256))
    view = msgspec.structs.replace(VIEW, steps=steps, attributes={"a": "x" * 60_000}, result="y" * 4000)
    small = msgspec.json.decode(encode_operation(view, 16_384), type=OperationView)
    assert (small.steps, small.steps_folded, small.attributes, small.result) == ((), 256, {}, None)
    event = FeedEvent(kind="operation.noted", operation=view, revision=1)
    assert len(encode_event(event, 16_384)) < 1000
    assert encode_event(event, 1 << 20) == encode(event)
