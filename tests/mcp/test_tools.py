from __future__ import annotations

import json
from typing import Any, cast

import pytest

from otelprogress.mcp import tools
from otelprogress.mcp.calls import Calls
from otelprogress.mcp.source import Source
from otelprogress.mcp.starting import Startable, Starter
from tests.tokenizer import count_tokens

MAX_TOKENS = 1_200

NIGHTLY = Startable(
    command=("python", "etl.py", "--day={day}", "--target={target}"),
    description="loads one day of flights",
    schema={
        "day": {"type": "string", "pattern": r"\d{4}-\d\d-\d\d"},
        "target": {"enum": ["staging", "production"], "default": "staging"},
    },
)
REINDEX = Startable(command=("reindex", "{tenant}"), schema={"tenant": {"type": "integer", "minimum": 1}})


def calls(**commands: Startable) -> Calls:
    return Calls(cast("Source", None), starter=Starter(commands) if commands else None)


def said(**commands: Startable) -> list[dict[str, Any]]:
    return [tool.model_dump(by_alias=True, exclude_none=True) for tool in tools.listed(calls(**commands))]


def test_the_list_of_tools_stays_within_its_budget_with_commands_too():
    listed = json.dumps(said(nightly_load=NIGHTLY, reindex=REINDEX), separators=(",", ":"))
    assert count_tokens(listed + tools.INSTRUCTIONS) <= MAX_TOKENS


def test_the_names_are_those_of_the_design_and_start_is_there_only_for_commands():
    usual = ["list", "get", "wait", "cancel", "signal", "respond"]
    assert [tool["name"] for tool in said()] == [f"progress_{name}" for name in usual]
    assert [tool["name"] for tool in said(reindex=REINDEX)] == [
        f"progress_{name}" for name in [*usual, "start"]
    ]


def test_every_tool_is_described_hints_what_it_does_and_answers_in_text_only():
    for tool in said(reindex=REINDEX):
        assert tool["description"]
        assert "outputSchema" not in tool
        assert tool["inputSchema"]["type"] == "object"
        hints = tool["annotations"]
        looks = tool["name"] in ("progress_list", "progress_get", "progress_wait")
        assert hints["readOnlyHint"] is looks
        assert hints.get("destructiveHint", False) is (tool["name"] == "progress_cancel")
        assert hints["openWorldHint"] is False


def test_no_argument_has_a_list_of_types_which_some_models_dialects_of_schemas_do_not_know():
    for tool in said(nightly_load=NIGHTLY, reindex=REINDEX):
        assert '"type": [' not in json.dumps(tool["inputSchema"])


def test_a_model_reads_what_each_command_takes():
    start = said(nightly_load=NIGHTLY, reindex=REINDEX)[-1]
    assert start["inputSchema"]["properties"]["name"] == {"enum": ["nightly_load", "reindex"]}
    assert (
        r"nightly_load(day: /\d{4}-\d\d-\d\d/, target: staging|production = staging): loads one day of flights; "
        "reindex(tenant: integer)" in start["description"]
    )


@pytest.mark.parametrize("row", tools.rows(calls(reindex=REINDEX)).values(), ids=lambda row: row.name)
def test_every_tool_is_answered_by_something(row: tools.Row):
    assert callable(row.call(calls()))
