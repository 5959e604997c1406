from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from otelprogress.cli import wait, watch
from otelprogress.exceptions import (
    AmbiguousOperation,
    FeedDenied,
    FeedUnavailable,
    IllegalTransition,
    InvalidValue,
    UnknownOperation,
    WaitTimeout,
)
from otelprogress.feed.discovery import FeedTarget
from otelprogress.model.events import FeedEvent, State, StepState, StepView
from tests.visualization.screen import NOW, SECOND, make_view, nightly_load

HOSTILE = "a\r\nb\x1b]52;c;aGk=\x07\x1b[31mred\x1b[0m\x9b2J\u202eevil[bold red]x[/]"


def ended(state: State, **changes: object):
    return msgspec.structs.replace(make_view(1), state=state, ended_at_unix_ns=NOW, **changes)


def test_the_version_is_the_distributions(shell):
    result = shell("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("otelprogress 0.")


def test_no_command_shows_the_help(shell):
    assert "Commands:" in shell().output


def test_an_unknown_option_is_a_usage_error(shell):
    assert shell("list", "--nonsense").exit_code == 2


# --- list --------------------------------------------------------------------------------------------------
def test_list_shows_what_runs_and_then_what_ended(shell):
    shell.client.views = {"nightly_load-2": nightly_load()}
    shell.history.views = [
        ended(State.LOST, handle="nightly_load-1", ratio=0.18, lost_cause="SIGKILL (exit 137)", service="etl")
    ]
    lines = shell("list").stdout.splitlines()
    assert lines[0].split() == ["ID", "STATE", "DONE", "ETA", "STEP", "AGE", "SERVICE"]
    assert lines[1].split()[:3] == ["nightly_load-2", "running", "67%"]
    assert "3/3 load" in lines[1]
    assert lines[2].split()[:4] == ["nightly_load-1", "lost", "18%", "-"]
    assert lines[2].endswith("SIGKILL (exit 137)")


def test_list_as_json_has_one_object_a_line_with_the_promised_members(shell):
    shell.client.views = {"nightly_load-2": nightly_load()}
    (line,) = shell("list", "--json").stdout.splitlines()
    found = json.loads(line)
    assert {"handle", "id", "name", "state", "ratio", "eta", "step", "age", "service"} <= found.keys()
    assert (found["handle"], found["state"], found["ratio"], found["eta"], found["step"]) == (
        "nightly_load-2",
        "running",
        0.67,
        [61, 119],
        "load",
    )


def test_list_names_an_operation_once_though_the_history_has_it_too(shell):
    shell.client.views = {"load-1": make_view(1)}
    shell.history.views = [make_view(1)]
    assert len(shell("list", "--json").stdout.splitlines()) == 1


def test_list_live_leaves_out_what_ended(shell):
    shell.client.views = {"load-1": ended(State.FAILED), "load-2": make_view(2)}
    assert [json.loads(line)["handle"] for line in shell("list", "--json", "--live").stdout.splitlines()] == [
        "load-2"
    ]


def test_list_of_nothing_says_so_beside_the_output(shell):
    result = shell("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "doctor" in result.stderr


def test_list_shows_what_runs_in_a_process_that_has_no_feed(shell):
    shell.history.views = [make_view(1), ended(State.FAILED, id="b", handle="load-9")]
    assert [json.loads(line)["handle"] for line in shell("list", "--json").stdout.splitlines()] == [
        "load-1",
        "load-9",
    ]
    assert [json.loads(line)["handle"] for line in shell("list", "--json", "--live").stdout.splitlines()] == [
        "load-1"
    ]


def test_list_believes_the_feed_where_the_history_is_behind(shell):
    shell.client.views = {"load-1": ended(State.FAILED)}
    shell.history.views = [make_view(1)]
    (line,) = shell("list", "--json").stdout.splitlines()
    assert json.loads(line)["state"] == "failed"


def test_list_says_which_process_does_not_answer_and_never_that_nothing_runs(shell):
    shell.client.unanswered = (FeedTarget(url="ws://127.0.0.1:9", pid=123, service="etl\x1b[31m"),)
    result = shell("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "process 123 (etl" in result.stderr
    assert "does not answer" in result.stderr
    assert "\x1b" not in result.stderr
    assert "nothing runs" not in result.stderr


def test_list_passes_the_name_on(shell):
    shell("list", "--name", "night*", "--children")
    assert shell.client.asked == [("list", "night*", {"roots": False})]


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show", "load-1"], ["tail"], ["watch"]])
def test_names_cannot_steer_the_terminal(shell, command):
    view = make_view(
        1, name=HOSTILE, title=HOSTILE, service=HOSTILE, label=HOSTILE, message=HOSTILE, controls=(HOSTILE,)
    )
    view = msgspec.structs.replace(view, state=State.FAILED, ended_at_unix_ns=NOW, error_message=HOSTILE)
    shell.client.views = {"load-1": view}
    shell.client.events = [FeedEvent(kind="operation.noted", operation=view, message=HOSTILE)]
    output = shell(*command).stdout
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(output)
    assert "evil" in output


# --- show --------------------------------------------------------------------------------------------------
def test_show_tells_all_of_one_operation(shell):
    shell.client.views = {"nightly_load-2": nightly_load()}
    output = shell("show", "nightly_load-2").stdout
    for text in (
        "nightly load 2026-11-21",
        "67%",
        '1/3 "extract" succeeded in 58s',
        "61.2k/120k row",
        "cancel, pause",
    ):
        assert text in output


def test_show_finds_what_ended_in_the_history(shell):
    shell.history.views = [ended(State.LOST, handle="load-9", lost_detector="pid")]
    result = shell("show", "load-9")
    assert result.exit_code == 0
    assert "lost after" in result.stdout


def test_show_as_json_is_the_view(shell):
    shell.client.views = {"nightly_load-2": nightly_load()}
    assert msgspec.json.decode(
        shell("show", "nightly_load-2", "--json").stdout, type=type(nightly_load())
    ) == (nightly_load())


# --- wait --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("state", "code"), [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.LOST, 1), (State.CANCELLED, 6)]
)
def test_wait_exits_as_the_operation_ended(shell, state, code):
    shell.client.views = {"load-1": ended(state)}
    result = shell("wait", "load-1", "--until", "end", "--timeout", "5")
    assert result.exit_code == code
    assert result.stdout.startswith(f"load-1 {state}")
    assert shell.client.asked[0] == ("wait", "load-1", "end", 5.0, None)


def test_waiting_for_a_step_is_no_failure_while_it_goes_on(shell):
    shell.client.views = {"nightly_load-2": nightly_load()}
    result = shell("wait", "nightly_load-2", "--until", "step")
    assert result.exit_code == 0
    assert (
        result.stdout
        == "nightly_load-2 running at 67%, eta 1-2m; step 3/3 load 61.2k/120k row (51%) 2.0k/s\n"
    )


def test_waiting_for_what_ended_before_answers_from_the_history(shell):
    shell.history.views = [ended(State.FAILED, handle="load-9")]
    assert shell("wait", "load-9").exit_code == 1


def test_waiting_for_what_only_the_history_knows_goes_on_until_it_has_ended(shell, monkeypatch):
    monkeypatch.setattr(wait, "LOOK_EVERY_S", 0.0)
    shell.history.views = [make_view(1)]
    shell.history.later = [[make_view(1, revision=9)], [ended(State.FAILED)]]
    result = shell("wait", "load-1", "--until", "end", "--timeout", "60", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["why"] == "failed"
    assert shell.history.looks == 3
    assert [call[0] for call in shell.client.asked].count("wait") == 3


def test_a_wait_for_what_only_the_history_knows_is_over_in_time(shell):
    shell.history.views = [make_view(1)]
    result = shell("wait", "load-1", "--until", "end", "--timeout", "0")
    assert result.exit_code == 124
    assert result.stdout.startswith("load-1 running")


@pytest.mark.parametrize(
    ("until", "change", "why"),
    [
        ("step", {"steps": (StepView(index=0, name="extract", state=StepState.RUNNING),)}, "step"),
        ("attention", {"warnings": 1}, "warning"),
        ("attention", {"stalled": True}, "stalled"),
        ("change", {"message": "half way"}, "changed"),
    ],
)
def test_two_looks_at_the_history_tell_what_happened_between_them(shell, monkeypatch, until, change, why):
    monkeypatch.setattr(wait, "LOOK_EVERY_S", 0.0)
    before = make_view(1)
    shell.history.views = [before]
    moved = msgspec.structs.replace(before, revision=8, as_of_unix_ns=NOW + 1)
    shell.history.later = [[moved], [msgspec.structs.replace(moved, revision=9, **change)]]
    result = shell("wait", "load-1", "--until", until, "--json")
    assert json.loads(result.stdout)["why"] == why
    assert shell.history.looks == 3


def test_a_wait_that_is_over_exits_with_124_and_says_how_it_stands(shell):
    shell.client.views = {"nightly_load-2": nightly_load()}
    shell.client.reason = "timeout"
    result = shell("wait", "nightly_load-2", "--timeout", "5")
    assert result.exit_code == 124
    assert result.stdout.startswith("nightly_load-2 running at 67%")
    assert result.stderr == "otelprogress: 5 s are over; the operation goes on\n"


def test_wait_as_json_says_why_and_where_to_go_on(shell):
    shell.client.views = {"load-1": ended(State.FAILED)}
    found = json.loads(shell("wait", "load-1", "--json").stdout)
    assert (found["why"], found["cursor"], found["operation"]["state"]) == ("ended", "c1", "failed")


def test_without_any_feed_what_the_history_does_not_know_is_no_feed(shell):
    shell.client.error = FeedUnavailable("no process of yours has a feed open")
    assert shell("wait", "load-9").exit_code == 4
    assert shell("show", "load-9").exit_code == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownOperation("no operation 'x'"), 3),
        (AmbiguousOperation("'x' can be a-1, a-2", ["a-1", "a-2"]), 3),
        (FeedUnavailable("nobody listens there"), 4),
        (FeedDenied("wrong token"), 5),
        (WaitTimeout("5 s are over"), 124),
        (InvalidValue("no such thing"), 2),
        (IllegalTransition("it", "a", "b"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code_and_one_line(shell, error, code):
    shell.client.error = error
    result = shell("wait", "x", "--url", "ws://127.0.0.1:1")
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == (0 if code == 130 else 1)


# --- tail and watch ------------------------------------------------------------------------------------------
def test_tail_prints_one_event_a_line_with_the_cursor_to_go_on_from(shell):
    shell.client.events = [
        FeedEvent(kind="operation.started", operation=make_view(1), revision=1),
        FeedEvent(kind="operation.ended", operation=ended(State.SUCCEEDED), revision=2),
    ]
    lines = [json.loads(line) for line in shell("tail", "--level", "milestones").stdout.splitlines()]
    assert [(line["kind"], line["cursor"]) for line in lines] == [
        ("operation.started", "c1"),
        ("operation.ended", "c2"),
    ]
    assert lines[1]["operation"]["state"] == "succeeded"


def test_tail_passes_its_options_on(shell):
    shell("tail", "--name", "a*", "--level", "ticks", "--cursor", "abc", "--max-rate", "2", "--roots")
    ((_, name, options),) = shell.client.asked
    assert (name, options["level"], options["cursor"], options["max_rate_hz"], options["roots"]) == (
        "a*",
        "ticks",
        "abc",
        2.0,
        True,
    )


def test_what_an_empty_watch_says_fits_a_terminal_of_80_columns():
    assert len(watch.NOTHING_YET) < 80


def test_watch_in_a_pipe_prints_milestones_as_lines(shell):
    shell.client.events = [
        FeedEvent(kind="operation.started", operation=nightly_load()),
        FeedEvent(kind="operation.progressed", operation=nightly_load()),
        FeedEvent(
            kind="step.ended",
            operation=nightly_load(),
            step=msgspec.structs.replace(nightly_load().steps[1], completed=12.0),
        ),
        FeedEvent(kind="operation.ended", operation=ended(State.LOST, lost_cause="SIGKILL", ratio=0.18)),
    ]
    assert shell("watch").stdout.splitlines() == [
        'nightly_load-2 started "nightly load 2026-11-21"',
        "nightly_load-2 step 2/3 clean succeeded in 2m40s, 12; 67% done, eta 1-2m",
        'load-1 lost after 1m40s at 18%: "SIGKILL"',
    ]


# --- tokens ------------------------------------------------------------------------------------------------
def test_a_token_file_that_cannot_be_read_is_a_usage_error(shell, tmp_path: Path):
    result = shell("list", "--url", "ws://127.0.0.1:1", "--token-file", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "--token-file" in result.stderr


def test_an_empty_token_file_is_a_usage_error(shell, tmp_path: Path):
    (tmp_path / "token").write_text("\n")
    assert shell("list", "--token-file", str(tmp_path / "token")).exit_code == 2


def test_ages_in_lines_are_whole(shell):
    shell.client.views = {"load-1": make_view(1, started_at_unix_ns=NOW - 26 * 3600 * SECOND)}
    assert shell("list").exit_code == 0
