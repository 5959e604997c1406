"""A process of clients that follow a collector through its deaths. argv: URL, token, clients, runs, seed.

It prints `watching` once each has a position, and at the end, as JSON, for each client the messages and revisions of
each run in the order in which they came, and how many gaps it was told of.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import defaultdict

from otelprogress.feed.client import AsyncClient
from tests.waiting import aeventually


async def follow(url: str, token: str, runs: int, seed: int, ready: list[bool], go: asyncio.Event) -> dict:
    messages: dict[str, list[str]] = defaultdict(list)
    revisions: dict[str, list[int]] = defaultdict(list)
    over: set[str] = set()
    client = AsyncClient(url, token, backoff_s=(0.01, 0.2), rng=random.Random(seed))
    async with client, client.watch(level="milestones") as watch:
        first = asyncio.ensure_future(anext(watch))
        await aeventually(lambda: watch.cursor, 60)
        ready.append(True)
        await go.wait()
        event = await first
        while True:
            name = event.operation.name
            if event.kind != "snapshot":
                messages[name].append(event.message or "")
                revisions[name].append(event.revision)
            if not event.operation.live:
                over.add(name)
                if len(over) == runs:
                    break
            event = await anext(watch)
        return {"messages": messages, "revisions": revisions, "gaps": watch.gaps}


async def main() -> None:
    url, token, clients, runs, seed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    ready: list[bool] = []
    go = asyncio.Event()
    following = [
        asyncio.create_task(follow(url, token, runs, seed + number, ready, go)) for number in range(clients)
    ]
    await aeventually(lambda: len(ready) == clients, 60)
    print("watching", flush=True)
    go.set()
    print(json.dumps(await asyncio.gather(*following)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
