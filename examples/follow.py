"""A consumer: follow everything that runs on this machine; or wait for one operation's end."""

import argparse
import asyncio

import otelprogress as progress


async def follow(name: str, events: int | None) -> None:
    seen = 0
    async for event in progress.watch(name=name, level="milestones"):
        ratio = event.operation.ratio
        print(
            event.kind,
            event.operation.handle,
            event.operation.title,
            "-" if ratio is None else f"{ratio:.0%}",
            flush=True,
        )
        seen += 1
        if seen == events:
            return


async def wait(handle: str) -> None:
    async with progress.AsyncClient() as client:  # Client: the same names, blocking
        news = await client.wait(handle, until="end", timeout_s=300)
    print(news.reason, news.operation.state)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="*")
    parser.add_argument("--events", type=int, help="leave after that many")
    parser.add_argument("--wait", metavar="HANDLE")
    options = parser.parse_args()
    asyncio.run(wait(options.wait) if options.wait else follow(options.name, options.events))
