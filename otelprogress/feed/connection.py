"""One WebSocket connection of the server, under a session or a worker link.

`ServedConnection` is the `websockets` connection with what a server that faces hostile peers adds: it knows when it last
heard a byte, writes many frames at once, closes without waiting for a peer that does not read, and refuses to
hoard answers. `SessionRunner` joins a connection and a `ServerSession`, which does no I/O itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State as WireState

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.protocol.close_codes import CloseCode

if TYPE_CHECKING:
    from otelprogress.feed.host import Host
    from otelprogress.protocol.session import ServerSession

_LOG = logging.getLogger("otelprogress.feed")

WRITE_HIGH_BYTES: Final = 128 * 1024
"""Above this much unsent data a session is not asked for more."""
WRITE_LOW_BYTES: Final = 32 * 1024
_MAX_HOARD_BYTES: Final = 1024 * 1024
"""Pongs for a peer that pings without reading end here: nothing of ours writes this far."""
STALL_LOOK_S: Final = 1.0
"""How often a peer that does not read is looked at."""


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the server allows and how long it waits; times in seconds, sizes in bytes."""

    max_feed_clients: int = 32
    """Authenticated feed connections; a further upgrade is answered 503."""
    max_unauthenticated: int = 64
    """Connections that have shown no token yet; a further one is dropped when it is accepted."""
    max_frame_before_auth_bytes: int = 4 * 1024
    max_client_frame_bytes: int = 64 * 1024
    max_worker_frame_bytes: int = 256 * 1024
    handshake_timeout_s: float = 5.0
    ping_interval_s: float = 25.0
    """A ping after this long without a byte from the client."""
    pong_timeout_s: float = 8.0
    """Closed 4510 when nothing at all was heard for this long after a ping."""
    write_stall_timeout_s: float = 30.0
    """Closed 4508 when the peer accepted no byte for this long while data waited."""
    close_timeout_s: float = 2.0
    """How long a peer may take to answer a close."""


class HeldConnection(Protocol):
    """What `PeerTimes` needs of a connection."""

    last_heard_s: float
    """When the last byte came."""
    written_bytes: int
    """All that was given to the transport so far."""

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""

    @property
    def buffered_bytes(self) -> int:
        """What the kernel has not accepted yet."""

    def ping_now(self) -> None:
        """Ask for a sign of life."""

    def shut(self, code: int, reason: str) -> None:
        """Close without waiting for the peer."""


class ConnectionOwner(Protocol):
    """What a connection tells about itself."""

    limits: ServerLimits

    def connection_opened(self, connection: ServedConnection) -> bool:
        """Whether it may stay."""

    def connection_closed(self, connection: ServedConnection) -> None:
        """It is gone."""


class ServedConnection(ServerConnection):
    """A server connection of `websockets` that survives peers who ping, stall or never close."""

    owner: ClassVar[ConnectionOwner]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.token: str | None = None
        """What the upgrade request carried as its token, unchecked."""
        self.path = ""
        self.authenticated = False
        self.last_heard_s = self.loop.time()
        self.on_writable: Callable[[], None] | None = None
        self.written_bytes = 0
        self._abort_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the owner, which may refuse at once."""
        super().connection_made(transport)
        # asyncio does this only for sockets that say their protocol; those accepted from `create_server` do not,
        # and a small frame after a small frame would wait 40 ms for the peer's delayed acknowledgement.
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.owner.connection_opened(self):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers and tell the owner."""
        super().connection_lost(exc)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self.on_writable = None
        self.owner.connection_closed(self)

    def data_received(self, data: bytes) -> None:
        """Any byte is a sign of life."""
        self.last_heard_s = self.loop.time()
        super().data_received(data)
        if self.buffered_bytes > _MAX_HOARD_BYTES:
            self.transport.abort()

    def resume_writing(self) -> None:
        """There is room again: let the session go on."""
        super().resume_writing()
        if self.on_writable is not None:
            self.on_writable()

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.protocol.state is WireState.OPEN

    @property
    def buffered_bytes(self) -> int:
        """What the kernel has not accepted yet."""
        return self.transport.get_write_buffer_size()

    def authenticate(self, max_frame_bytes: int) -> None:
        """Count this peer as known from now on, and let its messages be this large."""
        self.authenticated = True
        self.protocol.max_message_size = max_frame_bytes

    def forget_handshake(self) -> None:
        """Drop the headers of the upgrade: 4 KB a connection, and a token in memory for no reason."""
        # Emptied, not dropped: the parser's frame keeps the request itself for as long as it lives.
        for message in (self.request, self.response):
            if message is not None:
                message.headers.clear()

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Send text frames with one write, which is one system call while the peer reads."""
        send_text = self.protocol.send_text
        for frame in frames:
            send_text(frame)
        chunks = self.protocol.data_to_send()
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.written_bytes += len(data)
        self.transport.write(data)

    def ping_now(self) -> None:
        """Ask for a sign of life; any byte answers."""
        self.protocol.send_ping(b"")
        self.send_data()

    def shut(self, code: int, reason: str) -> None:
        """Close without waiting: a close frame now, an abort if the peer has not answered in time."""
        if self.is_open:
            self.protocol.send_close(code, reason[:120])
            self.send_data()
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(self.owner.limits.close_timeout_s, self.transport.abort)


class PeerTimes:
    """The times a peer is held to: the ping and its answer, and the byte it has to accept while data waits.

    Args:
        connection: is pinged, and shut where a time is over.
        limits: the times.
        now_s: the clock that all `now_s` and the connection's `last_heard_s` come from.
    """

    __slots__ = ("_accepted_at_s", "_accepted_bytes", "_connection", "_limits", "_pinged_at_s")

    def __init__(self, connection: HeldConnection, limits: ServerLimits, now_s: float) -> None:
        self._connection = connection
        self._limits = limits
        self._pinged_at_s: float | None = None
        self._accepted_bytes = 0
        self._accepted_at_s = now_s

    def tend(self, now_s: float) -> None:
        """Ping where that is due; shut a peer that neither reads nor answers."""
        connection, limits = self._connection, self._limits
        if not connection.is_open:
            return
        if buffered := connection.buffered_bytes:
            # While a write is pending only its progress decides: the pong may be stuck behind it.
            self._pinged_at_s = None
            accepted = connection.written_bytes - buffered
            if accepted != self._accepted_bytes:
                self._accepted_bytes, self._accepted_at_s = accepted, now_s
            elif now_s - self._accepted_at_s >= limits.write_stall_timeout_s:
                connection.shut(CloseCode.SLOW, f"no byte accepted for {limits.write_stall_timeout_s:g} s")
            return
        self._accepted_bytes, self._accepted_at_s = connection.written_bytes, now_s
        if self._pinged_at_s is not None and connection.last_heard_s >= self._pinged_at_s:
            self._pinged_at_s = None
        if self._pinged_at_s is not None:
            if now_s - self._pinged_at_s >= limits.pong_timeout_s:
                connection.shut(
                    CloseCode.NO_PONG, f"nothing heard for {limits.pong_timeout_s:g} s after a ping"
                )
        elif now_s - connection.last_heard_s >= limits.ping_interval_s:
            connection.ping_now()
            self._pinged_at_s = now_s

    def next_look_s(self, now_s: float) -> float:
        """When to `tend` again."""
        if self._connection.buffered_bytes:  # nobody is pinged meanwhile: a ping that is due does not count
            return now_s + min(STALL_LOOK_S, self._limits.write_stall_timeout_s / 4)
        if self._pinged_at_s is not None:
            return self._pinged_at_s + self._limits.pong_timeout_s
        return max(now_s, self._connection.last_heard_s + self._limits.ping_interval_s)


class SessionRunner:
    """Moves frames between one connection and one feed session, and watches over both.

    Everything runs on the server's loop. The session reads the hub, so it is called under the host's lock.
    """

    def __init__(
        self, connection: ServedConnection, session: ServerSession, host: Host, limits: ServerLimits
    ) -> None:
        self.connection = connection
        self.session = session
        self._host = host
        self._loop = connection.loop
        self._timer: asyncio.TimerHandle | None = None
        self._times = PeerTimes(connection, limits, self._loop.time())
        connection.on_writable = self.pump

    def receive(self, frame: str | bytes) -> None:
        """Hand one message of the client to the session and send what it answers."""
        clock = self._host.clock
        try:
            with self._host.lock:
                self.session.receive(frame, clock.monotonic_s(), clock.time_unix_ns())
        except RemoteProtocolError as broken:
            self.connection.shut(broken.code, str(broken))
        except Exception:
            self._fail()
        else:
            self.pump()

    def pump(self) -> None:
        """Send what the session has, as far as the peer reads; come back when it reads more."""
        connection = self.connection
        clock = self._host.clock
        try:
            if connection.is_open and not connection.paused:
                with self._host.lock:
                    frames = self.session.outgoing(
                        clock.monotonic_s(), clock.time_unix_ns(), budget_bytes=WRITE_HIGH_BYTES
                    )
                if frames:
                    connection.write_frames(frames)
                    if sum(map(len, frames)) >= WRITE_HIGH_BYTES and not connection.paused:
                        # There is more. The others come first; a backlog goes on after them.
                        self._loop.call_soon(self.pump)
            else:
                with self._host.lock:
                    self.session.check_deadlines(clock.monotonic_s())
            if (closed := self.session.closed) is not None:
                connection.shut(*closed)
        except Exception:
            self._fail()
        self._schedule()

    def drain(self) -> None:
        """Send what is owed, say that the server goes away, then close with 1012."""
        with self._host.lock:
            self.session.drain(self._host.clock.monotonic_s())
        self.pump()

    def stop(self) -> None:
        """The connection is gone: no timer may fire any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self) -> None:
        _LOG.debug("a feed connection failed", exc_info=True)
        self.connection.shut(CloseCode.INTERNAL, "internal error")

    def _on_timer(self) -> None:
        self._timer = None
        self._times.tend(self._loop.time())
        self.pump()

    def _schedule(self) -> None:
        """Keep one timer, at the first of all deadlines; one that fires early looks again."""
        connection, now_s = self.connection, self._loop.time()
        if not connection.is_open:
            self.stop()
            return
        at_s = self._times.next_look_s(now_s)
        with self._host.lock:
            deadline_s = self.session.next_deadline_s()
        if deadline_s is not None:
            wait_s = deadline_s - self._host.clock.monotonic_s()
            # While the peer does not read, frames that are due stay so: what is left are the session's own ends.
            at_s = min(at_s, now_s + max(STALL_LOOK_S if connection.paused else 0.001, wait_s))
        if self._timer is not None:
            if self._timer.when() <= at_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._on_timer)
