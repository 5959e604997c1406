from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from otelprogress.model.events import State
from otelprogress_collector.app import Collector
from otelprogress_collector.auth import tokens
from tests.collector.collecting import collecting
from tests.collector.e2e.writing import Answer, Writer, ask, send
from tests.mcp.kit import ERAS, MODERN, Agent, over_http, position_of, why_of
from tests.waiting import aeventually


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Collector]:
    async with collecting(tmp_path / "data", durability="memory") as running:
        yield running


def agent_of(collector: Collector, era: str = MODERN) -> AbstractAsyncContextManager[Agent]:
    return over_http(collector.http_port, collector.own_token, era)


async def say(collector: Collector, *bodies: bytes) -> None:
    for body in bodies:
        assert (await asyncio.to_thread(send, collector.http_port, body)).status == 200


async def post(collector: Collector, token: str | None, **headers: str) -> Answer:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    said = {"content_type": "application/json", "accept": "application/json, text/event-stream"} | headers
    return await asyncio.to_thread(ask, collector.http_port, "/mcp", body, token=token, **said)


def make_token(collector: Collector, name: str, *scopes: str, **claims: Any) -> str:
    path = collector.config.data_path / "tokens.json"
    return tokens.create_token(path, name, scopes=frozenset(scopes), now_unix_s=0.0, **claims)


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_lists_looks_and_waits(collector: Collector, era: str) -> None:
    writer = Writer("nightly load")
    await say(collector, writer.started(steps=("extract", "load")))
    async with agent_of(collector, era) as agent:
        listed = await agent.ask("list")
        assert re.fullmatch(r"@[a-z]{2}1 why: started full\nnightly_load-1 RUN 0%\n", listed)
        assert "nightly_load-1 RUN" in await agent.ask("get", id="nightly")

        since = position_of(listed)
        waiting = asyncio.create_task(agent.ask("wait", ids=["nightly_load-1"], since=since))
        await aeventually(lambda: collector.mcp is not None and collector.mcp.waits == 1)
        await say(collector, writer.noted("12 rows rejected", level="warning"))
        told = await waiting
        assert why_of(told) == "warning"
        assert told.endswith('nightly_load-1 RUN 0%\n! "12 rows rejected"\n')

        failed = writer.ended(State.FAILED, error_type="ValueError", error_message="no such day")
        await say(collector, failed)
        ended = await agent.ask("wait", ids="nightly_load-1", since=position_of(told))
        assert why_of(ended) == "failed"
        assert 'x "ValueError: no such day"' in ended
