"""docs/protocol.md and docs/asyncapi.yaml say what the code does."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from otelprogress.protocol import messages
from otelprogress.protocol.close_codes import MEANINGS, CloseCode
from otelprogress.protocol.encoding import CLIENT_MESSAGES, HOST_MESSAGES, SERVER_MESSAGES, WORKER_MESSAGES
from tests.model import digest_grammar

from . import asyncapi_document
from .asyncapi_document import structs
from .feed_kit import Stage

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
SIDES = {
    "client": (CLIENT_MESSAGES, messages.ClientMessage),
    "server": (SERVER_MESSAGES, messages.ServerMessage),
    "worker": (WORKER_MESSAGES, messages.WorkerMessage),
    "host": (HOST_MESSAGES, messages.HostMessage),
}
FRAMES = re.findall(r"```json (\w+)\n(.*?)```", PAGE, re.DOTALL)
SHARED = {"worker": {"command_status"}, "host": {"drain", "error"}}
"""Shown once, with the feed."""
LIMIT_ROWS = {
    "frame before authentication": lambda limits: f"{limits.hello_frame_bytes // 1024} KiB",
    "client frame": lambda limits: f"{limits.client_frame_bytes // 1024} KiB",
    "server frame": lambda limits: f"{limits.server_frame_bytes // 1024} KiB",
    "nesting of JSON": lambda limits: str(limits.depth),
    "`hello`": lambda limits: f"within {limits.hello_timeout_s:g} s",
    "subscriptions of a connection": lambda limits: str(limits.subscriptions),
    "filter clauses (compared values)": lambda limits: str(limits.filter_clauses),
    "operations in a snapshot": lambda limits: f"{limits.operations:,}",
}


@pytest.mark.parametrize(("side", "frame"), FRAMES)
def test_an_example_frame_is_a_message_and_has_no_field_that_is_ignored(side: str, frame: str):
    message = SIDES[side][0].decode(frame)
    again = json.loads(msgspec.json.encode(message))
    _nothing_ignored(json.loads(frame), again, message)


def _nothing_ignored(shown: Any, understood: Any, struct: Any) -> None:
    if isinstance(shown, dict):
        defaults = (
            {field.encode_name for field in msgspec.structs.fields(struct)}
            if isinstance(struct, msgspec.Struct)
            else set()
        )
        for key, value in shown.items():
            if key not in understood:
                # Left out because it is the default, which the example may spell out.
                assert key in defaults, f"{key} is not a field of {type(struct).__name__}"
                continue
            inner = getattr(struct, "from_" if key == "from" else key, None)
            _nothing_ignored(value, understood[key], inner)
    elif isinstance(shown, list) and isinstance(struct, tuple):
        for one, two, inner in zip(shown, understood, struct, strict=True):
            _nothing_ignored(one, two, inner)
    else:
        assert shown == understood


def test_the_digest_that_is_shown_is_in_its_grammar():
    (text,) = [
        json.loads(frame)["text"] for side, frame in FRAMES if '"digest", "id"' in frame and side == "server"
    ]
    parsed = digest_grammar.parse(text)
    assert (parsed.why, [one.handle for one in parsed.operations]) == ("warning", ["nightly_load-2"])


def test_every_message_is_shown_with_all_its_fields():
    shown: dict[tuple[str, str], set[str]] = defaultdict(set)
    for side, frame in FRAMES:
        fields = json.loads(frame)
        shown[side, fields["type"]] |= set(fields)
    for side, (_, union) in SIDES.items():
        for struct in structs(union):
            tag = struct.__struct_config__.tag
            if tag in SHARED.get(side, ()):
                continue
            fields = {"type", *(field.encode_name for field in msgspec.structs.fields(struct))}
            assert shown[side, tag] == fields, f"{tag} of the {side}"


def test_the_filter_and_the_event_are_shown_with_all_their_fields():
    subscribe = next(
        json.loads(frame) for side, frame in FRAMES if '"subscribe"' in frame and side == "client"
    )
    assert set(subscribe["filter"]) == set(messages.Filter.__struct_fields__)
    events = next(json.loads(frame) for side, frame in FRAMES if '"events"' in frame and side == "server")
    from otelprogress.model.events import FeedEvent

    assert set(events["events"][0]) == set(FeedEvent.__struct_fields__) - {"gap"}


def test_the_example_dialogue_happens_like_that():
    stage = Stage()
    talk = stage.session(hello=False)
    (script,) = re.findall(r"```transcript\n(.*?)```", PAGE, re.DOTALL)
    heard: list[dict] = []
    for line in script.splitlines():
        who, _, text = line.partition(" ")
        if who == "#":
            stage.start(1)
            stage.tick(1, 50)
            stage.end(1)
            heard += talk.hear()
        elif who == "C":
            assert heard == [], "the page leaves out what the server said before"
            talk.raw(text)
            heard += talk.hear()
        else:
            said = heard.pop(0)
            for key, value in json.loads(text).items():
                assert key in said
                assert value in ("…", said[key])
    assert heard == []
    assert talk.closed is None


def test_the_close_codes_are_those_of_the_code():
    rows = dict(re.findall(r"^\| (\d{4}) \| (.*?) \|$", PAGE, re.MULTILINE))
    assert rows == {
        str(int(code)): meaning for code, meaning in MEANINGS.items() if code is not CloseCode.NORMAL
    }


def test_the_limits_are_those_of_the_code():
    limits = messages.Limits()
    shown = next(json.loads(frame)["limits"] for side, frame in FRAMES if '"limits"' in frame)
    assert shown == msgspec.to_builtins(limits)
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| [^|]+ \|$", PAGE, re.MULTILINE))
    assert {name: rows[name] for name in list(rows) if name in LIMIT_ROWS} == {
        name: text(limits) for name, text in LIMIT_ROWS.items()
    }


def test_error_codes_and_gap_reasons_are_all_named():
    for literal in (messages.ErrorCode, messages.GapReason, messages.CommandAnswer):
        for word in literal.__args__:
            assert f"`{word}`" in PAGE


def test_the_asyncapi_document_is_that_of_the_messages():
    assert asyncapi_document.PATH.read_text() == asyncapi_document.text()
    document = yaml.safe_load(asyncapi_document.PATH.read_text())
    named = set(document["components"]["messages"])
    assert named == {struct.__name__ for _, union in SIDES.values() for struct in structs(union)}
    text = json.dumps(document)
    for ref in set(re.findall(r'"#/(components/\w+/\w+)"', text)):
        _, kind, name = ref.split("/")
        assert name in document["components"][kind]
