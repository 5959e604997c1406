"""`AsyncClient` for code without an event loop: the same names, each call waits for its answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from otelprogress.exceptions import UsageError

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.feed.command_client import Commanded, CommandOptions
    from otelprogress.feed.discovery import FeedTarget
    from otelprogress.feed.news import News, Until
    from otelprogress.feed.watch import Watch
    from otelprogress.model.events import FeedEvent, OperationView
    from otelprogress.protocol.messages import CommandStatus, Level

T = TypeVar("T")


class _LoopThread:
    """An event loop on a daemon thread, started when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and return what it returns; an interrupt of the caller cancels it."""
        if self._thread is threading.current_thread():
            work.close()
            raise UsageError(
                "the blocking client waits for its own thread here: use AsyncClient in coroutines"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5.0)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name="otelprogress-client", daemon=True
                )
                self._thread.start()
            return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class BlockingWatch:
    """An iterator over what happens; `next()` waits. Also a context manager that closes its connections."""

    def __init__(self, thread: _LoopThread, watching: Watch) -> None:
        self._thread = thread
        self._watch = watching

    @property
    def cursor(self) -> str:
        """Where to go on after the events given so far."""
        return self._watch.cursor

    @property
    def gaps(self) -> int:
        """How many gaps the events given so far contain."""
        return self._watch.gaps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FeedEvent:
        """The next event; waits for it.

        Raises:
            StopIteration: the feed ended for good, or the watch was closed.
            FeedDenied, FeedUnavailable, InvalidValue: as `Watch`.
        """
        event = self._thread.call(_next(self._watch, None))
        if event is None:
            raise StopIteration
        return event

    def poll(self, timeout_s: float) -> FeedEvent | None:
        """The next event if it comes within `timeout_s` seconds; `None`: it did not, or the watch has ended."""
        try:
            return self._thread.call(_next(self._watch, timeout_s))
        except TimeoutError:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the iterator ends. Idempotent."""
        self._thread.call(self._watch.aclose())


async def _next(watching: Watch, timeout_s: float | None) -> FeedEvent | None:
    async with asyncio.timeout(timeout_s):
        try:
            return await watching.__anext__()
        except StopAsyncIteration:
            return None


class Client:
    """The blocking twin of `AsyncClient`: same arguments, same names, same answers and errors.

    It runs an event loop on a daemon thread of its own. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        backoff_s: tuple[float, float] = (0.5, 20.0),
        resume: bool = True,
        open_timeout_s: float = 5.0,
        rng: random.Random | None = None,
    ) -> None:
        from otelprogress.feed.client import AsyncClient

        self._client: AsyncClient = AsyncClient(
            url, token, backoff_s=backoff_s, resume=resume, open_timeout_s=open_timeout_s, rng=rng
        )
        self._thread = _LoopThread()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every watch and end the thread. The client can be used again."""
        self._thread.call(self._client.aclose())
        self._thread.stop()

    @property
    def unanswered(self) -> tuple[FeedTarget, ...]:
        """Local feeds that did not answer the last question; see `AsyncClient`."""
        return self._client.unanswered

    def watch(
        self,
        name: str | None = None,
        *,
        run: str | tuple[str, ...] = (),
        label: str | tuple[str, ...] = (),
        trace_id: str | tuple[str, ...] = (),
        service: str | tuple[str, ...] = (),
        state: str | tuple[str, ...] = (),
        attributes: Mapping[str, str | bool | int | float] | None = None,
        subtree: str | None = None,
        roots: bool | None = None,
        level: Level = "milestones",
        max_rate_hz: float | None = None,
        cursor: str | None = None,
    ) -> BlockingWatch:
        """Follow what happens; see `AsyncClient.watch`."""

        async def make() -> Watch:
            # On the loop's thread: before Python 3.12 a queue may look for its loop when it is made.
            return self._client.watch(
                name,
                run=run,
                label=label,
                trace_id=trace_id,
                service=service,
                state=state,
                attributes=attributes,
                subtree=subtree,
                roots=roots,
                level=level,
                max_rate_hz=max_rate_hz,
                cursor=cursor,
            )

        return BlockingWatch(self._thread, self._thread.call(make()))

    def list(
        self,
        name: str | None = None,
        *,
        roots: bool = True,
        live: bool | None = None,
        service: str | tuple[str, ...] = (),
        ended_within_s: float = 600.0,
    ) -> list[OperationView]:
        """What runs or ended a short while ago; see `AsyncClient.list`."""
        work = self._client.list(name, roots=roots, live=live, service=service, ended_within_s=ended_within_s)
        return self._thread.call(work)

    def get(self, operation: str) -> OperationView:
        """One operation, with its steps; see `AsyncClient.get`."""
        return self._thread.call(self._client.get(operation))

    def wait(
        self,
        operation: str,
        until: Until = "attention",
        timeout_s: float | None = 45.0,
        *,
        cursor: str | None = None,
    ) -> News:
        """Wait until something happens to one operation; see `AsyncClient.wait`."""
        return self._thread.call(self._client.wait(operation, until, timeout_s, cursor=cursor))

    def command(
        self,
        operation: str,
        action: str,
        *,
        timeout_s: float = 10.0,
        **options: Unpack[CommandOptions],
    ) -> CommandStatus:
        """Ask an operation for something that it declared; see `AsyncClient.command`."""
        return self._thread.call(self._client.command(operation, action, timeout_s=timeout_s, **options))

    def command_and_wait(
        self,
        operation: str,
        action: str,
        *,
        timeout_s: float = 30.0,
        **options: Unpack[CommandOptions],
    ) -> Commanded:
        """`command()`, and wait for its effect; see `AsyncClient.command_and_wait`."""
        return self._thread.call(
            self._client.command_and_wait(operation, action, timeout_s=timeout_s, **options)
        )
