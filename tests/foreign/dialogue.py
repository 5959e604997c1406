"""A foreign program that prints when it has come somewhere, and waits for a line before it goes on."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from otelprogress.model.events import OperationView
from otelprogress_collector.app import Collector

PATIENCE_S = 30


class Answer(msgspec.Struct):
    """Of `/v1/operations`."""

    operations: list[OperationView]


async def operations(collector: Collector, **wanted: str) -> list[OperationView]:
    """What the REST interface has, as any HTTP client reads it; oldest start first."""
    url = f"http://127.0.0.1:{collector.http_port}/v1/operations"
    headers = {"Authorization": f"Bearer {collector.own_token}"}
    async with aiohttp.ClientSession() as http:
        async with http.get(url, params=wanted, headers=headers) as answer:
            assert answer.status == 200
            body = await answer.read()
    found = msgspec.json.decode(body, type=Answer).operations
    return sorted(found, key=lambda view: view.started_at_unix_ns)


class Program:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> list[str]:
        """Its next line."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        assert line, "the program ended before it came so far"
        return line.decode().split()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go on\n")

    async def end(self) -> None:
        """Wait for its end, which must be a good one."""
        assert await asyncio.wait_for(self._process.wait(), PATIENCE_S) == 0

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def running(command: Sequence[str | Path], **environment: str) -> AsyncIterator[Program]:
    # Logfire sends nothing from within pytest.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env=inherited | environment
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.kill()
