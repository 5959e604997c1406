"""`GET /v1/feed/sse`: the feed as server-sent events, for what has no WebSocket.

One `ServerSession` with one subscription, spoken to by the URL. Each frame of the protocol is one event: its type
is the event's name, its JSON the data, its cursor the id. Of a digest the data is its text, line by line. A bookmark is an id
without data, which moves a browser's position and tells nobody. `Last-Event-ID` is the cursor to go on from. A reader that does not keep up stands still in the
shared log, as one of the WebSocket does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.types import Receive, Scope, Send

from otelprogress.feed.connection import STALL_LOOK_S, WRITE_HIGH_BYTES, PeerTimes
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.encoding import encode
from otelprogress.protocol.messages import PROTOCOL_VERSION, Hello, Subscribe
from otelprogress.protocol.session import ServerSession
from otelprogress_collector.api.access import header_values
from otelprogress_collector.api.feed import FEED_LIMITS
from otelprogress_collector.api.problem import Problem, busy
from otelprogress_collector.api.query import MAX_CURSOR_CHARS, StreamParameters, read_query
from otelprogress_collector.api.wire import SharedWire
from otelprogress_collector.api.ws_protocol import EXTENSION

if TYPE_CHECKING:
    from otelprogress.feed.connection import ServerLimits
    from otelprogress_collector.api.access import Access
    from otelprogress_collector.api.delivery import Delivery
    from otelprogress_collector.api.http_protocol import CollectorHttp
    from otelprogress_collector.host import CollectorHost

KEEPALIVE_S: Final = 15.0
"""A comment after so long without a byte: what is between closes connections that are silent."""
RETRY_MS: Final = 1_000
"""How long a browser waits before it comes back."""
_SUBSCRIPTION: Final = "1"
_SOONEST_S: Final = 0.001
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
_HEAD: Final = re.compile(rb'\{"type":"([a-z_]+)"')


class _Position(msgspec.Struct):
    cursor: str | None = None
    text: str = ""


_POSITION: Final = msgspec.json.Decoder(_Position)


def event_stream(frames: Sequence[bytes]) -> bytes:
    """Frames of the protocol as events of a stream."""
    return b"".join(map(_event, frames))


def _event(frame: bytes) -> bytes:
    head = _HEAD.match(frame)
    assert head is not None, "a frame begins with its type"
    kind = head[1]
    said = _POSITION.decode(frame)
    position = b"id: %b\n" % said.cursor.encode() if said.cursor is not None else b""
    if kind == b"bookmark":
        return b": bookmark\n%b\n" % position
    if kind == b"digest":
        # For whoever pastes the stream into a prompt: quoting quotes costs tokens. It has no line ends but its own.
        data = b"".join(b"data: %b\n" % line.encode() for line in said.text.rstrip("\n").split("\n"))
        return b"event: digest\n%b%b\n" % (position, data)
    # JSON has no line ends outside of strings that we write, and none inside.
    return b"event: %b\n%bdata: %b\n\n" % (kind, position, frame)


class _Connection:
    """What `PeerTimes` holds a stream to: a byte accepted now and then. Nobody is pinged, a stream cannot answer."""

    __slots__ = ("http", "last_heard_s", "written_bytes")

    def __init__(self, http: CollectorHttp) -> None:
        self.http = http
        self.last_heard_s = inf
        self.written_bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent."""
        return not self.http.transport.is_closing()

    @property
    def buffered_bytes(self) -> int:
        """What the kernel has not accepted yet."""
        return self.http.buffered_bytes

    def ping_now(self) -> None:
        """Nothing to ask with."""

    def shut(self, code: int, reason: str) -> None:
        """Cut it: a peer that does not read cannot be told why."""
        self.http.transport.abort()


class StreamReader:
    """One stream: a task of its own writes, when `Delivery` gives it a turn."""

    __slots__ = (
        "_access",
        "_clock",
        "_connection",
        "_delivery",
        "_keepalive_at_s",
        "_over",
        "_session",
        "_times",
        "_turn",
        "due_s",
    )

    def __init__(
        self,
        http: CollectorHttp,
        session: ServerSession,
        *,
        access: Access,
        delivery: Delivery,
        limits: ServerLimits,
    ) -> None:
        self.due_s = inf
        self._session = session
        self._access = access
        self._delivery = delivery
        self._clock = access.clock
        self._connection = _Connection(http)
        self._times = PeerTimes(self._connection, limits, self._clock.monotonic_s())
        self._keepalive_at_s = 0.0
        self._over: tuple[int, str] | None = None
        self._turn = asyncio.Event()
        http.on_writable = self._turn.set

    def pump(self, now_s: float, now_unix_ns: int) -> None:
        """Something happened: the task goes on."""
        self._turn.set()

    def look(self, now_s: float, now_unix_ns: int) -> None:
        """Judge a peer that does not read, and go on."""
        self._times.tend(now_s)
        self._turn.set()

    def recheck(self) -> bool:
        """Whether it may go on: its token was not revoked."""
        if self._access.revoked(self._session.grant):
            self._over = (CloseCode.BAD_TOKEN, "the token was revoked")
            self._turn.set()
            return False
        return True

    def drain(self, now_s: float) -> None:
        """Have what is owed sent, then `drain`, then the end."""
        self._session.drain(now_s)
        self._turn.set()

    def fail(self) -> None:
        """End it: a fault of ours."""
        self._over = (CloseCode.INTERNAL, "internal error")
        self._turn.set()

    def cut(self) -> None:
        """End it without a word."""
        self._connection.http.transport.abort()

    async def run(self, send: Send, frames: list[bytes], host: CollectorHost, wire: SharedWire) -> None:
        """Write `frames`, then whatever comes, to the end."""
        connection = self._connection
        while connection.is_open:
            data = wire.of(frames) if frames else b""
            now_s = self._clock.monotonic_s()
            if not data and now_s >= self._keepalive_at_s and not connection.http.paused:
                data = b": \n\n"
            if data:
                connection.written_bytes += len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})
                self._keepalive_at_s = now_s + KEEPALIVE_S
            if (over := self._over or self._session.closed) is not None:
                farewell = b"event: close\ndata: %b\n\n" % encode({"code": over[0], "reason": over[1]})
                await send({"type": "http.response.body", "body": farewell, "more_body": False})
                return
            if len(data) < WRITE_HIGH_BYTES:
                self.plan(now_s)
                await self._turn.wait()
                self._turn.clear()
            # Else there is more. The others come first.
            await asyncio.sleep(0)
            await host.readable()
            frames = self._frames()

    def _frames(self) -> list[bytes]:
        now_s = self._clock.monotonic_s()
        if self._over is not None:
            return []
        if self._connection.http.paused:
            self._session.check_deadlines(now_s)
            return []
        return self._session.outgoing(now_s, self._clock.time_unix_ns(), budget_bytes=WRITE_HIGH_BYTES)

    def plan(self, now_s: float) -> None:
        """Say when to look at it next."""
        paused = self._connection.http.paused
        at_s = self._times.next_look_s(now_s)
        if not paused:
            at_s = min(at_s, self._keepalive_at_s)
        deadline_s = self._session.next_deadline_s()
        if deadline_s is not None:
            # While the peer does not read, frames that are due stay so.
            at_s = min(at_s, max(now_s + (STALL_LOOK_S if paused else _SOONEST_S), deadline_s))
        self._delivery.look_at(self, at_s, now_s)


class Streams:
    """The ASGI application of `/v1/feed/sse`; needs uvicorn with `http=CollectorHttp`.

    Args:
        host: what is served.
        access: who may read what.
        delivery: gives the turns.
        limits: how many streams there may be (`max_feed_clients`), and how long one may not read.
    """

    def __init__(
        self, host: CollectorHost, access: Access, delivery: Delivery, *, limits: ServerLimits = FEED_LIMITS
    ) -> None:
        self.draining = False
        self._host = host
        self._access = access
        self._delivery = delivery
        self._limits = limits
        self._readers: set[StreamReader] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._wire = delivery.share(event_stream)

    @property
    def client_count(self) -> int:
        """Streams that are open."""
        return len(self._readers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream to its end."""
        try:
            session, frames = await self._open(scope)
        except Problem as refused:
            await refused.answer(send)
            return
        reader = StreamReader(
            scope["extensions"][EXTENSION],
            session,
            access=self._access,
            delivery=self._delivery,
            limits=self._limits,
        )
        self._readers.add(reader)
        self._empty.clear()
        self._delivery.add(reader)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": b"retry: %d\n\n" % RETRY_MS, "more_body": True})
            await reader.run(send, frames, self._host, self._wire)
        finally:
            self._delivery.remove(reader)
            self._readers.discard(reader)
            if not self._readers:
                self._empty.set()

    async def _open(self, scope: Scope) -> tuple[ServerSession, list[bytes]]:
        """A session that is subscribed, and its first frames.

        Raises:
            Problem: the stream is refused.
        """
        principal = await self._access.reader(scope)
        hub = self._host.hub
        wanted, asked = read_query(
            scope["query_string"], StreamParameters, max_clauses=hub.limits.filter_clauses
        )
        resumed = [value for value in header_values(scope, b"last-event-id") if value]
        cursor = resumed[-1] if resumed else asked.cursor
        if cursor is not None and len(cursor) > MAX_CURSOR_CHARS:
            raise Problem(HTTPStatus.BAD_REQUEST, f"a cursor has at most {MAX_CURSOR_CHARS} characters")
        if self.draining:
            raise busy("the collector ends or restarts", 1)
        if len(self._readers) >= self._limits.max_feed_clients:
            raise busy(f"{self._limits.max_feed_clients} streams are open")
        await self._host.readable()
        grant = self._access.grant(principal)
        now_s, now_unix_ns = self._access.clock.monotonic_s(), self._access.clock.time_unix_ns()
        session = ServerSession(hub, authorize=lambda _: grant, limits=hub.limits, now_s=now_s)
        session.receive(encode(Hello(version=PROTOCOL_VERSION)), now_s, now_unix_ns)
        subscribe = Subscribe(
            id=_SUBSCRIPTION,
            filter=wanted,
            level=asked.level,
            max_rate_hz=asked.max_rate_hz,
            cursor=cursor,
            render=asked.render,
            max_tokens=asked.max_tokens,
        )
        session.receive(encode(subscribe), now_s, now_unix_ns)
        # The URL said what a client would have: the greeting is nobody's business.
        _, *frames = session.outgoing(now_s, now_unix_ns, budget_bytes=WRITE_HIGH_BYTES)
        if not session.subscription_count:
            raise Problem(
                HTTPStatus.BAD_REQUEST, "the subscription was refused: look at its filter and level"
            )
        return session, frames

    async def drain(self, timeout_s: float) -> None:
        """Refuse streams, send what is owed, end them; cut who does not read."""
        self.draining = True
        await self._host.readable()
        for reader in tuple(self._readers):
            reader.drain(self._access.clock.monotonic_s())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        for reader in tuple(self._readers):
            reader.cut()
