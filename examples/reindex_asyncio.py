"""Coroutines: async iteration is tracked like any other, and cancel takes effect between two pages."""

import asyncio
import sys
from collections.abc import AsyncIterator

import otelprogress as progress
from otelprogress.demo import dataset

PAGE_ROWS = 100
PAGES = 34
index_: dict[str, str] = {}


async def pages() -> AsyncIterator[list[list[str]]]:
    """The planes, page by page, as a slow API would hand them out."""
    with dataset.open_table("planes") as lines:
        next(lines)
        page: list[list[str]] = []
        for row in lines:
            page.append(row)
            if len(page) == PAGE_ROWS:
                yield page
                page = []
                await asyncio.sleep(0)
        yield page


async def index(page: list[list[str]]) -> None:
    await asyncio.sleep(0)
    index_.update((row[0], " ".join(row[1:])) for row in page)


@progress.operation("reindex", controls=["cancel", "pause"])
async def reindex(tenant: str, *, cancel_after: int | None = None) -> None:
    seen = 0
    async for page in progress.track(pages(), total=PAGES, unit="page"):
        await index(page)
        seen += 1
        if seen == cancel_after:
            progress.current_operation().cancel("enough for this example")
    await progress.current_operation().acheckpoint()


async def main() -> None:
    progress.configure()
    await reindex("acme")
    print(f"{len(index_)} planes indexed")
    index_.clear()
    try:
        await reindex("acme", cancel_after=3)
    except progress.OperationCancelled as cancelled:
        print(f"cancelled after {len(index_)} planes: {cancelled.reason}")


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
