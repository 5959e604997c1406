"""What is said of a command that is not accepted names what programs call things, on one printable line."""

from __future__ import annotations

import json

import pytest

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.command_desk import CommandDesk
from otelprogress.protocol.command_judging import Asker
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import Command, Filter
from tests.model.saying import T0, Saying

HOSTILE = "stop\n\x1b[2J'; load-1 DONE\u202e"
PRINTABLE = "stop'; load-1 DONE"
"""A field's name is one line, or its form is none."""
FORM = {"type": "object", "properties": {PRINTABLE: {"type": "string"}, "day": {"enum": [HOSTILE]}}}


@pytest.mark.parametrize(
    ("action", "arguments", "status"),
    [
        ("pause", {}, "unsupported"),
        ("input", {"input_id": f"{HOSTILE}?", "content": "yes"}, "invalid"),
        ("input", {"content": "yes"}, "invalid"),
        ("input", {"content.other": "yes"}, "invalid"),
        ("input", {"content.day": "yes"}, "invalid"),
    ],
)
def test_a_refusal_is_one_printable_line_whatever_things_are_called(action, arguments, status):
    hub = Hub(OperationTree(), epoch="e", cursor_key=CursorKey(b"k" * 32))
    said = Saying(name=HOSTILE)
    hub.publish(said.started(controls=("cancel", HOSTILE)), T0)
    question = said.event(
        semconv.INPUT_REQUESTED,
        1,
        state=State.WAITING,
        input_id=HOSTILE,
        input_prompt=HOSTILE,
        input_schema=json.dumps(FORM),
    )
    hub.publish(question, T0)
    desk = CommandDesk(hub, lambda *_: True)
    asker = Asker(actor="ada", scopes=frozenset({"progress:control", "progress:respond"}), tenant="")
    command = Command(command_id="c1", operation=said.id, action=action, arguments=arguments)
    answer = desk.submit(command, asker, Matcher(Filter(roots=False)), T0)
    assert answer.status == status
    assert answer.message.isprintable(), answer.message
    assert "stop" in answer.message


@pytest.mark.parametrize("arguments", [{"content.other": "yes"}, {"content.day": "yes"}])
def test_a_form_with_a_field_that_is_not_named_in_one_line_is_not_relied_on_nor_quoted(arguments):
    hub = Hub(OperationTree(), epoch="e", cursor_key=CursorKey(b"k" * 32))
    said = Saying(name="load")
    hub.publish(said.started(), T0)
    form = json.dumps({"type": "object", "properties": {HOSTILE: {}, "day": {}}})
    asks = {"state": State.WAITING, "input_id": "in1", "input_prompt": "?", "input_schema": form}
    hub.publish(said.event(semconv.INPUT_REQUESTED, 1, **asks), T0)
    desk = CommandDesk(hub, lambda *_: True)
    asker = Asker(actor="ada", scopes=frozenset({"progress:respond"}), tenant="")
    command = Command(command_id="c1", operation=said.id, action="input", arguments=arguments)
    answer = desk.submit(command, asker, Matcher(Filter(roots=False)), T0)
    assert (answer.status, answer.message) == ("invalid", "the answer is a text, a number or a truth value")
