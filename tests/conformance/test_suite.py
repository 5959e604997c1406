"""The MCP project's conformance suite, at a whole collector."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.programs import run
from tests.conformance.serving import serving

pytestmark = [
    pytest.mark.conformance,
    # What the suite wants of fixtures includes what the protocol has left behind since.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

PROGRAM = "conformance/dist/index.js"
EXCEPTIONS: dict[str, dict[str, str]] = tomllib.loads(
    (Path(__file__).parent / "exceptions.toml").read_text(encoding="utf-8")
)
PLAIN = ("SUCCESS", "INFO")


async def scenarios_of(version: str, home: Path) -> set[str]:
    listed = await run(PROGRAM, "list", "--server", "--spec-version", version, home=home)
    assert listed.code == 0, listed.errors
    return set(re.findall(r"^ +- (\S+)", listed.out, re.MULTILINE))


def checks_in(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What was checked, by scenario."""
    return {
        re.sub(r"^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$", r"\1", each.parent.name): json.loads(
            each.read_text()
        )
        for each in folder.glob("*/checks.json")
    }


@pytest.mark.parametrize("version", EXCEPTIONS)
async def test_every_scenario_of_a_version_passes_but_for_the_exceptions_which_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    results = tmp_path / "results"
    async with serving(tmp_path / "data", monkeypatch) as collector:
        url = f"http://127.0.0.1:{collector.http_port}/mcp"
        choice = ("--suite", "all", "--spec-version", version, "--output-dir", results)
        ended = await run(PROGRAM, "server", "--url", url, *choice, home=tmp_path)
    checked = checks_in(results)
    assert checked.keys() == await scenarios_of(version, tmp_path), ended.out + ended.errors
    fell_short = {
        f"{scenario}:{check['id']}": check.get("errorMessage") or check["status"]
        for scenario, checks in checked.items()
        for check in checks
        if check["status"] not in PLAIN
    }
    assert fell_short.keys() == EXCEPTIONS[version].keys(), json.dumps(fell_short, indent=2)
    empty = {name for name, checks in checked.items() if "SUCCESS" not in {each["status"] for each in checks}}
    assert empty <= {each.partition(":")[0] for each in EXCEPTIONS[version]}
