"""`GET /v1/feed`: the feed protocol over WebSocket, for many.

The protocol is `ServerSession`'s; what is here decides before the upgrade, moves frames between sessions and
connections, and holds peers to their times. A reader that does not keep up stands still in the shared log: there is no queue
in which its frames would wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from otelprogress.feed.connection import STALL_LOOK_S, WRITE_HIGH_BYTES, PeerTimes, ServerLimits
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import SUBPROTOCOL
from otelprogress.protocol.server_session import Commands
from otelprogress.protocol.session import ServerSession
from otelprogress_collector.api.problem import Problem, busy
from otelprogress_collector.api.wire import text_frames
from otelprogress_collector.api.ws_protocol import EXTENSION, CollectorWebSocket
from otelprogress_collector.auth.grants import token_in_frame
from otelprogress_collector.auth.rate import Doorstep

if TYPE_CHECKING:
    from otelprogress_collector.api.access import Access
    from otelprogress_collector.api.delivery import Delivery
    from otelprogress_collector.api.wire import SharedWire
    from otelprogress_collector.host import CollectorHost

_LOG = logging.getLogger("otelprogress_collector.api")

FEED_LIMITS: Final = ServerLimits(max_feed_clients=20_000, max_unauthenticated=1_024)
_SOONEST_S: Final = 0.001


class FeedStats(msgspec.Struct):
    """What the feed had to refuse or survive, since its start."""

    refused: int = 0
    """Upgrades answered with an HTTP error."""
    connections: int = 0
    """Upgrades made."""
    failures: int = 0
    """Errors of our own: a bug here."""


class FeedReader:
    """One connection of the feed."""

    __slots__ = ("_access", "_delivery", "_hasty", "_session", "_times", "_wire", "connection", "due_s")

    def __init__(
        self,
        connection: CollectorWebSocket,
        session: ServerSession,
        *,
        access: Access,
        delivery: Delivery,
        wire: SharedWire,
        limits: ServerLimits,
        now_s: float,
    ) -> None:
        self.connection = connection
        self.due_s = inf
        self._hasty = False
        self._access = access
        self._session = session
        self._delivery = delivery
        self._wire = wire
        self._times = PeerTimes(connection, limits, now_s)
        connection.on_writable = self._on_writable

    @property
    def authenticated(self) -> bool:
        """Whether its `hello` was accepted."""
        return self._session.grant is not None

    def tick_interests(self) -> list[tuple[Matcher, float]]:
        """What it wants ticks of, and how often a second."""
        return self._session.tick_interests() if self.authenticated else []

    def receive(self, frame: str | bytes, now_s: float, now_unix_ns: int) -> None:
        """Take one message of the client and send what answers it. Called while the host may be read."""
        if self.recheck():
            self._session.receive(frame, now_s, now_unix_ns)
            self._hasty = self._session.follows_ticks
            self.pump(now_s, now_unix_ns)
            if self._session.closed is None:
                self.plan(now_s)

    def pump(self, now_s: float, now_unix_ns: int) -> None:
        """Send what the session has, as far as the peer reads."""
        connection, session = self.connection, self._session
        if connection.paused:
            if not connection.is_open:
                self._delivery.remove(self)
                return
            session.check_deadlines(now_s)
        elif frames := session.outgoing(now_s, now_unix_ns, budget_bytes=WRITE_HIGH_BYTES):
            wire = self._wire.of(frames)
            connection.write(wire)
            if len(wire) >= WRITE_HIGH_BYTES and not connection.paused:
                # There is more. The others come first; a backlog goes on after them.
                self._delivery.want_turn(self)
        if session.closed is not None:
            connection.shut(*session.closed)
            self._delivery.remove(self)
        elif self._hasty:
            self.plan(now_s)

    def look(self, now_s: float, now_unix_ns: int) -> None:
        """Ping, judge, and go on."""
        self._times.tend(now_s)
        self.pump(now_s, now_unix_ns)

    def recheck(self) -> bool:
        """Whether it may go on: its token was not revoked."""
        if self._access.revoked(self._session.grant):
            self.connection.shut(CloseCode.BAD_TOKEN, "the token was revoked")
            self._delivery.remove(self)
            return False
        return True

    def drain(self, now_s: float) -> None:
        """Have what is owed sent, then `drain`, then close with 1012."""
        self._session.drain(now_s)
        self._delivery.want_turn(self)

    def fail(self) -> None:
        """End it: a fault of ours."""
        self.connection.shut(CloseCode.INTERNAL, "internal error")
        self._delivery.remove(self)

    def _on_writable(self) -> None:
        self._delivery.want_turn(self)

    def plan(self, now_s: float) -> None:
        """Say when to look at it next."""
        at_s = self._times.next_look_s(now_s)
        deadline_s = self._session.next_deadline_s()
        if deadline_s is not None:
            # While the peer does not read, frames that are due stay so: what is left are the session's own ends.
            soonest_s = now_s + (STALL_LOOK_S if self.connection.paused else _SOONEST_S)
            at_s = min(at_s, max(soonest_s, deadline_s))
        self._delivery.look_at(self, at_s, now_s)


class Feed:
    """The ASGI application of `/v1/feed`; needs uvicorn with `ws=CollectorWebSocket`.

    Args:
        host: what is served.
        access: who may read what.
        delivery: gives the turns.
        limits: how many may connect, and their times.
        doorstep: counts the connections that have shown no token yet; `None`: one of 64 an address, and
            `limits.max_unauthenticated` in all.
        server_info: told in `welcome`.
        commands: takes commands; `None`: they are answered `unsupported`.
    """

    def __init__(
        self,
        host: CollectorHost,
        access: Access,
        delivery: Delivery,
        *,
        limits: ServerLimits = FEED_LIMITS,
        doorstep: Doorstep | None = None,
        server_info: Mapping[str, str] | None = None,
        commands: Commands | None = None,
    ) -> None:
        self._commands = commands
        self.limits = limits
        self.stats = FeedStats()
        self.draining = False
        self._host = host
        self._access = access
        self._delivery = delivery
        self._wire = delivery.share(text_frames)
        self._server_info = dict(server_info or {})
        self._doorstep = doorstep if doorstep is not None else Doorstep(total=limits.max_unauthenticated)
        self._readers: set[FeedReader] = set()
        self._known = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def client_count(self) -> int:
        """Clients that are connected and have shown a token."""
        return self._known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection to its end."""
        connection: CollectorWebSocket | None = scope.get("extensions", {}).get(EXTENSION)
        if connection is None:
            raise RuntimeError("the feed needs uvicorn with ws=CollectorWebSocket")
        await receive()
        address: str | None = scope["client"][0] if scope.get("client") else ""
        try:
            token = self._admit(scope)
            await self._access.authority.prepare(token)
            # Who shows a good token with the request does not stand in a queue of strangers.
            if self._access.is_good(token):
                address = None
            elif address is not None and not self._doorstep.enter(address):
                raise busy("too many connections have shown no token yet", 1)
        except Problem as refused:
            self.stats.refused += 1
            await refused.answer(send, upgrade=True)
            return
        reader: FeedReader | None = None
        try:
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
            connection.forget_handshake()
            reader = self._open(connection, token)
            await self._converse(reader, address, receive)
        finally:
            if reader is not None and reader.authenticated:
                self._known -= 1
            elif address is not None:
                self._doorstep.leave(address)
            if reader is not None:
                self._delivery.remove(reader)
                self._readers.discard(reader)
                if not self._readers:
                    self._empty.set()

    def _admit(self, scope: Scope) -> str | None:
        """Decide before the upgrade; gives the token of the request, unjudged.

        Raises:
            Problem: the upgrade is refused.
        """
        self._access.admit(scope)
        if SUBPROTOCOL not in scope["subprotocols"]:
            raise Problem(HTTPStatus.BAD_REQUEST, f"the feed speaks the subprotocol {SUBPROTOCOL}")
        token = self._access.token(scope)
        if self.draining:
            raise busy("the collector ends or restarts", 1)
        if self.client_count >= self.limits.max_feed_clients:
            raise busy(f"{self.limits.max_feed_clients} clients are connected")
        return token

    def _open(self, connection: CollectorWebSocket, token: str | None) -> FeedReader:
        clock = self._host.clock
        now_s = clock.monotonic_s()
        session = ServerSession(
            self._host.hub,
            authorize=self._access.authorizer(),
            limits=self._host.hub.limits,
            server_info=self._server_info,
            now_s=now_s,
            token=token,
            commands=self._commands,
        )
        reader = FeedReader(
            connection,
            session,
            access=self._access,
            delivery=self._delivery,
            wire=self._wire,
            limits=self.limits,
            now_s=now_s,
        )
        connection.on_shutdown = lambda: reader.drain(clock.monotonic_s())
        self.stats.connections += 1
        self._readers.add(reader)
        self._empty.clear()
        self._delivery.add(reader)
        reader.plan(now_s)
        return reader

    async def _converse(self, reader: FeedReader, address: str | None, receive: Receive) -> None:
        clock = self._host.clock
        while (message := await receive())["type"] != "websocket.disconnect":
            frame = _frame_of(message)
            if (token := token_in_frame(frame)) is not None:
                await self._access.authority.prepare(token)
            await self._host.readable()
            known_before = reader.authenticated
            try:
                reader.receive(frame, clock.monotonic_s(), clock.time_unix_ns())
            except Exception:
                self.stats.failures += 1
                _LOG.exception("a feed connection failed")
                reader.fail()
            if reader.authenticated and not known_before:
                if address is not None:
                    self._doorstep.leave(address)
                self._known += 1
                reader.connection.authenticate(self.limits.max_client_frame_bytes)
                if self.client_count > self.limits.max_feed_clients:
                    reader.connection.shut(
                        CloseCode.OVERLOADED, f"{self.limits.max_feed_clients} clients are connected"
                    )

    def tick_interests(self) -> dict[bytes, tuple[Matcher, float]]:
        """What anybody wants ticks of, and how often a second at most, by the key of the matcher."""
        found: dict[bytes, tuple[Matcher, float]] = {}
        for reader in self._readers:
            for matcher, rate_hz in reader.tick_interests():
                if matcher.key not in found or found[matcher.key][1] < rate_hz:
                    found[matcher.key] = (matcher, rate_hz)
        return found

    async def drain(self, timeout_s: float) -> None:
        """Refuse upgrades, send what is owed, say goodbye with 1012; cut who has not gone after `timeout_s`."""
        self.draining = True
        await self._host.readable()
        for reader in tuple(self._readers):
            reader.drain(self._host.clock.monotonic_s())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        for reader in tuple(self._readers):
            reader.connection.transport.abort()


def _frame_of(message: Any) -> str | bytes:
    text: str | None = message.get("text")
    frame: bytes = message.get("bytes") or b""
    return text if text is not None else frame


class UpgradeRequired:
    """The ASGI application of `/v1/feed` for those who ask for no WebSocket."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """426."""
        refusal = Problem(
            HTTPStatus.UPGRADE_REQUIRED,
            f"the feed is a WebSocket of the subprotocol {SUBPROTOCOL}; /v1/feed/sse is one of plain HTTP",
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )
        await refusal.answer(send)
