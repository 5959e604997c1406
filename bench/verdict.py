"""P11: how long after a worker's death a client is told, and that a worker that only stands still is not called dead.

The loss of a whole host is not measured: it takes one whose network can be cut.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import otelprogress as progress
from bench import served
from bench.rows import Effort, Row, row
from bench.served import Served
from otelprogress.model.events import FeedEvent, State

LINKED_ROUNDS = 10
LEASE_ROUNDS = 3
LEASE_S = 2.0
STALL_S = 60.0
_PATIENCE_S = 30.0


def run(effort: Effort) -> list[Row]:
    """Link, lease, and a stall."""
    served.take_load_core()
    with (
        tempfile.TemporaryDirectory(prefix="otelprogress-bench-verdict-") as name,
        served.collector(Path(name)) as server,
    ):
        return asyncio.run(measure(server, effort))


async def measure(server: Served, effort: Effort) -> list[Row]:
    """All rows, at one collector."""
    url = f"http://127.0.0.1:{server.port}"
    linked = {"OTELPROGRESS_COLLECTOR": url}
    leased = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTELPROGRESS_LEASE_S": f"{LEASE_S:g}"}
    by_link = [await verdict_s(server, linked) for _ in range(effort.times(LINKED_ROUNDS))]
    by_lease = await asyncio.gather(
        *(verdict_s(server, leased) for _ in range(max(2, effort.times(LEASE_ROUNDS))))
    )
    stall_s = STALL_S if effort.scale >= 1 else STALL_S / 20
    lost = await lost_while_stopped(server, linked, stall_s)
    return [
        row(
            "P11",
            f"SIGKILL of a linked worker to `lost` at a client, worst of {len(by_link)}",
            max(by_link),
            "s",
            "their median",
            median(by_link),
            target="≤ 2 s",
            met=max(by_link) <= 2,
        ),
        row(
            "P11",
            f"SIGKILL of a worker with a lease only ({LEASE_S:g} s) to `lost`, worst of {len(by_lease)}",
            max(by_lease),
            "s",
            "its lease",
            LEASE_S,
            target="≤ lease + 2 s",
            met=max(by_lease) <= LEASE_S + 2,
        ),
        row(
            "P11",
            f"`lost` verdicts on a linked worker that is stopped for {stall_s:g} s and goes on",
            lost,
            "verdicts",
            "one is too many",
            1,
            target="none",
            met=lost == 0,
        ),
    ]


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An application at work, and the id of its operation."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.verdict_worker"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


async def events_of(server: Served, run_id: str) -> AsyncIterator[FeedEvent]:
    """What a client is told of one run."""
    async with progress.AsyncClient(f"ws://127.0.0.1:{server.port}", "") as client:
        async for event in client.watch(level="milestones"):
            if event.operation.id == run_id:
                yield event


async def verdict_s(server: Served, environment: dict[str, str]) -> float:
    """Seconds from SIGKILL to the event at the client."""
    with worker(environment) as (process, run_id):
        events = events_of(server, run_id)
        async with asyncio.timeout(_PATIENCE_S):
            await anext(events)
            if "OTELPROGRESS_COLLECTOR" in environment:
                await linked(server)
            else:
                await asyncio.sleep(LEASE_S / 2)  # somewhere within the third of a lease
            killed_s = time.perf_counter()
            process.kill()
            async for event in events:
                if event.operation.state is State.LOST:
                    return time.perf_counter() - killed_s
    raise RuntimeError("the feed ended")


async def linked(server: Served) -> None:
    """Until a worker's link stands."""
    while b"collector_workers 1" not in await asyncio.to_thread(metrics, server):  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.05)


def metrics(server: Served) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        text: bytes = answer.read()
    return text


async def lost_while_stopped(server: Served, environment: dict[str, str], stall_s: float) -> int:
    """How often a client is told that a worker was lost which was stopped, went on, and ended by itself."""
    with worker(environment) as (process, run_id):
        verdicts = 0

        async def count() -> None:
            nonlocal verdicts
            async for event in events_of(server, run_id):
                verdicts += event.operation.state is State.LOST

        counting = asyncio.create_task(count())
        await linked(server)
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(stall_s)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
        return verdicts
