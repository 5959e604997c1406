"""The iterator over feeds: one address, or all local processes and the collector merged, also those that start later."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import random
import weakref
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from otelprogress.exceptions import FeedError, InvalidValue
from otelprogress.feed.discovery import LOOK_EVERY_S, Discovery, FeedTarget
from otelprogress.feed.merging import Merge
from otelprogress.feed.watching import Batch, FeedWatch, WatchOptions
from otelprogress.model.events import FeedEvent, OperationView

_LOG = logging.getLogger("otelprogress.feed")
_CURSOR_PREFIX: Final = "w1."
_AWAITED: Final = "*"
"""Not a feed's place in a cursor: what was given of one, and another one that tells of it had not said yet."""
_BATCHES_AHEAD: Final = 16
"""Frames that may wait for the iterator; then nothing more is read from the sockets."""


class _Place(msgspec.Struct, array_like=True):
    """Where one feed stands in a cursor."""

    cursor: str | None
    handled: dict[str, int] = {}
    """Revisions by run id, handled beyond `cursor`: the frame was not finished."""


class _End(msgspec.Struct):
    feed: FeedWatch | None
    """`None`: of all, because none can be looked for."""
    error: BaseException | None


class _Inbox:
    """Between the connections and the iterator. It does not know the watch, so that a forgotten one can be collected."""

    def __init__(self) -> None:
        self._items: deque[Batch | _End] = deque()
        self._readable = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, item: Batch | _End) -> None:
        """Hand over a batch; waits while too many wait already."""
        while len(self._items) >= _BATCHES_AHEAD:
            self._room.clear()
            await self._room.wait()
        self._items.append(item)
        self._readable.set()

    async def get(self) -> Batch | _End:
        """The next one; waits for it."""
        while not self._items:
            self._readable.clear()
            await self._readable.wait()
        return self._pop()

    def settle(self) -> None:
        """Take what is only a newer position: everything before it was read."""
        while self._items:
            head = self._items[0]
            if isinstance(head, _End) or head.events or head.gaps or head.away:
                return
            self._pop()
            head.feed.settle(head.cursor)

    def _pop(self) -> Batch | _End:
        self._room.set()
        return self._items.popleft()


def pack_places(places: dict[str, _Place]) -> str:
    """The cursor of a watch: one place for each feed."""
    encoded = base64.urlsafe_b64encode(msgspec.json.encode(places)).rstrip(b"=").decode()
    return _CURSOR_PREFIX + encoded


def unpack_places(cursor: str) -> dict[str, _Place]:
    """The places of a cursor.

    Raises:
        InvalidValue: it is no cursor of a watch.
    """
    encoded = cursor.removeprefix(_CURSOR_PREFIX)
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        return msgspec.json.decode(data, type=dict[str, _Place])
    except (binascii.Error, ValueError) as error:
        raise InvalidValue(f"{cursor[:40]!r}… is no cursor of a watch") from error


def place_key(target: FeedTarget) -> str:
    """A feed's name in a cursor: short, and another one for another process at the same address."""
    return hashlib.blake2b(target.key.encode(), digest_size=6).hexdigest()


class Watch:
    """An asynchronous iterator over what happens; also a context manager that closes its connections.

    The state that is there at the beginning comes as events of kind `snapshot`. Per run, revisions rise
    strictly; every durable event comes exactly once, also across reconnects, unless `gaps` counts up: then
    a snapshot with its reason in `FeedEvent.gap` follows instead of what was missed. A run that a process and the
    collector both tell of comes once, and the collector's word counts (`feed.merging`); where the one takes over from
    the other, revisions and handle are the new one's.

    It ends when the feed closed for good: the process of the given address is gone. A watch of all local
    processes goes on and waits for the next one, one of a collector for its return.

    Attributes:
        gaps: how many gaps the events given so far contain.
    """

    def __init__(
        self,
        target: FeedTarget | Sequence[FeedTarget] | None,
        options: WatchOptions,
        *,
        cursor: str | None = None,
        rng: random.Random | None = None,
        begins_with: tuple[FeedTarget, OperationView] | None = None,
    ) -> None:
        """Connect when first used.

        Args:
            target: one feed; several: these, merged; `None`: all local processes and the collector.
            options: how to follow.
            cursor: of an earlier watch with the same clauses; `None`: begin with what is there. That of a watch of one
                feed is offered to each feed that is there at the beginning: the one that gave it goes on from it,
                others answer with a gap and what is there.
            rng: of the jitter.
            begins_with: a run that was asked for before, and the feed that told of it; `None`: nothing was.

        Raises:
            InvalidValue: the cursor is none.
        """
        self._feeds: dict[FeedWatch, asyncio.Task[None]] = {}
        self._discoverer: asyncio.Task[None] | None = None
        self.gaps = 0
        self._target: FeedTarget | None = None
        """The one feed that is followed; `None`: several are."""
        self._targets: tuple[FeedTarget, ...] | None = None
        """The several; `None`: whichever there are."""
        if isinstance(target, FeedTarget):
            self._target = target
        elif target is not None:
            self._targets = tuple(target)
        self._options = options
        self._rng = rng
        self._raw_cursor: str | None = None
        self._places: dict[str, _Place] = {}
        if cursor is not None and cursor.startswith(_CURSOR_PREFIX):
            self._places = unpack_places(cursor)
        elif cursor:
            self._raw_cursor = cursor
        self._offer_raw_cursor = True
        awaited = self._places.pop(_AWAITED, _Place(None)).handled
        self._merge = Merge(awaited) if self._target is None else None
        if self._merge is not None and begins_with is not None:
            asked, view = begins_with
            self._merge.begin(place_key(asked), view, collector=asked.is_collector)
        self._inbox = _Inbox()
        self._ready: deque[tuple[FeedWatch | None, FeedEvent]] = deque()
        """What to decide about next; without a feed: what was decided about already."""
        self._batch: Batch | None = None
        self._started = False
        self._closed = False

    @property
    def cursor(self) -> str:
        """Where to go on after the events given so far; save it to resume in another process.

        One string, whatever number of feeds; empty while nothing has arrived yet.
        """
        if self._batch is None:
            self._inbox.settle()
        if self._target is not None:
            for feed in self._feeds:
                if not feed.handled and feed.cursor is not None:
                    # The plain cursor of the protocol, as long as it says everything.
                    return feed.cursor
        places = dict(self._places)
        for feed in self._feeds:
            if feed.cursor is not None or feed.handled:
                places[place_key(feed.target)] = _Place(feed.cursor, feed.handled)
        if not places:
            return self._raw_cursor or ""
        if self._merge is not None and len({feed.target.is_collector for feed in self._feeds}) > 1:
            awaited = self._merge.awaited()
            if awaited:
                places[_AWAITED] = _Place(None, awaited)
        return pack_places(places)

    @property
    def feed_count(self) -> int:
        """How many feeds are followed right now."""
        return len(self._feeds)

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __anext__(self) -> FeedEvent:
        """The next event.

        Raises:
            StopAsyncIteration: the feed ended for good, or the watch was closed.
            FeedDenied: the token is missing, wrong or lacks the scope.
            FeedUnavailable: nobody answers at the given address.
            InvalidValue: the feed refuses the filter; or local feeds cannot be looked for, when the watch begins.
        """
        while True:
            while not self._ready:
                if self._closed:
                    raise StopAsyncIteration
                self._start()
                item = await self._inbox.get()
                if isinstance(item, _End):
                    self._ended(item)
                else:
                    self._take(item)
            feed, event = self._ready.popleft()
            given = feed is None or self._is_given(feed, event)
            if feed is not None:
                feed.handled[event.operation.id] = event.revision
            if not given and self._merge is not None:
                self._ready.extendleft((None, owed.event) for owed in reversed(self._merge.instead()))
            if not self._ready and self._batch is not None:
                self._finish(self._batch)
            if given:
                return event

    def _is_given(self, feed: FeedWatch, event: FeedEvent) -> bool:
        if self._merge is None:
            return True
        return self._merge.take(place_key(feed.target), event, collector=feed.target.is_collector)

    async def aclose(self) -> None:
        """Close the connections; the iterator ends. Idempotent."""
        self._closed = True
        tasks = [*self._feeds.values()]
        if self._discoverer is not None:
            tasks.append(self._discoverer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __del__(self) -> None:
        # Left without aclose(), for example by a break: its tasks must not outlive it.
        for task in (*self._feeds.values(), self._discoverer):
            if task is not None and not task.done():
                loop = task.get_loop()
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)

    def _take(self, batch: Batch) -> None:
        if batch.away:
            self._do_without(batch.feed)
            return
        self.gaps += batch.gaps
        self._batch = batch
        self._ready.extend((batch.feed, event) for event in batch.events)
        if not batch.events:
            self._finish(batch)

    def _do_without(self, feed: FeedWatch) -> None:
        """A feed cannot be heard: what others said meanwhile and it was to say is given of them."""
        if self._merge is not None and feed.target.is_collector:
            self._ready.extend((None, owed.event) for owed in self._merge.away(place_key(feed.target)))

    def _finish(self, batch: Batch) -> None:
        batch.feed.settle(batch.cursor)
        self._batch = None

    def _ended(self, end: _End) -> None:
        if end.feed is None:
            self._closed = True
            assert end.error is not None
            raise end.error
        self._feeds.pop(end.feed, None)
        key = place_key(end.feed.target)
        if end.feed.target.is_collector:  # refused for now; its log goes on all the same
            self._places[key] = _Place(end.feed.cursor, end.feed.handled)
        else:
            self._places.pop(key, None)
        self._do_without(end.feed)
        if end.error is None:
            if self._target is not None:
                self._closed = True
        elif self._target is not None or not isinstance(end.error, FeedError):
            self._closed = True
            if self._discoverer is not None:
                self._discoverer.cancel()
            raise end.error
        else:
            _LOG.warning("the feed of %s is left out: %s", end.feed.target.name, end.error)
        if self._targets is not None and not self._feeds:
            self._closed = True

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        if self._target is not None:
            self._follow(self._target)
        elif self._targets is not None:
            for each in self._targets:
                self._follow(each)
        else:
            # Without a reference to this watch, so that one that is forgotten can be collected.
            self._discoverer = asyncio.get_running_loop().create_task(
                _discover(weakref.ref(self), self._inbox)
            )

    def _follow(self, target: FeedTarget) -> None:
        raw_cursor = self._raw_cursor if self._offer_raw_cursor else None
        place = self._places.get(place_key(target)) or _Place(raw_cursor)
        feed = FeedWatch(
            target,
            self._options,
            self._inbox.put,
            cursor=place.cursor,
            known=place.handled,
            must_exist=self._target is not None,
            rng=self._rng,
        )
        self._feeds[feed] = asyncio.get_running_loop().create_task(_run(feed, self._inbox))


async def _run(feed: FeedWatch, inbox: _Inbox) -> None:
    try:
        await feed.run()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        await inbox.put(_End(feed, error))
    else:
        await inbox.put(_End(feed, None))


async def _discover(watch_reference: weakref.ref[Watch], inbox: _Inbox) -> None:
    """Follow local feeds as they appear."""
    discovery = Discovery()
    began = False
    trouble = ""
    while True:
        appeared: list[FeedTarget] = []
        try:
            appeared = await asyncio.to_thread(discovery.appeared)
            began, trouble = True, ""
        except (InvalidValue, OSError) as error:
            if isinstance(error, InvalidValue) and not began:
                await inbox.put(_End(None, error))
                return
            if trouble != (trouble := str(error)):
                _LOG.warning("new local feeds are not seen for now: %s", error)
        watch = watch_reference()
        if watch is None:
            return
        for target in appeared:
            watch._follow(target)
        if began:
            watch._offer_raw_cursor = False
        del watch
        await asyncio.sleep(LOOK_EVERY_S)
