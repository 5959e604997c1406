"""The MCP Inspector's command line, at a collector and over standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import otelprogress as progress
from otelprogress_collector.app import Collector
from tests.collector.collecting import collecting
from tests.collector.e2e.writing import Writer, send
from tests.conformance.programs import Ended, run

pytestmark = pytest.mark.conformance

PROGRAM = "inspector/clients/launcher/build/index.js"
ERAS = ("legacy", "modern")
TOOLS = ["list", "get", "wait", "cancel", "signal", "respond"]


async def inspect(home: Path, era: str, *arguments: str) -> Ended:
    return await run(PROGRAM, "--cli", "--format", "json", "--protocol-era", era, *arguments, home=home)


def url_of(collector: Collector) -> str:
    return f"http://127.0.0.1:{collector.http_port}/mcp"


def target_of(collector: Collector) -> tuple[str, ...]:
    bearer = f"Authorization: Bearer {collector.own_token}"
    return ("--header", bearer, "--transport", "http", url_of(collector))


async def look_around(home: Path, era: str, *target: str) -> str:
    """Ask for everything that can be listed; what `progress_list` says is returned."""

    async def result(*method: str) -> dict[str, Any]:
        ended = await inspect(home, era, "--method", *method, *target)
        assert ended.code == 0, ended.errors
        answer: dict[str, Any] = json.loads(ended.out)["result"]
        return answer

    tools = (await result("tools/list"))["tools"]
    assert [tool["name"] for tool in tools] == [f"progress_{name}" for name in TOOLS]
    (operations,) = (await result("resources/list"))["resources"]
    assert operations["uri"] == "progress://operations"
    (prompt,) = (await result("prompts/list"))["prompts"]
    assert prompt["name"] == "triage_failure"
    called = await result("tools/call", "--tool-name", "progress_list", "--tool-arg", "status=live")
    assert not called["isError"]
    (content,) = called["content"]
    text: str = content["text"]
    return text


@pytest.mark.parametrize("era", ERAS)
async def test_it_looks_around_at_a_collector_with_a_token(tmp_path: Path, era: str) -> None:
    async with collecting(tmp_path / "data", durability="memory") as collector:
        begun = Writer("nightly load").started()
        assert (await asyncio.to_thread(send, collector.http_port, begun)).status == 200
        assert "nightly_load-1 RUN" in await look_around(tmp_path, era, *target_of(collector))


async def test_it_finds_no_fault_with_the_schemas_of_the_tools(tmp_path: Path) -> None:
    async with collecting(tmp_path / "data", durability="memory") as collector:
        strictly = ("--method", "tools/list", "--strict", *target_of(collector))
        ended = await inspect(tmp_path, "auto", *strictly)
    assert ended.code == 0
    assert not ended.errors


@pytest.mark.parametrize("header", [(), ("--header", "Authorization: Bearer another's")])
async def test_without_a_token_that_is_known_it_is_told_that_one_is_asked_for(
    tmp_path: Path, header: tuple[str, ...]
) -> None:
    async with collecting(tmp_path / "data", durability="memory") as collector:
        target = (*header, "--transport", "http", "--stored-auth-only", url_of(collector))
        ended = await inspect(tmp_path, "auto", "--method", "tools/list", *target)
    assert ended.code == 3
    assert json.loads(ended.errors)["error"]["code"] == "auth_required"


async def test_it_looks_around_over_standard_input_and_output(tmp_path: Path) -> None:
    # It hands a server nothing of its own environment but what it is told to.
    named = [
        f"{name}={value}" for name, value in os.environ.items() if name.startswith(("OTELPROGRESS_", "XDG_"))
    ]
    named.append(f"PYTHONPATH={os.pathsep.join(sys.path)}")
    environment = [each for setting in named for each in ("-e", setting)]
    command = (sys.executable, "-m", "otelprogress.cli.main", "mcp")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.control_programs", "rows"], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            async with progress.AsyncClient() as client:
                await anext(client.watch(level="milestones"))
            told = await look_around(tmp_path, "auto", *environment, "--transport", "stdio", *command)
        finally:
            program.kill()
    assert "import_rows-1 RUN" in told
