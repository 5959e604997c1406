"""P5: from a call in the application to the callback of a client in another process.

The peer is a bare `websockets` server on a thread, sending the same message; both are measured in turn, with the
same clock, the application pinned to one core and the client to another where there are two.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Literal

from websockets.asyncio.client import connect

import otelprogress as progress
from bench.latency_producer import CLOSING_WORD
from bench.rows import Effort, Row, percentile, row

EVENTS = 400
INTERVAL_S = 0.02
TICKING_CLIENTS = 8
TICKING_S = 5.0


def run(effort: Effort) -> list[Row]:
    """Idle and busy latency, foreign events, and what eight clients cost."""
    return asyncio.run(measure(effort))


async def measure(effort: Effort) -> list[Row]:
    """All rows, contestants in turn."""
    events = effort.times(EVENTS)
    rounds = max(1, effort.rounds // 2)
    rows = []
    for mode, p50_ms, p99_ms in (("idle", 2, 10), ("busy", 10, 40)):
        ours: list[float] = []
        peer: list[float] = []
        for _ in range(rounds):
            ours += await latencies("ours", mode, events // rounds)
            peer += await latencies("websockets", mode, events // rounds)
        for name, share, limit in (("p50", 0.5, p50_ms), ("p99", 0.99, p99_ms)):
            measured = percentile(ours, share)
            rows.append(
                row(
                    "P5",
                    f"durable event to client, main thread {mode}, {name}",
                    measured,
                    "ms",
                    "bare websockets thread",
                    percentile(peer, share),
                    target=f"≤ {limit} ms",
                    met=measured <= limit,
                )
            )
    foreign = percentile(await latencies("foreign", "busy", events // rounds), 0.99)
    rows.append(
        row(
            "P5",
            "foreign span.add_event to client, main thread busy, p99",
            foreign,
            "ms",
            "its limit",
            200,
            target="≤ 200 ms",
            met=foreign <= 200,
        )
    )
    return [*rows, *await cost_of_clients(rounds, effort)]


def start(
    kind: str, mode: str, events: int, interval_s: float
) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """The application on the last core; its address."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pin = ["taskset", "-c", str(cores[-1])] if len(cores) > 1 else []
    producer = subprocess.Popen(
        [*pin, sys.executable, "-m", "bench.latency_producer", kind, mode, str(events), str(interval_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert producer.stdout is not None
    return producer, json.loads(producer.stdout.readline())


def tell(producer: subprocess.Popen[str]) -> None:
    """The word that the producer waits for."""
    assert producer.stdin is not None
    producer.stdin.write("\n")
    producer.stdin.flush()


async def messages(
    kind: str, address: dict[str, str], *, level: Literal["ticks", "milestones"] = "milestones"
) -> AsyncIterator[str]:
    """What a client's callback gets, with an empty first one once it is connected."""
    if kind == "websockets":
        async with connect(address["url"], compression=None) as connection:
            yield ""
            async for frame in connection:
                yield json.loads(frame)["message"]
    else:
        async with progress.AsyncClient(address["url"], address["token"]) as client:
            async for event in client.watch(level=level, max_rate_hz=10):
                yield event.message or ""


async def latencies(kind: str, mode: str, events: int) -> list[float]:
    """Milliseconds of each message."""
    producer, address = start(kind, mode, events, INTERVAL_S)
    taken = []
    try:
        stream = messages(kind, address)
        await anext(stream)
        tell(producer)
        async for message in stream:
            if message.isdigit():
                taken.append((time.time_ns() - int(message)) / 1e6)
            if message == CLOSING_WORD:
                break
        tell(producer)
        await asyncio.to_thread(producer.wait, 30)
    finally:
        producer.kill()
        producer.wait()
    assert len(taken) == events, f"{len(taken)} of {events} messages arrived"
    return taken


async def cost_of_clients(rounds: int, effort: Effort) -> list[Row]:
    """Eight clients at ten ticks a second: CPU time of all threads but the main one, of the wall time.

    The main thread is CPU-bound, so whatever CPU the other threads take is taken from it.
    """
    shares: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for kind in ("ours", "websockets"):
            for clients in (0, TICKING_CLIENTS):
                shares.setdefault((kind, clients), []).append(await others_share(kind, clients, effort))
    ours = 100 * (median(shares["ours", TICKING_CLIENTS]) - median(shares["ours", 0]))
    peer = 100 * (median(shares["websockets", TICKING_CLIENTS]) - median(shares["websockets", 0]))
    return [
        row(
            "P5",
            "what 8 clients at 10/s cost the application",
            ours,
            "%",
            "bare websockets thread",
            peer,
            target="≤ 2 %",
            met=ours <= 2,
        )
    ]


async def others_share(kind: str, clients: int, effort: Effort) -> float:
    """The share for one run with that many clients."""
    interval_s = 0.1
    producer, address = start(kind, "count", max(10, effort.times(int(TICKING_S / interval_s))), interval_s)
    assert producer.stdout is not None
    try:
        streams = [messages(kind, address, level="ticks") for _ in range(clients)]
        for stream in streams:
            await anext(stream)
        tasks = [asyncio.create_task(consume(stream)) for stream in streams]
        tell(producer)
        answer = json.loads(await asyncio.to_thread(producer.stdout.readline))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tell(producer)
        await asyncio.to_thread(producer.wait, 30)
        return float(answer["others_share"])
    finally:
        producer.kill()
        producer.wait()


async def consume(stream: AsyncIterator[str]) -> None:
    """Read on until cancelled."""
    async for _ in stream:
        pass
