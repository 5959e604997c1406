"""`cancel`, `pause`, `resume`, `signal`: what is sent, and what the shell and its reader are told."""

from __future__ import annotations

import json
import os

import msgspec
import pytest

from otelprogress.exceptions import AmbiguousOperation, FeedDenied, FeedUnavailable
from otelprogress.feed.discovery import FeedTarget
from otelprogress.model.events import FeedEvent, State
from otelprogress.protocol.messages import CommandStatus
from tests.cli.test_commands import HOSTILE, ended
from tests.visualization.screen import make_view, nightly_load

APPLIED = FeedEvent(kind="control.applied", operation=nightly_load(), control_id="c-1")
REFUSED = FeedEvent(
    kind="control.refused", operation=nightly_load(), control_id="c-1", control_refusal="expired"
)


@pytest.fixture
def running(shell):
    shell.client.views = {"nightly_load-2": nightly_load()}
    return shell


@pytest.mark.parametrize(
    ("command", "action"),
    [(["cancel", "ID"], "cancel"), (["pause", "ID"], "pause"), (["resume", "ID"], "resume")]
    + [(["signal", "ID", "snapshot"], "snapshot")],
)
def test_a_command_is_sent_and_its_effect_is_waited_for(running, command, action):
    running.client.became = APPLIED
    result = running(*(part.replace("ID", "nightly_load-2") for part in command), "--reason", "wrong day")
    assert (result.exit_code, result.stdout) == (0, f"nightly_load-2: {action} applied\n")
    (asked, _) = running.client.asked
    assert asked[:3] == ("command_and_wait", "nightly_load-2", action)
    assert (asked[3]["reason"], asked[3]["timeout_s"], asked[3]["deadline_s"]) == ("wrong day", 30.0, None)


def test_its_options_are_passed_on(running):
    running.client.became = APPLIED
    running("cancel", "nightly_load-2", "--timeout", "5", "--deadline", "4", "--expect-revision", "8")
    options = running.client.asked[0][3]
    assert (options["timeout_s"], options["deadline_s"], options["expect_revision"]) == (5.0, 4.0, 8)


def test_what_was_accepted_and_then_refused_is_a_failure(running):
    running.client.became = REFUSED
    result = running("pause", "nightly_load-2")
    assert (result.exit_code, result.stdout) == (1, "nightly_load-2: pause refused: expired\n")


def test_without_waiting_accepted_is_enough_and_is_not_called_applied(running):
    result = running("cancel", "nightly_load-2", "--no-wait")
    assert (result.exit_code, result.stdout) == (0, "nightly_load-2: cancel accepted\n")
    assert running.client.asked[0][0] == "command"


def test_a_command_that_is_not_applied_in_time_exits_with_124_and_says_that_it_may_be(running):
    result = running("cancel", "nightly_load-2", "--timeout", "2")
    assert (result.exit_code, result.stdout) == (124, "nightly_load-2: cancel accepted, not applied yet\n")
    assert result.stderr == "otelprogress: 2 s are over; it may still be applied\n"


@pytest.mark.parametrize("no_wait", [[], ["--no-wait"]])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("ended", 1),
        ("unsupported", 1),
        ("stale", 1),
        ("invalid", 2),
        ("not_found", 3),
        ("ambiguous", 3),
        ("no_worker", 4),
        ("overloaded", 1),
        ("forbidden", 5),
    ],
)
def test_each_answer_of_the_host_has_its_exit_code_and_its_words(running, status, code, no_wait):
    running.client.answer = CommandStatus(command_id="c-1", status=status, message="that is why")
    result = running("cancel", "nightly_load-2", *no_wait)
    assert (result.exit_code, result.stdout) == (
        code,
        f"nightly_load-2: cancel refused: {status}: that is why\n",
    )
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AmbiguousOperation("'x' can be a-1, a-2", ["a-1", "a-2"]), 3),
        (FeedUnavailable("nobody listens there"), 4),
        (FeedDenied("wrong token"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_where_nobody_could_be_told_the_exit_code_says_why(shell, error, code):
    shell.client.error = error
    assert shell("cancel", "x").exit_code == code


def test_what_nobody_knows_is_not_found(shell):
    assert shell("cancel", "nobody").exit_code == 3


def test_what_the_history_knows_to_have_ended_is_refused_as_ended(shell):
    shell.history.views = [ended(State.SUCCEEDED, handle="load-9")]
    result = shell("cancel", "load-9")
    assert (result.exit_code, result.stdout) == (1, "load-9: cancel refused: ended: succeeded\n")
    assert shell("cancel", "load-9", "--url", "ws://127.0.0.1:1").exit_code == 3


def test_what_runs_in_a_process_that_does_not_answer_is_not_said_to_have_no_feed(shell):
    shell.history.views = [make_view(1)]
    shell.client.unanswered = (FeedTarget(url="ws://127.0.0.1:9/v1/feed", pid=os.getpid()),)
    result = shell("cancel", "load-1")
    assert result.exit_code == 4
    assert (
        f"load-1 runs, but process {os.getpid()} at ws://127.0.0.1:9/v1/feed does not answer" in result.stderr
    )


def test_what_a_stopped_process_has_accepted_is_said_to_wait_for_it(running):
    view = msgspec.structs.replace(nightly_load(), process_id=os.getpid())
    running.client.views = {"nightly_load-2": view}
    running.client.unanswered = (
        FeedTarget(url="ws://127.0.0.1:9/v1/feed", pid=os.getpid()),
        FeedTarget(url="ws://127.0.0.1:7/v1/feed", pid=os.getppid()),
    )
    result = running("pause", "nightly_load-2", "--timeout", "2")
    assert result.exit_code == 124
    name = f"process {os.getpid()} at ws://127.0.0.1:9/v1/feed"
    (silent,) = result.stderr.splitlines()[1:]
    assert silent == f"otelprogress: {name} does not answer; a stopped one obeys when it goes on"


def test_what_runs_in_a_process_without_a_feed_cannot_be_told_anything(shell):
    shell.history.views = [make_view(1)]
    result = shell("cancel", "load-1")
    assert result.exit_code == 4
    assert "load-1 runs, but its process has no feed" in result.stderr


def test_a_feed_that_did_not_answer_is_not_explained_by_a_history_that_says_it_runs(shell):
    shell.client.error = FeedUnavailable("no answer; whether it was taken is not known")
    shell.history.views = [make_view(1)]
    result = shell("cancel", "load-1")
    assert result.exit_code == 4
    assert "whether it was taken is not known" in result.stderr


def test_as_json_it_is_one_object_with_what_became_of_it(running):
    running.client.became = REFUSED
    result = running("cancel", "nightly_load-2", "--json")
    said = json.loads(result.stdout)
    assert result.exit_code == 1
    assert {name: said[name] for name in ("command_id", "action", "status", "applied", "refusal")} == {
        "command_id": "c-1",
        "action": "cancel",
        "status": "accepted",
        "applied": False,
        "refusal": "expired",
    }
    assert said["operation"]["handle"] == "nightly_load-2"


def test_what_a_program_says_in_a_refusal_cannot_steer_the_terminal(running):
    running.client.became = msgspec.structs.replace(REFUSED, control_refusal=HOSTILE)
    output = running("signal", "nightly_load-2", HOSTILE).stdout
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(output)
    assert len(output.splitlines()) == 1
