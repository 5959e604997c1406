from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress.mcp import starting
from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.starting import Startable, Starter, arguments_of, check, read_commands

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DAY = {"type": "string", "pattern": r"\d{4}-\d\d-\d\d"}
NIGHTLY = Startable(command=("etl", "--day={day}"), schema={"day": DAY})

RECORDS = """
import json, os, sys
with open(os.environ["RECORD"], "w") as record:
    json.dump({"argv": sys.argv[1:], "trace": os.environ.get("TRACEPARENT"), "cwd": os.getcwd()}, record)
"""
FAILS = "import sys; print('no such program: etl', file=sys.stderr); raise SystemExit(127)"


def starter(tmp_path: Path, program: str = RECORDS, **commands: Startable) -> Starter:
    environment = {**os.environ, "RECORD": str(tmp_path / "record.json"), "TRACEPARENT": "00-stale"}
    return Starter(
        commands or {"nightly_load": NIGHTLY},
        environment=environment,
        runner=(sys.executable, "-c", program),
    )


def recorded(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "record.json").read_text())


async def test_a_command_is_run_detached_under_a_label_as_a_child_of_the_callers_trace(tmp_path):
    label = await starter(tmp_path).start("nightly_load", {"day": "2026-11-21"}, traceparent=TRACEPARENT)
    said = recorded(tmp_path)
    assert said["argv"] == [
        *("run", "--detach", "--id", label, "--name", "nightly_load", "--"),
        *("etl", "--day=2026-11-21"),
    ]
    assert label.startswith("nightly_load-")
    assert said["trace"] == TRACEPARENT


async def test_without_a_trace_context_none_is_made_up_and_none_is_inherited(tmp_path):
    await starter(tmp_path).start("nightly_load", {"day": "2026-11-21"})
    assert recorded(tmp_path)["trace"] is None


async def test_each_start_has_a_label_of_its_own(tmp_path):
    one = starter(tmp_path)
    labels = {await one.start("nightly_load", {"day": "2026-11-21"}) for _ in range(2)}
    assert len(labels) == 2


async def test_a_command_runs_where_its_operator_said(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    await starter(tmp_path, sync=Startable(command=("sync",), directory=str(folder))).start("sync", {})
    assert recorded(tmp_path)["cwd"] == str(folder)


async def test_what_could_not_be_started_is_said_in_its_own_words_as_data(tmp_path):
    with pytest.raises(Refusal, match='not started: exit code 127: "no such program: etl"'):
        await starter(tmp_path, FAILS).start("nightly_load", {"day": "2026-11-21"})


async def test_a_runner_that_is_not_there_is_a_refusal():
    with pytest.raises(Refusal, match="not started: No such file"):
        await Starter({"nightly": NIGHTLY}, runner=("/nowhere/otelprogress",)).start(
            "nightly", {"day": "2026-11-21"}
        )


async def test_a_start_that_says_nothing_in_time_is_said_to_be_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "STARTS_WITHIN_S", 0.05)
    slow = starter(tmp_path, "import time; time.sleep(1)")
    with pytest.raises(Refusal, match="not known whether it started"):
        await slow.start("nightly_load", {"day": "2026-11-21"})
    await slow.settle()


async def test_a_command_that_was_not_listed_is_refused_with_those_that_were(tmp_path):
    with pytest.raises(Refusal, match='unknown command "rm"; there are: nightly_load'):
        await starter(tmp_path).start("rm", {"day": "2026-11-21"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "day is missing"),
        ({"day": "tomorrow"}, "does not match"),
        ({"day": "2026-11-21; rm -rf /"}, "does not match"),
        ({"day": "2026-11-21\n"}, "does not match"),
        ({"day": 7}, "is a text"),
        ({"day": ["2026-11-21"]}, "is a text"),
        ({"day": "2026-11-21", "force": True}, 'has no "force"'),
    ],
)
def test_arguments_that_do_not_fit_their_schema_are_refused(given, words):
    with pytest.raises(Refusal, match="invalid arguments") as refused:
        arguments_of("nightly_load", NIGHTLY, given)
    assert words in str(refused.value)


def test_every_type_goes_into_an_argument_of_its_own():
    command = Startable(
        command=("p", "{n}", "--ratio={r}", "--full={full}", "--to={to}"),
        schema={
            "n": {"type": "integer", "minimum": 1},
            "r": {"type": "number", "default": 0.5},
            "full": {"type": "boolean", "default": False},
            "to": {"enum": ["a", "b"], "default": "a"},
        },
    )
    check("p", command)
    assert arguments_of("p", command, {"n": 3}) == ["p", "3", "--ratio=0.5", "--full=false", "--to=a"]
    given = {"n": 3, "r": 1, "full": True, "to": "b"}
    assert arguments_of("p", command, given) == ["p", "3", "--ratio=1", "--full=true", "--to=b"]
    with pytest.raises(Refusal, match="is at least 1"):
        arguments_of("p", command, {"n": 0})


def test_an_item_whose_optional_argument_was_not_given_is_left_out():
    command = Startable(
        command=("p", "--limit={limit}"), schema={"limit": {"type": "integer", "optional": True}}
    )
    check("p", command)
    assert arguments_of("p", command, {}) == ["p"]
    assert arguments_of("p", command, {"limit": 3}) == ["p", "--limit=3"]


def test_a_text_cannot_become_an_option_of_the_program():
    command = Startable(command=("p", "{name}"), schema={"name": {"type": "string", "pattern": "[a-z=-]+"}})
    with pytest.raises(Refusal, match="would be an option"):
        arguments_of("p", command, {"name": "--output=x"})


TEXT = {"type": "string", "pattern": "[a-z0-9=-]*"}


@pytest.mark.parametrize(
    ("item", "prefix", "given"),
    [
        ("{prefix}{name}", {"enum": ["", "x"]}, {"prefix": "", "name": "--rm=all"}),
        ("{prefix}{name}", TEXT, {"prefix": "", "name": "-f"}),
        ("{prefix}-{name}", {"enum": ["", "x"]}, {"prefix": "", "name": "-rm"}),
        ("{prefix}{name}", {"type": "integer"}, {"prefix": -9, "name": "x"}),
        ("{prefix}{name}", {"type": "number"}, {"prefix": -0.5, "name": ""}),
    ],
)
def test_nothing_but_what_its_operator_wrote_down_begins_an_option_though_something_empty_stands_before_it(
    item, prefix, given
):
    command = Startable(command=("p", item), schema={"prefix": prefix, "name": TEXT})
    check("p", command)
    with pytest.raises(Refusal, match="would be an option"):
        arguments_of("p", command, given)


def test_an_option_that_its_operator_wrote_down_can_be_chosen():
    command = Startable(
        command=("p", "{prefix}{flag}{name}"),
        schema={"prefix": TEXT, "flag": {"enum": ["--fast", ""]}, "name": TEXT},
    )
    check("p", command)
    assert arguments_of("p", command, {"prefix": "", "flag": "--fast", "name": ""}) == ["p", "--fast"]
    assert arguments_of("p", command, {"prefix": "", "flag": "", "name": ""}) == ["p", ""]
    assert arguments_of("p", command, {"prefix": "a", "flag": "--fast", "name": "b"}) == ["p", "a--fastb"]


def test_digits_of_a_pattern_are_those_of_ascii():
    command = Startable(command=("p", "{day}"), schema={"day": DAY})
    with pytest.raises(Refusal, match="does not match"):
        arguments_of("p", command, {"day": "\uff12\uff10\uff12\uff16-01-01"})


def test_no_pattern_is_tried_on_a_text_that_is_longer_than_any_argument():
    command = Startable(command=("p", "{name}"), schema={"name": {"type": "string", "pattern": "a*"}})
    assert arguments_of("p", command, {"name": "a" * 256}) == ["p", "a" * 256]
    with pytest.raises(Refusal, match="name has more than 256 characters"):
        arguments_of("p", command, {"name": "a" * 257})


def test_an_argument_stays_one_argument_whatever_is_in_it():
    command = Startable(command=("p", "{name}"), schema={"name": {"type": "string", "pattern": ".*"}})
    assert arguments_of("p", command, {"name": "a b; $(c) {day}"}) == ["p", "a b; $(c) {day}"]


@pytest.mark.parametrize(
    ("name", "command", "words"),
    [
        ("Nightly", NIGHTLY, "a name is"),
        ("p", Startable(command=()), "`command` is empty"),
        ("p", Startable(command=("{program}",), schema={"program": DAY}), "the program itself"),
        ("p", Startable(command=("p", "{day}")), "`schema` has no day"),
        ("p", Startable(command=("p",), schema={"day": DAY}), "no place for day"),
        ("p", Startable(command=("p", "{x}"), schema={"x": {"type": "string"}}), "free text is not taken"),
        ("p", Startable(command=("p", "{x}"), schema={"x": {}}), "needs `enum`, or a `type`"),
        ("p", Startable(command=("p", "{x}"), schema={"x": {"type": "object"}}), "x"),
        ("p", Startable(command=("p", "{x}"), schema={"x": {"type": "string", "pattern": "("}}), "`pattern`"),
        ("p", Startable(command=("p", "{x}"), schema={"x": {"anyOf": []}}), "may not hold"),
        ("p", Startable(command=("p", "{x}"), schema={"x": {"type": "integer", "default": "a"}}), "default"),
        ("p", Startable(command=("p",), directory="/nowhere"), "`directory`"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused_before_anything_starts(name, command, words):
    with pytest.raises(InvalidValue, match=f"commands.{name}: ") as refused:
        Starter({name: command})
    assert words in str(refused.value)


def test_a_listed_command_of_another_shape_is_named():
    with pytest.raises(InvalidValue, match="commands.x: .*unknown field `shell`"):
        read_commands({"x": {"command": ["p"], "shell": True}})
    with pytest.raises(InvalidValue, match="commands.x: "):
        read_commands({"x": {"command": "rm -rf /"}})
    assert read_commands({"x": {"command": ["p"]}}) == {"x": Startable(command=("p",))}
