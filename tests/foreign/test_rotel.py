"""rotel between a program and the collector: what it repeats is told once, whether its writer counts or not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from otelprogress_collector.app import Collector
from tests.foreign.invoices import check_invoices
from tests.foreign.rotel import Relay, rotel
from tests.waiting import aeventually

pytestmark = pytest.mark.backend

HERE = Path(__file__).parent
LOST = 3


@pytest.mark.parametrize("identity", ["writer", "anonymous"])
async def test_requests_that_come_again_because_their_answers_were_lost_are_told_once(
    tmp_path: Path, identity: str
):
    @asynccontextmanager
    async def through_rotel(collector: Collector, url: str) -> AsyncIterator[str]:
        traces = f"http://127.0.0.1:{collector.grpc_port}"
        with Relay(url) as behind:
            pipeline = rotel(tmp_path, logs_to=behind.url, traces_to=traces)
            endpoint = await asyncio.to_thread(pipeline.__enter__)
            try:
                behind.answers_to_lose = LOST
                yield endpoint
                await aeventually(lambda: behind.answers_lost == LOST)
                await aeventually(lambda: collector.host.hub.tree.stats.duplicates > 0)
            finally:
                await asyncio.to_thread(pipeline.__exit__, None, None, None)

    command = [sys.executable, HERE / "invoices_program.py", "http", identity]
    await check_invoices(tmp_path, command, through=through_rotel)
