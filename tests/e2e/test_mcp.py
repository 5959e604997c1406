"""An agent with the official client, real servers and real programs: on this machine, and at a collector."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.collector.collecting import CollectorProcess
from tests.mcp.kit import ERAS, MODERN, Agent, over_http, over_stdio, position_of, text_of, why_of
from tests.waiting import aeventually

PROGRAM = [sys.executable, "-m", "tests.e2e.control_programs"]
CLI_MCP = [sys.executable, "-m", "otelprogress.cli.main", "mcp"]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
META = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


@contextmanager
def running(name: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*PROGRAM, name], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def agent_over(
    through: str, folder: Path, monkeypatch: pytest.MonkeyPatch, commands: str = ""
) -> AsyncIterator[Agent]:
    """An agent that reaches programs by their own feeds, or by a collector only."""
    listed = folder / "commands.toml"
    listed.write_text(commands)
    if through == "stdio":
        arguments = ("--commands", str(listed)) if commands else ()
        async with over_stdio(MODERN, *arguments) as agent:
            yield agent
        return
    with CollectorProcess(folder / "data", "--config", str(listed)) as collector:
        monkeypatch.setenv("OTELPROGRESS_COLLECTOR", collector.url)
        monkeypatch.setenv("OTELPROGRESS_FEED", "off")
        async with over_http(collector.http_port, collector.token) as agent:
            yield agent


async def moving(agent: Agent, handle: str) -> str:
    """What is said of an operation once it counts."""

    async def moves() -> str | None:
        text = await agent.ask("list", query=handle)
        return text if f"{handle} RUN" in text and "row" in text else None

    return await aeventually(moves, 30, every_s=0.1)


async def there(agent: Agent, handle: str) -> str:
    async def found() -> str | None:
        text = await agent.ask("list")
        return text if handle in text else None

    return await aeventually(found, 30, every_s=0.1)


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_follows_a_program_of_this_machine_to_its_end(era):
    async with over_stdio(era) as agent:
        assert "full" in await agent.ask("list")
        with running("rows") as program:
            position = position_of(await moving(agent, "import_rows-1"))
            quiet = await agent.ask("wait", ids=["import_rows-1"], since=position, timeout_s=1)
            assert why_of(quiet) == "timeout"
            program.kill()
            program.wait()
            text = await agent.ask("wait", ids=["import_rows-1"], since=position, timeout_s=60)
            assert why_of(text) == "lost"
        # Its feed is gone; what was heard, and what was written down, is not.
        assert "import_rows-1 LOST" in await agent.ask("get", id="import_rows-1")
    async with over_stdio(era) as agent:
        assert "import_rows-1 LOST" in await agent.ask("list", status="ended")
        assert "import_rows-1 LOST" in await agent.ask("get", id="import_rows-1")


async def test_an_agent_hears_of_the_end_of_a_program_that_has_no_feed(monkeypatch):
    monkeypatch.setenv("OTELPROGRESS_FEED", "off")
    async with over_stdio() as agent:
        with running("rows") as program:
            position = position_of(await there(agent, "import_rows-1"))
            waiting = asyncio.create_task(
                agent.ask("wait", ids=["import_rows-1"], since=position, timeout_s=60)
            )
            await asyncio.sleep(0)
            program.kill()
            text = await waiting
            assert why_of(text) == "lost"
            assert "import_rows-1 LOST" in text


@pytest.mark.parametrize("through", ["stdio", "collector"])
async def test_an_agent_pauses_and_cancels_a_program(through, tmp_path, monkeypatch):
    async with agent_over(through, tmp_path, monkeypatch) as agent:
        with running("rows") as program:
            await moving(agent, "import_rows-1")
            assert "pause applied" in await agent.ask("signal", id="import_rows-1", action="pause")
            assert "import_rows-1 PAUSED" in await agent.ask("get", id="import_rows-1")
            assert (await agent.refused("signal", id="import_rows-1", action="snapshot")).startswith(
                "unsupported: "
            )
            assert "resume applied" in await agent.ask("signal", id="import_rows-1", action="resume")
            text = await agent.ask("cancel", id="import_rows-1", reason="wrong day")
            assert "cancel applied" in text
            assert (await asyncio.to_thread(program.stdout.readline)).startswith(
                "cancelled 'wrong day' after "
            )
            ended = await agent.ask("wait", ids=["import_rows-1"], until="end", timeout_s=30)
            assert "import_rows-1 CANCELLED" in ended
            assert (await agent.refused("cancel", id="import_rows-1")).startswith("ended: ")


@pytest.mark.parametrize("through", ["stdio", "collector"])
async def test_an_agent_answers_what_a_program_asks(through, tmp_path, monkeypatch):
    async with agent_over(through, tmp_path, monkeypatch) as agent:
        with running("asking") as program:
            await there(agent, "train-1")
            text = await agent.ask("wait", ids=["train-1"], timeout_s=60)
            assert why_of(text) == "input"
            assert "{choice: halve|stop}" in text
            assert (await agent.refused("respond", id="train-1", content="double")).startswith("invalid: ")
            answered = await agent.ask("respond", id="train-1", content="halve", then_wait_s=30)
            assert "input applied" in answered
            assert why_of(answered) == "ended"
            assert (await asyncio.to_thread(program.stdout.readline)) == "answered halve\n"


@pytest.mark.parametrize("through", ["stdio", "collector"])
async def test_an_agent_starts_what_was_listed_as_a_child_of_its_own_trace(through, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", str(Path.cwd())))
    program = json.dumps([sys.executable, "-c", "import time; time.sleep({seconds})"])
    commands = f"[commands.sleepy]\ncommand = {program}\n"
    commands += 'schema = { seconds = { type = "integer", minimum = 1, maximum = 600 } }\n'
    async with agent_over(through, tmp_path, monkeypatch, commands) as agent:
        assert (await agent.refused("start", name="sleepy", arguments={"seconds": 9000})).startswith(
            "invalid arguments: seconds"
        )
        started = await agent.client.call_tool(
            "progress_start", {"name": "sleepy", "arguments": {"seconds": 600}}, meta=META
        )
        text = text_of(started)
        assert not started.is_error, text
        assert "sleepy-1 RUN" in text
        listed = await agent.client.call_tool("progress_list", {"mine": True}, meta=META)
        assert "sleepy-1 RUN" in text_of(listed)
        assert "sleepy-1" in await agent.ask("cancel", id="sleepy-1")
        ended = await agent.ask("wait", ids=["sleepy-1"], until="end", timeout_s=30)
        assert "sleepy-1 CANCELLED" in ended


async def test_a_client_that_hangs_up_ends_the_server_and_nothing_else():
    with running("rows") as program:
        async with over_stdio() as agent:
            await moving(agent, "import_rows-1")
            (server,) = [
                child
                for child in psutil.Process().children(recursive=True)
                if child.cmdline()[-1:] == ["mcp"]
            ]
            waiting = asyncio.create_task(agent.ask("wait", ids=["import_rows-1"], timeout_s=600))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
        assert program.poll() is None


async def test_ctrl_c_ends_a_server_that_was_started_by_hand():
    process = await asyncio.create_subprocess_exec(
        *CLI_MCP, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    process.stdin.write(json.dumps(ping).encode() + b"\n")
    assert b'"id":1' in await asyncio.wait_for(process.stdout.readline(), 60)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGINT
    process.stdin.close()


def test_a_server_without_its_extra_says_what_to_install():
    hidden = "import sys; sys.modules['mcp'] = None; from otelprogress.cli.main import main; sys.argv[1:] = ['mcp']; main()"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'otelprogress[mcp]'" in done.stderr


def test_a_file_of_commands_that_cannot_be_meant_is_said_before_anything_is_served(tmp_path):
    listed = tmp_path / "commands.toml"
    listed.write_text(
        '[commands.say]\ncommand = ["echo", "{words}"]\nschema = { words = { type = "string" } }\n'
    )
    done = subprocess.run(
        [*CLI_MCP, "--commands", str(listed)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert "free text is not taken" in done.stderr
