"""The WebSocket connections of the collector's port: what uvicorn's lack for a feed that faces hostile peers.

`CollectorWebSocket` goes to uvicorn as `ws=`. It writes many frames with one system call, knows when it last heard a
byte and how it ended, and closes without waiting for a peer that does not read. It never pings by itself: who
serves a connection does, or, on the worker link, does not.

An ASGI application finds the connection under it as `scope["extensions"]["otelprogress.connection"]`. Beside the
usual `receive` (a message at a time; reading pauses until it is called again) that is all it needs:

`transport`
    asyncio's; `transport.get_extra_info("socket")` takes TCP keepalive.
`write_frames(frames)`
    Text frames in one write, without waiting; `paused` says that the peer does not read, or that it is over.
`authenticate(max_frame_bytes)`
    The peer is known: its messages may be this large. Before it they may have 4 KiB.
`shut(code, reason)`
    A close frame now, an abort if the peer has not answered within two seconds. `receive` gives the disconnect.
`end`
    `None` while it is open, then how the TCP connection ended (`End`); `await ended()` waits for it. A peer that said
    goodbye with a close frame has its `websocket.disconnect` first and `end` a moment later.
`last_heard_s`, `buffered_bytes`, `written_bytes`, `is_open`
    For those who watch over it.
`on_writable`, `on_shutdown`
    Functions to be called when a peer that did not read does again, and when the server is told to end (instead of
    uvicorn's bare 1012).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

import msgspec
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from otelprogress.feed.connection import WRITE_HIGH_BYTES, WRITE_LOW_BYTES
from otelprogress.feed.silence import silent_logger
from otelprogress_collector.api.wire import text_frames

EXTENSION: Final = "otelprogress.connection"
MAX_FRAME_BEFORE_AUTH_BYTES: Final = 4 * 1024
CLOSE_TIMEOUT_S: Final = 2.0
"""How long a peer may take to answer a close."""
_UNSENT_BYTES: Final = 128 * 1024
"""What the kernel may hold of a connection beyond what the peer has room for."""
_MAX_HOARD_BYTES: Final = 1024 * 1024
"""Pongs for a peer that pings without reading end here: nothing of ours writes this far."""
_TOO_MANY_HEADERS: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
_SILENCE: Final = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})
_RESET: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


class End(msgspec.Struct, frozen=True):
    """How a TCP connection ended."""

    kind: Literal["closed", "fin", "reset", "timeout", "error"]
    """`closed`: by this side, or after the peer's close frame; `fin`, `reset`: by the peer, without one; `timeout`: the
    kernel found the peer's host silent (TCP keepalive); `error`: anything else, see `error`."""
    error: BaseException | None = None


def end_of(error: BaseException | None, *, peer_hung_up: bool) -> End:
    """Judge what asyncio says at the end of a connection.

    Args:
        error: of `connection_lost`.
        peer_hung_up: whether the peer's FIN came before this side closed and before any close frame.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in _SILENCE or isinstance(error, TimeoutError):
        return End("timeout", error)
    if number in _RESET or isinstance(error, ConnectionError):
        return End("reset", error)
    if error is not None:
        return End("error", error)
    return End("fin" if peer_hung_up else "closed")


def tune(transport: asyncio.BaseTransport) -> None:
    """Let small writes go at once, and a slow reader be noticed early."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        # asyncio does this only for sockets that say their protocol; those of a listener made elsewhere do not.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Else the kernel takes megabytes for a peer that does not read before anybody notices.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


class CollectorWebSocket(WebSocketsSansIOProtocol):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn.max_message_size = MAX_FRAME_BEFORE_AUTH_BYTES
        # It would log every frame at the level DEBUG, and tokens are in some.
        self.conn.logger = silent_logger("otelprogress_collector.websockets")
        self.conn.debug = False
        self.last_heard_s = self.loop.time()
        self.written_bytes = 0
        self.paused = False
        self.on_writable: Callable[[], None] | None = None
        self.on_shutdown: Callable[[], None] | None = None
        self.end: End | None = None
        self._ended: asyncio.Future[End] | None = None
        self._peer_hung_up = False
        self._fragments: bytearray | None = None

    # --- what an application uses ------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return not self.close_sent and self.handshake_complete and self.conn.state is State.OPEN

    @property
    def buffered_bytes(self) -> int:
        """What the kernel has not accepted yet."""
        return self.transport.get_write_buffer_size()

    def authenticate(self, max_frame_bytes: int) -> None:
        """Let the messages of this peer be this large from now on."""
        self.conn.max_message_size = max_frame_bytes

    def forget_handshake(self) -> None:
        """Drop the headers of the upgrade: some KB a connection, and a token in memory for no reason."""
        for message in (self.request, self.response):
            message.headers.clear()
        self.scope["headers"] = []
        self.scope["subprotocols"] = []

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Send text frames with one write, which is one system call while the peer reads."""
        self.write(text_frames(frames))

    def write(self, wire: bytes) -> None:
        """Send whole frames that are encoded already."""
        self.written_bytes += len(wire)
        self.transport.write(wire)

    def ping_now(self) -> None:
        """Ask for a sign of life; any byte answers."""
        self.conn.send_ping(b"")
        self._flush()

    def shut(self, code: int, reason: str = "") -> None:
        """Close without waiting: a close frame now, an abort if the peer has not answered in time."""
        if self.is_open:
            self.conn.send_close(code, reason.encode()[:120].decode(errors="ignore"))
            self._flush()
            self.close_sent = self.paused = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            if self.read_paused:  # the peer's answer has to be read
                self.read_paused = False
                self.transport.resume_reading()
        self._abort_later()

    async def ended(self) -> End:
        """How it ended, once it has."""
        if self.end is not None:
            return self.end
        if self._ended is None:
            self._ended = self.loop.create_future()
        return await asyncio.shield(self._ended)

    # --- what asyncio calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection from HTTP."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)
        tune(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember how it ended before the application is told."""
        self.end = end_of(exc, peer_hung_up=self._peer_hung_up)
        self.paused = True
        self.on_writable = self.on_shutdown = None
        super().connection_lost(exc)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(self.end)

    def eof_received(self) -> None:
        """Tell a peer that hangs up from one that said goodbye."""
        self._peer_hung_up = not self.close_sent and self.conn.close_rcvd is None
        self._abort_later()

    def data_received(self, data: bytes) -> None:
        """Any byte is a sign of life."""
        self.last_heard_s = self.loop.time()
        self.conn.receive_data(data)
        # What came whole before a broken frame counts.
        self.handle_events()
        if self.conn.parser_exc is not None and not self.close_sent:
            self.paused = True
            self.handle_parser_exception()
            self._abort_later()
        elif not self.handshake_initiated and self.conn.handshake_exc is not None:
            # The HTTP parser took what this one does not: more header lines, or longer ones.
            self.transport.write(_TOO_MANY_HEADERS)
            self.transport.close()
            self._abort_later()
        if self.buffered_bytes > _MAX_HOARD_BYTES:
            self.transport.abort()

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self.paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """There is room again: let the session go on."""
        self.paused = not self.is_open
        super().resume_writing()
        if self.on_writable is not None:
            self.on_writable()

    # --- what uvicorn calls ------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server ends: let who serves the connection say so in its own way."""
        if self.on_shutdown is not None and self.is_open:
            self.on_shutdown()
        else:
            super().shutdown()
            self._abort_later()

    def handle_connect(self, event: Request) -> None:
        """Give the application the connection under its scope."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            # The application starts in a later turn of the loop.
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]  # typed as uvicorn's own

    def handle_cont(self, event: Any) -> None:
        """Put fragments together at once: a million of one byte are no million objects."""
        if self._fragments is None:
            self._fragments = bytearray(self.frames[0])
        self._fragments += event.data
        if event.fin:
            self.frames = [bytes(self._fragments)]
            self._fragments = None
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """Hand a message over, unless it is no UTF-8: the peer's mistake, and worth no line in the log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                self.frames[0].decode()
            except UnicodeDecodeError:
                self.frames = []
                self.shut(1007, "a text frame that is no UTF-8")
                return
        super().send_receive_event_to_app()

    def handle_close(self, event: Any) -> None:
        """The peer goes. It may have stopped reading before."""
        self.paused = True
        super().handle_close(event)
        if self.transport.is_closing():
            self._abort_later()

    def _abort_later(self) -> None:
        # A transport that is closed first sends what it holds, for as long as the peer likes.
        if self.close_timer is None and self.end is None:
            self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def _flush(self) -> None:
        with contextlib.suppress(RuntimeError):  # the transport is gone
            self.write(b"".join(self.conn.data_to_send()))
