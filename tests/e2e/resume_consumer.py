"""A process that iterates over a feed until all runs have ended, and prints what it was given."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable

from otelprogress.feed.client import AsyncClient
from otelprogress.model.events import FeedEvent
from tests.waiting import aeventually


async def chain(first: Awaitable[FeedEvent], rest: AsyncIterator[FeedEvent]) -> AsyncIterator[FeedEvent]:
    yield await first
    async for event in rest:
        yield event


async def main() -> None:
    url, runs, seed, resume = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "resume"
    seen: dict[str, list[str]] = defaultdict(list)
    revisions: dict[str, list[int]] = defaultdict(list)
    over: set[str] = set()
    client = AsyncClient(url, "resume", backoff_s=(0.01, 0.1), resume=resume, rng=random.Random(seed))
    async with client, client.watch(level="milestones") as watch:
        first = asyncio.ensure_future(anext(watch))
        await aeventually(lambda: watch.cursor, 60)
        # It has a position before anything is published: from here on nothing may be missing.
        print("watching", flush=True)
        async for event in chain(first, watch):
            name = event.operation.name
            if event.kind != "snapshot":
                seen[name].append(event.message if event.kind == "operation.noted" else event.kind)
                revisions[name].append(event.revision)
            if not event.operation.live:
                over.add(name)
                if len(over) == runs:
                    break
        gaps = watch.gaps
    print(json.dumps({"seen": seen, "revisions": revisions, "gaps": gaps}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
