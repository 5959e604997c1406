"""Operations that a client of this machine reaches: the feeds of running processes, the collector, and the history."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from otelprogress.exceptions import (
    AmbiguousOperation,
    FeedDenied,
    FeedError,
    InvalidValue,
    ProgressError,
    UnknownOperation,
)
from otelprogress.feed.clock import Clock, SystemClock
from otelprogress.mcp.mirror import Mirror, matches
from otelprogress.mcp.source import Heard, Listing, Since, Taken, Viewer, Wanted
from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.protocol.messages import Command, CommandStatus

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient

TICK_HZ: Final = 1.0
"""How often counts are heard of; digests are read every few seconds at the most."""
_SETTLES_WITHIN_S: Final = 3.0
"""How long the first question waits until everything that runs was heard of."""
_AGAIN_S: Final = 1.0
_MAX_RECORDED: Final = 200
_LOG: Final = logging.getLogger("otelprogress.mcp")


class FeedsSource:
    """`otelprogress.mcp.source.Source` over a client; there is one viewer, the user of this machine.

    `async with` starts and ends it.

    Args:
        client: reaches the feeds.
        history: whether what ended before is looked up in this user's history.
        clock: `None` reads this machine's.
    """

    def __init__(self, client: AsyncClient, *, history: bool = True, clock: Clock | None = None) -> None:
        self._client = client
        self._history = history
        self._clock: Clock = clock if clock is not None else SystemClock()
        self.mirror = Mirror(secrets.token_hex(8))
        self._tasks: list[asyncio.Task[None]] = []
        self._settled = asyncio.Event()
        self._unheard: set[str] = set()
        """Runs that live and that no feed tells of: what is written down of them is read again and again."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(each()) for each in (self._listen, self._settle, self._read_again)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _listen(self) -> None:
        trouble = ""
        while True:
            try:
                async with self._client.watch(roots=False, level="ticks", max_rate_hz=TICK_HZ) as watching:
                    async for event in watching:
                        trouble = ""
                        self._unheard.discard(event.operation.id)
                        self.mirror.apply(event)
            except (FeedError, InvalidValue) as error:
                # Each question says it too, to whoever asks.
                if trouble != (trouble := str(error)):
                    _LOG.warning("nothing is heard for now: %s", error)
            except Exception as error:
                if trouble != (trouble := repr(error)):
                    _LOG.exception("nothing is heard for now, which is a bug")
            await asyncio.sleep(_AGAIN_S)

    async def _settle(self) -> None:
        """What runs already is told by snapshots: the first question should not be faster than they are."""
        heard = asyncio.Event()
        unlisten = self.mirror.listen(lambda _: heard.set())
        try:
            with suppress(ProgressError, TimeoutError):
                async with asyncio.timeout(_SETTLES_WITHIN_S):
                    there = {view.id for view in await self._client.list(roots=False)}
                    while not all(map(self.mirror.knows, there)):
                        heard.clear()
                        await heard.wait()
        finally:
            unlisten()
            self._settled.set()

    async def _read_again(self) -> None:
        """A process without a feed, or a stopped one, writes down what its operations do: an end at once."""
        troubles: dict[str, str] = {}
        while True:
            await asyncio.sleep(_AGAIN_S)
            for run_id in tuple(self._unheard):
                try:
                    with suppress(UnknownOperation, AmbiguousOperation):
                        view = await asyncio.to_thread(_recorded, run_id, lose_orphans=True)
                        if run_id in self._unheard:
                            self._take_recorded(view)
                    troubles.pop(run_id, None)
                except Exception as error:  # of SQLite, of the disk: the next time it may go
                    if troubles.get(run_id) != repr(error):
                        troubles[run_id] = repr(error)
                        _LOG.warning("%s cannot be read in the history for now: %s", run_id, error)

    def _take_recorded(self, view: OperationView) -> None:
        self.mirror.apply(FeedEvent(kind="snapshot", operation=view))
        if view.live:
            self._unheard.add(view.id)
        else:
            self._unheard.discard(view.id)

    async def find(self, viewer: Viewer, text: str) -> OperationView:
        """See `Source`."""
        await self._settled.wait()
        try:
            return self.mirror.resolve(text, self._clock.time_unix_ns())
        except UnknownOperation as unknown:
            return await self._find_elsewhere(text, unknown)

    async def _find_elsewhere(self, text: str, unknown: UnknownOperation) -> OperationView:
        """Ask the feeds themselves, one of which may be newer than what was heard, and then the history."""
        problem: UnknownOperation | FeedError = unknown
        try:
            return await self._client.get(text)
        except FeedDenied:
            raise
        except (UnknownOperation, FeedError) as error:
            problem = error
        if self._history:
            with suppress(UnknownOperation):
                view = await asyncio.to_thread(_recorded, text)
                if view.live:
                    self._take_recorded(view)
                    return self.mirror.resolve(view.id, self._clock.time_unix_ns())
                return view
            raise unknown
        raise problem

    async def search(self, viewer: Viewer, wanted: Wanted) -> Listing:
        """See `Source`."""
        await self._settled.wait()
        found = self.mirror.search(wanted, self._clock.time_unix_ns())
        if self._history and len(found) < wanted.limit and not wanted.subtree:
            known = {view.id for view in found}
            recorded = await asyncio.to_thread(_all_recorded, wanted)
            found += [view for view in recorded if view.id not in known and not self.mirror.knows(view.id)]
        return Listing(found[: wanted.limit], max(0, len(found) - wanted.limit), self.mirror.position)

    async def since(self, viewer: Viewer, position: str, run_ids: Collection[str]) -> Since:
        """See `Source`."""
        return self.mirror.since(position, run_ids, self._clock.time_unix_ns())

    def follow(self, viewer: Viewer, run_ids: Collection[str] | None) -> MirrorFollowing:
        """See `Source`."""
        return MirrorFollowing(self.mirror, run_ids, self._clock)

    async def command(self, viewer: Viewer, command: Command) -> CommandStatus:
        """See `Source`."""
        return await self._client.command(
            command.operation,
            command.action,
            arguments=command.arguments,
            expect_revision=command.expect_revision,
            deadline_s=command.deadline_s,
            command_id=command.command_id,
        )


class MirrorFollowing:
    """`otelprogress.mcp.source.Following` of a mirror."""

    def __init__(self, mirror: Mirror, run_ids: Collection[str] | None, clock: Clock) -> None:
        self._mirror = mirror
        self._run_ids = None if run_ids is None else frozenset(run_ids)
        self._clock = clock
        self._heard = Heard()
        self._awake = asyncio.Event()
        self.close = mirror.listen(self._hear)

    def _hear(self, event: FeedEvent) -> None:
        if self._run_ids is None or event.operation.id in self._run_ids:
            self._heard.add(event)
            self._awake.set()

    async def wait(self, timeout_s: float) -> bool:
        """See `Following`."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._awake.wait()
        except TimeoutError:
            return False
        return True

    async def take(self) -> Taken:
        """See `Following`."""
        self._awake.clear()
        events, left_out = self._heard.take()
        now_unix_ns = self._clock.time_unix_ns()
        views = [
            view
            for run_id in self._run_ids or ()
            if (view := self._mirror.view(run_id, now_unix_ns)) is not None
        ]
        return Taken(self._mirror.position, events, views, left_out)


def _recorded(text: str, *, lose_orphans: bool = False) -> OperationView:
    from otelprogress.feed.history import History

    history = History()
    try:
        if lose_orphans:
            # Whoever looks first after a crash finds out: nobody else is left to say it.
            history.lose_orphans()
        return history.get(text)
    finally:
        history.close()


def _all_recorded(wanted: Wanted) -> list[OperationView]:
    from otelprogress.feed.history import History

    history = History()
    try:
        history.lose_orphans()
        found = history.operations(_MAX_RECORDED, live=True) if wanted.status != "ended" else []
        if wanted.status != "live":
            found += history.operations(_MAX_RECORDED, live=False)
    finally:
        history.close()
    return [view for view in found if matches(view, wanted)]
