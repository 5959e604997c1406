"""One WebSocket connection over a plain socket, driven by the thread that owns it.

`websockets.sync` starts a second thread for each connection; a child process that reports to its parent shall
cost one. This is the sans-I/O protocol of websockets between a non-blocking socket and a poll loop.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import urllib.parse
from collections import deque
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import CONT, DATA_OPCODES, Frame
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from otelprogress.exceptions import FeedDenied, FeedUnavailable
from otelprogress.feed import fork

_SILENT: Final = logging.Logger("otelprogress.feed.link_wire", level=logging.CRITICAL + 1)  # noqa: LOG001 - it must not be found by name
"""No configuration can open it: at DEBUG, `websockets` writes headers, and with them tokens."""
_READ_BYTES: Final = 65_536
_MAX_MESSAGE_BYTES: Final = 262_144
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_DENIED_STATUSES: Final = frozenset({400, 401, 403, 404})

KEEPALIVE_IDLE_S: Final = 5
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_S: Final = 16
"""More than what the probes but the last take, so that those decide where nothing is on its way."""
_TCP_INFO_PROBES: Final = 3
"""Where Linux keeps the number of unanswered probes in `struct tcp_info`, in bytes."""


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel prove that the other host is there: 5 s idle, then 3 probes, 5 s apart.

    Only the kernels answer each other: a process that is stopped or busy for a minute is not taken for dead.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", KEEPALIVE_IDLE_S),  # its name on macOS
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def bound_silence(sock: socket.socket) -> None:
    """Let the kernel give a connection up whose bytes the other host has not acknowledged for 16 s.

    While bytes are on their way it sends no keepalive probes, and by itself it would send them again for a quarter
    of an hour. Only for connections on which little is said: a peer that stands still and has no room left
    acknowledges nothing either. Where the system cannot do this nothing is changed.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, round(UNACKNOWLEDGED_S * 1000))


def probed_in_vain(sock: socket.socket) -> bool:
    """Whether a keepalive probe is unanswered so far; `False` also where the system does not say so."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[_TCP_INFO_PROBES] > 0
    except OSError:  # it is closed
        return False


class LinkWire:
    """A connection being opened, open or closed. Not thread-safe: one thread owns it.

    Args:
        url: `ws://host:port/path` or `wss://…`. Looking up a name may take the resolver's time: the thread that owns
            the wire waits for it, and for nothing else.
        token: sent as a bearer token; `None` or empty: none is sent.
        subprotocols: offered in this order.
        connect_timeout_s: for each address of the host: its TCP connection, and then TLS.
        tls: for `wss`; `None`: the system's authorities.
        says_little: a host that acknowledges nothing is given up soon, see `bound_silence`.

    Raises:
        FeedUnavailable: nobody listens there, not in time, or not whom the certificate should name.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        subprotocols: tuple[str, ...],
        connect_timeout_s: float = 1.0,
        tls: ssl.SSLContext | None = None,
        says_little: bool = False,
    ) -> None:
        self._protocol = ClientProtocol(
            parse_uri(url),
            subprotocols=[Subprotocol(each) for each in subprotocols],
            max_size=_MAX_MESSAGE_BYTES,
            logger=_SILENT,
        )
        self._pending: deque[memoryview] = deque()
        self._parts: list[bytes] = []
        self._eof_wanted = False
        self._socket = _connect(url, connect_timeout_s, tls)
        if says_little:
            bound_silence(self._socket)
        self._local = _own_address(self._socket)
        self.closed = False
        request = self._protocol.connect()
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        self._protocol.send_request(request)
        self._collect()
        self.write()

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self._socket.fileno()

    @property
    def open(self) -> bool:
        """Whether frames may be sent: the handshake is done and no close frame was sent or received."""
        return not self.closed and self._protocol.state is State.OPEN

    @property
    def close_code(self) -> int | None:
        """The code that the other side closed with; `None`: it did not say."""
        received = self._protocol.close_rcvd
        return None if received is None else received.code

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._pending) or self._eof_wanted

    def send(self, payload: bytes) -> None:
        """Queue one text frame; `write` takes it to the socket. Nothing happens unless `open`."""
        if self.open:
            self._protocol.send_text(payload)
            self._collect()

    def say_goodbye(self) -> None:
        """Begin the closing handshake: what was sent before arrives, then the other side closes."""
        if self.open:
            self._protocol.send_close(1000)
            self._collect()

    def write(self) -> None:
        """Give the socket what it takes. A failure closes the wire; it never blocks."""
        try:
            while self._pending:
                chunk = self._pending[0]
                sent = self._socket.send(chunk)
                if sent < len(chunk):
                    self._pending[0] = chunk[sent:]
                    return
                self._pending.popleft()
            if self._eof_wanted:
                self._eof_wanted = False
                self._socket.shutdown(socket.SHUT_WR)
        except _WOULD_BLOCK:
            return
        except OSError:
            self.close()

    def read(self) -> list[bytes]:
        """The complete messages that have arrived; the end of the stream closes the wire.

        Raises:
            FeedDenied: the handshake was refused for good (400, 401, 403, 404).
        """
        messages: list[bytes] = []
        ended = False
        try:
            while data := self._socket.recv(_READ_BYTES):
                self._protocol.receive_data(data)
                # What TLS has decrypted already wakes no poll.
                if not isinstance(self._socket, ssl.SSLSocket) or not self._socket.pending():
                    break
            else:
                ended = True
        except _WOULD_BLOCK:
            return messages
        except OSError:
            self.close()
            return messages
        if ended:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                if event.opcode in DATA_OPCODES:
                    self._assemble(event, messages)
            elif isinstance(event, Response) and self._protocol.handshake_exc is not None:
                refused: Exception = self._protocol.handshake_exc
                self.close()
                _raise_refusal(refused)
        self._collect()
        self.write()
        if ended or self._protocol.state is State.CLOSED:
            self.close()
        return messages

    def close(self) -> None:
        """Close the socket at once; idempotent."""
        if not self.closed:
            self.closed = True
            self._pending.clear()
            fork.release_connection(*self._local)
            self._socket.close()

    def _collect(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._pending.append(memoryview(data))
            else:
                self._eof_wanted = True

    def _assemble(self, frame: Frame, messages: list[bytes]) -> None:
        if frame.opcode is not CONT:
            self._parts.clear()
        self._parts.append(bytes(frame.data))
        if frame.fin:
            messages.append(b"".join(self._parts))
            self._parts.clear()


def _connect(url: str, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    parts = urllib.parse.urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "127.0.0.1", parts.port or (443 if secure else 80)
    failure: OSError | None = None
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failed:
        raise FeedUnavailable(f"no host is called {host!r}: {failed}") from failed
    for family, kind, protocol, _, address in addresses:  # `localhost` has two, and a collector may have one
        sock = socket.socket(family, kind, protocol)
        connecting = sock.fileno()
        fork.guard_connecting(connecting)
        own: fork.Address | None = None
        try:
            sock.settimeout(timeout_s)
            sock.connect(address)
            own = _own_address(sock)
            fork.guard_connection(*own)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock)
            if secure:
                context = tls or ssl.create_default_context()
                # The handshake apart: where it fails, the descriptor is still ours to release before it is closed.
                wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
                sock = wrapped
                wrapped.do_handshake()
            sock.setblocking(False)
        except OSError as failed:
            failure = failed
            if own is not None:
                fork.release_connection(*own)
            fork.release_connecting(connecting)
            sock.close()
        else:
            fork.release_connecting(connecting)
            return sock
    if isinstance(failure, ssl.SSLCertVerificationError):
        raise FeedUnavailable(
            f"the certificate of {host}:{port} is not trusted, OTEL_EXPORTER_OTLP_CERTIFICATE names whose is: {failure}"
        ) from failure
    if isinstance(failure, ssl.SSLError):
        raise FeedUnavailable(f"no TLS with {host}:{port}: {failure}") from failure
    raise FeedUnavailable(f"nobody listens at {host}:{port}: {failure}") from failure


def _own_address(sock: socket.socket) -> fork.Address:
    host, port = sock.getsockname()[:2]
    return str(host), int(port)


def _raise_refusal(refused: Exception) -> None:
    if isinstance(refused, InvalidStatus) and refused.response.status_code in _DENIED_STATUSES:
        raise FeedDenied(f"refused with status {refused.response.status_code}") from refused
    if isinstance(refused, InvalidHandshake):
        raise FeedUnavailable(f"the handshake failed: {refused}") from refused
    raise refused
