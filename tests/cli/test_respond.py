"""`respond`: the answer as it is sent, and the question as it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otelprogress.model.events import FeedEvent, State
from otelprogress.protocol.messages import CommandStatus
from tests.cli.test_commands import ended
from tests.visualization.screen import make_view

ASKING = make_view(
    1,
    handle="train-1",
    state=State.WAITING,
    input_id="in1",
    input_prompt="lr?",
    input_schema=json.dumps({"enum": ["halve", "stop"]}),
    input_default='"halve"',
)


@pytest.fixture
def asking(shell):
    shell.client.views = {"train-1": ASKING}
    shell.client.became = FeedEvent(kind="control.applied", operation=ASKING)
    return shell


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["halve"], {"content": "halve"}),
        (["in1", "halve"], {"input_id": "in1", "content": "halve"}),
        (["--", "-0.5"], {"content": "-0.5"}),
        ([""], {"content": ""}),
        (["--field", "lr=0.1", "--field", "why=a=b"], {"content.lr": "0.1", "content.why": "a=b"}),
        (["in1", "--field", "lr="], {"input_id": "in1", "content.lr": ""}),
    ],
)
def test_an_answer_is_sent_as_the_command_input(asking, words: list[str], arguments: dict[str, Any]):
    result = asking("respond", "train-1", *words)
    assert (result.exit_code, result.stdout) == (0, "train-1: answer applied\n")
    (call, operation, action, options) = asking.client.asked[0]
    assert (call, operation, action) == ("command_and_wait", "train-1", "input")
    assert options["arguments"] == arguments


@pytest.mark.parametrize(
    "words",
    [
        ["in1", "a", "b"],
        ["in1", "a", "--field", "lr=1"],
        ["--field", "lr"],
        ["--field", "=1"],
        ["--field", "lr=1", "--field", "lr=2"],
    ],
)
def test_an_answer_that_cannot_be_meant_is_a_usage_error_and_nothing_is_sent(asking, words: list[str]):
    assert asking("respond", "train-1", *words).exit_code == 2
    assert asking.client.asked == []


def test_a_wrong_answer_is_told_what_would_do(asking):
    asking.client.answer = CommandStatus(
        command_id="c-1", status="invalid", message='the answer is one of "halve", "stop"'
    )
    asking.client.became = None
    result = asking("respond", "train-1", "double")
    assert result.exit_code == 2
    assert result.stdout == 'train-1: answer refused: invalid: the answer is one of "halve", "stop"\n'


@pytest.mark.parametrize("no_wait", [[], ["--no-wait"]])
def test_an_answer_where_nothing_is_asked_is_no_usage_error(shell, no_wait: list[str]):
    shell.client.views = {"load-1": make_view(1)}
    message = "load-1 asks nothing at the moment"
    shell.client.answer = CommandStatus(command_id="c-1", status="invalid", message=message)
    result = shell("respond", "load-1", "halve", *no_wait)
    assert (result.exit_code, result.stdout) == (1, f"load-1: answer refused: invalid: {message}\n")


def test_without_an_answer_the_question_is_shown_and_nothing_is_sent(asking):
    result = asking("respond", "train-1")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        ['train-1: asks    in1 "lr?"', '  answer  one of "halve", "stop"', '  default "halve"'],
    )
    assert [call[0] for call in asking.client.asked] == ["get"]


def test_who_asks_nothing_says_so(shell):
    shell.client.views = {"load-1": make_view(1), "load-2": ended(State.FAILED, handle="load-2")}
    result = shell("respond", "load-1")
    assert (result.exit_code, result.stdout) == (1, "load-1: asks nothing\n")
    assert shell("respond", "load-2").stdout == "load-2: asks nothing, it has ended: failed\n"
