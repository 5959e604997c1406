"""One subscription at one feed, for as long as it takes: connect, resume, wait, connect again.

What arrives is handed to a sink in batches; the sink may be slow, then nothing more is read and the server
sees a reader that takes its time. When the feed's process is proven gone, its live operations are given a local
verdict, because nobody else is left to give one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from otelprogress.exceptions import (
    FeedDenied,
    FeedError,
    FeedUnavailable,
    InvalidValue,
    LocalProtocolError,
    RemoteProtocolError,
)
from otelprogress.feed.clock import SystemClock
from otelprogress.feed.discovery import FeedTarget, renewed, target_at
from otelprogress.feed.process_identity import is_gone
from otelprogress.feed.silence import silent_logger
from otelprogress.feed.tls import client_tls
from otelprogress.model.events import FeedEvent, OperationView, State
from otelprogress.protocol.backoff import Backoff
from otelprogress.protocol.close_codes import MEANINGS, CloseCode, retryable
from otelprogress.protocol.messages import SUBPROTOCOL, Error, Filter, Gap, Level, Limits, Welcome
from otelprogress.protocol.session import ClientSession, Delivery, Subscription

_LOG = logging.getLogger("otelprogress.feed")
_LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
_LOOK_FOR_DEATH_EVERY_S: Final = 0.25
_MAX_RETRY_AFTER_S: Final = 60.0
_SILENCE_SHARE: Final = 1.6
"""A server pings every `ping_interval_s` and bookmarks more often; longer than this share of it is no silence."""
TRANSPORT_ERRORS: Final = (OSError, EOFError, WebSocketException)
"""What a connection that breaks raises; `TimeoutError` is an `OSError`."""
CLIENT_LIMITS: Final = Limits(server_frame_bytes=1024 * 1024)
"""What is accepted from a server: more than this version sends, so that later ones may send more."""


class _Connect(connect):
    """Never follows a redirect: a token goes to the feed it belongs to and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """The redirect is the error."""
        return exc


async def open_connection(target: FeedTarget, *, timeout_s: float = 5.0) -> ClientConnection:
    """A WebSocket to a feed, not greeted yet.

    Args:
        target: where, and with which token.
        timeout_s: for TCP, TLS and the upgrade together.

    Raises:
        FeedDenied: the token or this program is not let in.
        FeedUnavailable: something listens there, but no feed.
        OSError, WebSocketException, EOFError: it may work later.
    """
    host = target.url.partition("://")[2]
    local = any(host.startswith((name, f"[{name}]")) for name in _LOOPBACK_HOSTS)
    try:
        return await _Connect(
            target.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {target.token}"} if target.token else None,
            compression=None,
            proxy=None if local else True,
            ssl=client_tls() if target.url.startswith("wss:") else None,
            open_timeout=timeout_s,
            ping_interval=None,
            close_timeout=1.0,
            max_size=CLIENT_LIMITS.server_frame_bytes,
            logger=silent_logger("otelprogress.feed.websockets"),
        )
    except InvalidStatus as refused:
        status = refused.response.status_code
        if status in (401, 403):
            raise FeedDenied(f"{target.url} refused us with status {status}: {_text(refused)}") from refused
        if status < 500 and status != 429:
            raise FeedUnavailable(
                f"{target.url} is no feed, it answers {status}: {_text(refused)}"
            ) from refused
        raise


def _text(refused: InvalidStatus) -> str:
    return bytes(refused.response.body or b"")[:200].decode("utf-8", "replace").strip()


def denial(code: int, reason: str) -> FeedError:
    """The exception for a close code that says not to retry."""
    meaning = MEANINGS.get(CloseCode(code), "") if code in set(CloseCode) else ""
    text = f"the feed closed with {code}: {reason or meaning or 'no reason given'}"
    return (
        FeedDenied(text) if code in (CloseCode.BAD_TOKEN, CloseCode.FORBIDDEN) else LocalProtocolError(text)
    )


class Batch(msgspec.Struct):
    """What one frame brought, in order."""

    feed: FeedWatch
    events: list[FeedEvent]
    cursor: str | None
    """Where to go on once all of them were handled."""
    gaps: int = 0
    """How many gaps were reported before the events."""
    away: bool = False
    """Nobody answers there now; a batch that comes later says that somebody does again."""


class WatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to follow, the same for all feeds of one watch."""

    filter: Filter = Filter()
    level: Level = "milestones"
    max_rate_hz: float | None = None
    backoff_s: tuple[float, float] = (0.5, 20.0)
    resume: bool = True
    """`False`: every connection begins without a cursor. For tests that show what resuming is for."""
    client_name: str = "otelprogress"
    open_timeout_s: float = 5.0
    keep_verdicts: bool = True
    """Write verdicts of lost operations to the history."""


class FeedWatch:
    """Follows one feed until it is gone, refuses us, or the task is cancelled.

    Args:
        target: the feed.
        options: how.
        sink: takes each batch; awaited before the next frame is read.
        cursor: where to begin; `None`: with a snapshot.
        known: revisions by run id that were handled after `cursor`: they are not given again.
        must_exist: whether a first connection that fails is an error, or something to wait for.
        rng: of the jitter.

    Attributes:
        cursor: where to go on, as far as the reader of the sink has come: it calls `settle`.
        handled: revisions by run id that it handled beyond `cursor`: it adds them.
    """

    def __init__(
        self,
        target: FeedTarget,
        options: WatchOptions,
        sink: Callable[[Batch], Awaitable[None]],
        *,
        cursor: str | None = None,
        known: dict[str, int] | None = None,
        must_exist: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self.target = target
        self.cursor = cursor
        self.handled: dict[str, int] = dict(known or {})
        self._known = dict(known or {})
        self._options = options
        self._sink = sink
        self._must_exist = must_exist
        self._backoff = Backoff(*options.backoff_s, rng=rng)
        self._asked_s: float | None = None
        self._greeted = False
        self._away = False
        self._last_cursor = cursor
        self._subscription = self._subscribe(cursor)

    def _subscribe(self, cursor: str | None) -> Subscription:
        # No window: one subscription a connection is slowed down by TCP itself.
        options = self._options
        return Subscription(
            filter=options.filter,
            level=options.level,
            max_rate_hz=options.max_rate_hz,
            cursor=cursor,
            window_bytes=0,
        )

    def settle(self, cursor: str | None) -> None:
        """Everything up to a position was handled; `None`: there is none yet, the snapshot is still coming."""
        if cursor is not None:
            self.cursor = cursor
            self.handled.clear()

    async def run(self) -> None:
        """Follow. Returns when the feed ended for good.

        Raises:
            FeedDenied: it does not let us in.
            FeedUnavailable: `must_exist`, and it does not answer.
            LocalProtocolError: it says that we broke the protocol.
            InvalidValue: it refuses the filter.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._connection()
            except ConnectionClosed as closed:
                if closed.rcvd is not None and not retryable(closed.rcvd.code):
                    if closed.rcvd.code != CloseCode.NORMAL:
                        raise denial(closed.rcvd.code, closed.rcvd.reason) from closed
                    if not self.target.is_collector:
                        return
                if self._asked_s is not None:
                    await self._tell_away()  # it said that it will take a while
            except TRANSPORT_ERRORS as error:
                if self._must_exist and not self._greeted:
                    raise FeedUnavailable(f"no feed answers at {self.target.url}: {_brief(error)}") from error
                self._note_retry_after(error)
                await self._tell_away()
            except RemoteProtocolError as broken:
                _LOG.warning("%s broke the feed protocol, connecting again: %s", self.target.url, broken)
            delay_s = self._backoff.next_delay_s(loop.time())
            asked_s, self._asked_s = self._asked_s, None
            if await self._pause(delay_s if asked_s is None else asked_s):
                return

    async def _tell_away(self) -> None:
        if not self._away:
            self._away = True
            await self._sink(Batch(self, [], None, away=True))

    async def _connection(self) -> NoReturn:
        """One connection, which always ends in an exception."""
        options = self._options
        if not options.resume and self._greeted:
            self._subscription = self._subscribe(None)
        if self.target.is_collector and not self._must_exist:
            self.target = await asyncio.to_thread(renewed, self.target)
        connection = await open_connection(self.target, timeout_s=options.open_timeout_s)
        subscription = self._subscription
        session = ClientSession([subscription], client=options.client_name, limits=CLIENT_LIMITS)
        silence_s = options.open_timeout_s
        try:
            while True:
                for frame in session.outgoing():
                    await connection.send(frame, text=True)
                async with asyncio.timeout(silence_s):
                    frame = await connection.recv(decode=False)
                events: list[FeedEvent] = []
                gaps = 0
                for item in session.receive(frame):
                    if isinstance(item, Delivery):
                        if self._is_new(item.event):
                            events.append(item.event)
                    elif isinstance(item, Welcome):
                        self._greeted, self._away = True, False
                        self._backoff.connected(asyncio.get_running_loop().time())
                        silence_s = max(1.0, item.ping_interval_s * _SILENCE_SHARE)
                    elif isinstance(item, Gap):
                        gaps += 1
                    elif isinstance(item, Error):
                        raise self._refused(item)
                if session.drain is not None:
                    self._asked_s = self._backoff.asked_delay_s(*session.drain.reconnect_after_s)
                if events or gaps or subscription.cursor != self._last_cursor:
                    self._last_cursor = subscription.cursor
                    await self._sink(Batch(self, events, subscription.cursor, gaps))
        except RemoteProtocolError as broken:
            await hang_up(connection, broken.code)
            raise
        finally:
            await hang_up(connection)

    def _is_new(self, event: FeedEvent) -> bool:
        """Whether it was not handled by whoever saved our cursor."""
        if not self._known:
            return True
        return event.revision > self._known.get(event.operation.id, 0)

    def _refused(self, error: Error) -> FeedError | InvalidValue:
        text = f"{self.target.url} refuses the subscription: {error.message or error.code}"
        if error.code in ("unauthorized", "forbidden"):
            return FeedDenied(text)
        return InvalidValue(text) if error.code == "invalid" else LocalProtocolError(text)

    def _note_retry_after(self, error: BaseException) -> None:
        if isinstance(error, InvalidStatus):
            value = error.response.headers.get("Retry-After", "")
            if value.isdecimal():
                self._asked_s = self._backoff.asked_delay_s(0.0, min(float(value), _MAX_RETRY_AFTER_S))

    async def _pause(self, delay_s: float) -> bool:
        """Wait before the next attempt; `True`: there is nothing to wait for, the process is gone."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + delay_s
        while True:
            if self.target.gone and not await self._follow_successor():
                return True
            left_s = until_s - loop.time()
            if left_s <= 0:
                return False
            await asyncio.sleep(min(left_s, _LOOK_FOR_DEATH_EVERY_S) if self.target.pid else left_s)

    async def _follow_successor(self) -> bool:
        """Give the verdicts of a process that is gone; whether another one now serves the address we were given."""
        await self._pronounce_lost()
        if not self._must_exist:
            return False
        successor = target_at(self.target.url)
        if not successor.pid or successor.gone:
            return False
        self.target = successor
        self._subscription = self._subscribe(None)
        return True

    async def _pronounce_lost(self) -> None:
        lost = [view for view in self._subscription.operations if view.live and self._died(view)]
        cause = f"process {self.target.pid} is gone"
        now_unix_ns = SystemClock().time_unix_ns()
        events = [lost_event(view, now_unix_ns, cause) for view in lost]
        if events and self._options.keep_verdicts:
            await asyncio.to_thread(_record, lost, cause)
        if events:
            await self._sink(Batch(self, events, self._subscription.cursor))

    def _died(self, view: OperationView) -> bool:
        """Whether its writer is gone too: a child process may outlive the parent that showed it."""
        return view.process_id in (None, self.target.pid) or is_gone(view.process_id or 0, "")


def lost_event(view: OperationView, now_unix_ns: int, cause: str) -> FeedEvent:
    """The verdict of a reader about an operation whose host is gone: it says so itself, in no feed."""
    evidence_unix_ns = max(view.started_at_unix_ns, view.updated_at_unix_ns)
    lost = msgspec.structs.replace(
        view,
        state=State.LOST,
        revision=view.revision + 1,
        as_of_unix_ns=now_unix_ns,
        ended_at_unix_ns=evidence_unix_ns,
        rate=None,
        eta=None,
        stalled=False,
        stalled_since_unix_ns=None,
        lost_detector="pid",
        lost_evidence_unix_ns=evidence_unix_ns,
        lost_cause=cause,
    )
    return FeedEvent(
        kind="operation.ended",
        operation=lost,
        revision=lost.revision,
        previous_durable=view.revision,
        time_unix_ns=evidence_unix_ns,
    )


def _record(lost: list[OperationView], cause: str) -> None:
    """Write verdicts to the history. It is a convenience: what fails there is not the reader's problem."""
    from otelprogress.feed.history import History

    try:
        history = History()
        for view in lost:
            history.mark_lost(view.id, "pid", cause, max(view.started_at_unix_ns, view.updated_at_unix_ns))
        history.close()
    except Exception:
        _LOG.debug("the history did not take a verdict", exc_info=True)


async def snapshot(target: FeedTarget, wanted: Filter, *, timeout_s: float = 5.0) -> list[OperationView]:
    """Everything at one feed that matches now, all pages.

    Raises:
        FeedDenied: it does not let us in.
        FeedUnavailable: nothing answers there, or not within `timeout_s`.
        InvalidValue: it refuses the filter.
    """
    found: list[OperationView] = []
    try:
        async with asyncio.timeout(timeout_s):
            connection = await open_connection(target, timeout_s=timeout_s)
            try:
                session = ClientSession(client="otelprogress", limits=CLIENT_LIMITS)
                page = 0
                while True:
                    page += 1
                    subscription = Subscription(str(page), filter=wanted, level="terminal", window_bytes=0)
                    session.add(subscription)
                    while subscription.cursor is None:
                        for frame in session.outgoing():
                            await connection.send(frame, text=True)
                        for item in session.receive(await connection.recv(decode=False)):
                            if isinstance(item, Error):
                                raise InvalidValue(
                                    f"{target.url} refuses the filter: {item.message or item.code}"
                                )
                    session.remove(subscription)
                    views = subscription.operations
                    found += views
                    if not subscription.more or not views:
                        return found
                    wanted = msgspec.structs.replace(wanted, after=views[-1].id)
            finally:
                await hang_up(connection)
    except ConnectionClosed as closed:
        if closed.rcvd is not None and not retryable(closed.rcvd.code):
            raise denial(closed.rcvd.code, closed.rcvd.reason) from closed
        raise FeedUnavailable(f"{target.url} closed the connection: {_brief(closed)}") from closed
    except TRANSPORT_ERRORS as error:
        raise FeedUnavailable(f"no feed answers at {target.url}: {_brief(error)}") from error


def _brief(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, InvalidHandshake) and error.__cause__ is not None:
        return f"{error} ({error.__cause__})"
    return str(error) or type(error).__name__


async def hang_up(connection: ClientConnection, code: int = CloseCode.NORMAL) -> None:
    """Say goodbye in the time of one round trip; a peer that does not answer is not waited for."""
    try:
        connection.close_timeout = 0.5
        async with asyncio.timeout(1.0):
            await connection.close(code)
    except TRANSPORT_ERRORS:
        pass
    finally:
        connection.transport.abort()
