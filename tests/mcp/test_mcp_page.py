"""docs/mcp.md says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import cast

from otelprogress.mcp import calls, tools, updates, waits
from otelprogress.mcp.calls import Calls
from otelprogress.mcp.source import Source
from otelprogress.mcp.starting import Starter, arguments_of, read_commands

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text(encoding="utf-8")


def test_the_table_has_every_tool_with_every_argument():
    example = read_commands(tomllib.loads(toml())["commands"])
    # Its folder is not on this machine.
    listed = Starter({name: type(one)(command=("true",)) for name, one in example.items()})
    there = {
        name: row.arguments.__struct_fields__
        for name, row in tools.rows(Calls(cast("Source", None), starter=listed)).items()
    }
    said = {
        name: tuple(re.findall(r"`(\w+)`", arguments))
        for name, arguments in re.findall(r"^\| `(progress_\w+)` \| ([^|]*) \|", PAGE, re.MULTILINE)
    }
    assert said == {name: tuple(fields) for name, fields in there.items()}


def toml() -> str:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    return block


def test_the_example_of_a_command_can_be_started():
    command = read_commands(tomllib.loads(toml())["commands"])["nightly_load"]
    argv = arguments_of("nightly_load", command, {"day": "2026-11-21"})
    assert argv == ["python", "etl.py", "--day=2026-11-21", "--target=staging"]


def test_the_numbers_are_those_of_the_code():
    assert f"may have {waits.MAX_PER_VIEWER} waits open" in PAGE
    assert calls.REPORT_EVERY_S == 4
    assert "notified every\nfour seconds" in PAGE
    assert calls.APPLIED_WITHIN_S == 2
    assert f"{updates.MAX_URIS} resources a subscription" in PAGE
