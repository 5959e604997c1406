"""The iterator over the digests of one feed: text for language models, made where the log is."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import msgspec

from otelprogress.feed.discovery import FeedTarget
from otelprogress.feed.watching import Batch, FeedWatch, WatchOptions


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """One digest."""

    text: str
    """By the grammar of docs/digest.md; ends in a line feed."""
    cursor: str
    """Where to go on after it."""


class DigestWatch:
    """An asynchronous iterator over digests; also a context manager that closes its connection.

    The first one is the full state, or after a cursor what changed since. It connects again by itself and goes on where it was;
    it ends when the feed closed for good.

    Args:
        choose: finds the feed, when the watch is first used; what it raises, the iterator raises.
        options: how to follow; with `render` `digest`.
        cursor: of an earlier digest, or the position that it began with; `None`: begin with the full state.
        rng: of the jitter.

    Attributes:
        cursor: where to go on after the digests given so far; empty: none was given.
        gaps: how often the full state came because a cursor was too old, or of another log.
    """

    def __init__(
        self,
        choose: Callable[[], Awaitable[FeedTarget]],
        options: WatchOptions,
        *,
        cursor: str | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.cursor = cursor or ""
        self.gaps = 0
        self._choose = choose
        self._options = options
        self._rng = rng
        self._following: asyncio.Task[None] | None = None
        self._closed = False
        # One at a time: while nobody asks nothing more is read, and what comes meanwhile is told in one.
        self._inbox: asyncio.Queue[Batch | Exception | None] = asyncio.Queue(maxsize=1)

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __anext__(self) -> Digest:
        """The next digest.

        Raises:
            StopAsyncIteration: the feed ended for good, or the watch was closed.
            FeedDenied, FeedUnavailable, InvalidValue: as `Watch`.
        """
        if self._closed:
            raise StopAsyncIteration
        if self._following is None:
            # Without a reference to this watch, so that one that is forgotten can be collected.
            following = _follow(self._choose, self._options, self._inbox, self.cursor or None, self._rng)
            self._following = asyncio.get_running_loop().create_task(following)
        while isinstance(batch := await self._inbox.get(), Batch):
            self.gaps += batch.gaps
            if batch.cursor is not None:
                batch.feed.settle(batch.cursor)
                self.cursor = batch.cursor
            for text in batch.texts:
                return Digest(text=text, cursor=self.cursor)
        self._closed = True
        if batch is not None:
            raise batch
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection; the iterator ends. Idempotent."""
        self._closed = True
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        with contextlib.suppress(asyncio.QueueFull):
            self._inbox.put_nowait(None)

    def __del__(self) -> None:
        # Left without aclose(), for example by a break: its task must not outlive it.
        task = self._following
        if task is not None and not task.done():
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)


async def _follow(
    choose: Callable[[], Awaitable[FeedTarget]],
    options: WatchOptions,
    inbox: asyncio.Queue[Batch | Exception | None],
    cursor: str | None,
    rng: random.Random | None,
) -> None:
    try:
        target = await choose()
        await FeedWatch(target, options, inbox.put, cursor=cursor, must_exist=True, rng=rng).run()
    except Exception as error:
        await inbox.put(error)
    else:
        await inbox.put(None)
