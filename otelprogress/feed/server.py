"""The in-process streamer: a WebSocket server on a daemon thread of its own.

Its loop also drains the host. The order after a wake is deliberate: reduce, encode and write before any other
system call, because each call that releases the interpreter lock may cost the switch interval (5 ms) to get it
back from a busy application.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import selectors
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from websockets.asyncio.server import Server, serve
from websockets.exceptions import ConnectionClosed

from otelprogress.exceptions import FeedUnavailable, InvalidValue
from otelprogress.feed import fork
from otelprogress.feed.admission import (
    FEED_PATH,
    WORKER_PATH,
    Admission,
    Refusal,
    token_matches,
    token_of,
)
from otelprogress.feed.connection import (
    WRITE_HIGH_BYTES,
    WRITE_LOW_BYTES,
    ServedConnection,
    ServerLimits,
    SessionRunner,
)
from otelprogress.feed.silence import silent_logger
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.command_judging import SCOPE_CONTROL, SCOPE_RESPOND
from otelprogress.protocol.messages import SUBPROTOCOL
from otelprogress.protocol.server_session import SCOPE_READ
from otelprogress.protocol.session import Grant, ServerSession

if TYPE_CHECKING:
    from websockets.http11 import Request, Response

    from otelprogress.feed.commanding import Commanding
    from otelprogress.feed.host import Host
    from otelprogress.model.tree import Applied

_LOG = logging.getLogger("otelprogress.feed")

DEFAULT_PORT: Final = 4327
_PORTS_TRIED: Final = 64
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_EVERYTHING: Final = frozenset({SCOPE_READ, SCOPE_CONTROL, SCOPE_RESPOND})
"""What the one token of a feed allows: who has it is the user whose process it is."""
_ACTOR: Final = "local"
_MAX_DEADLINE_WAIT_S: Final = 1.0
"""Deadlines are wall-clock times: look again at least this often, in case somebody sets the clock."""

WorkerHandler = Callable[[ServedConnection], Awaitable[None]]
"""Serves one `/v1/worker` connection until it returns.

It gets the open connection, with the token of the upgrade request in `token` (checked by `WebSocketServer.authorizes`;
`None`: its `register` must carry one), calls `authenticate(max_frame_bytes)` once it trusts the peer, and runs on the
server's loop. What it raises closes this connection with 4500.
"""


class ThreadRefused(FeedUnavailable):
    """The system, or an interpreter that is leaving, starts no thread."""


class ServerStats(msgspec.Struct):
    """What the server had to refuse or survive, since its start."""

    refused: int = 0
    """Upgrades answered with an HTTP error."""
    dropped: int = 0
    """Connections dropped unread: too many without a token."""
    failures: int = 0
    """Errors of our own: a bug here."""


class WebSocketServer:
    """Serves one host's feed to WebSocket clients of this machine.

    Args:
        host: whose operations are served. The server drains it and becomes its wake.
        token: the secret that every client must show. Never empty.
        bind: a numeric address to listen on. Other than loopback only with `allow_remote`: the feed speaks no TLS,
            so both token and progress travel readable.
        port: the port wanted; a taken one makes it the next free one, said in an INFO line. 0: any.
        limits: `None`: the defaults of `feed.md`.
        allowed_hosts: further exact `Host` values, `allowed_origins` further exact `Origin` values.
        worker_handler: serves `/v1/worker`; `None`: that path is not found.
        server_info: told in `welcome`: service, pid, version…; a function is asked for each connection, on the server's
            thread.
        allow_remote: listen on an address that others can reach.
        commanding: takes commands of clients that show the token; `None`: they are answered `unsupported`.

    Raises:
        InvalidValue: an empty token, or a reachable address without `allow_remote`.
    """

    def __init__(
        self,
        host: Host,
        *,
        token: str,
        bind: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        limits: ServerLimits | None = None,
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
        worker_handler: WorkerHandler | None = None,
        server_info: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        allow_remote: bool = False,
        commanding: Commanding | None = None,
    ) -> None:
        if not token:
            raise InvalidValue("the feed needs a token, also on loopback: any page in a browser can reach it")
        if bind not in _LOOPBACK and not bind.startswith("127.") and not allow_remote:
            raise InvalidValue(
                f"the feed would be reachable from elsewhere at {bind!r} and speaks no TLS: bind 127.0.0.1, put a "
                "TLS proxy in front, or run the collector",
            )
        self.limits = limits if limits is not None else ServerLimits()
        self.stats = ServerStats()
        self._host = host
        self._token = token
        self._bind = bind
        self._port_wanted = port
        self._allowed = (tuple(allowed_hosts), tuple(allowed_origins))
        self._worker_handler = worker_handler
        self._commanding = commanding
        self._server_info = server_info if callable(server_info) else dict(server_info or {}).copy
        self._connections: set[ServedConnection] = set()
        self._runners: dict[ServedConnection, SessionRunner] = {}
        self._address: tuple[str, int] | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._stale = False
        self._delivery_planned = False
        self._host_timer: asyncio.TimerHandle | None = None
        self._pid = -1

    # --- life ------------------------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """Address and port listened on.

        Raises:
            FeedUnavailable: it was not started.
        """
        if self._address is None:
            raise FeedUnavailable("the feed was not started")
        return self._address

    @property
    def url(self) -> str:
        """Where programs of this machine find it, without a path: what a runtime file says."""
        name, port = self.address
        if name in ("0.0.0.0", "::"):  # noqa: S104 - compared with, never bound
            name = "127.0.0.1"
        return f"ws://[{name}]:{port}" if ":" in name else f"ws://{name}:{port}"

    def start(self) -> None:
        """Listen and serve; returns once clients can connect.

        Raises:
            ThreadRefused: the system has no thread left; nothing stays open.
            FeedUnavailable: no port could be had, or the thread did not come up.
        """
        listener = self._listen()
        name, port = listener.getsockname()[:2]
        self._address = (name, port)
        self._admission = Admission(self._bind, port, hosts=self._allowed[0], origins=self._allowed[1])
        self._pid = os.getpid()
        fork.guard_listener(name, port)
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        ready = threading.Event()
        failed: list[BaseException] = []
        thread = threading.Thread(
            target=self._run, args=(listener, ready, failed), name="otelprogress-feed", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            fork.release_listener(name, port)
            for opened in (listener, self._bell, self._ringer):
                opened.close()
            raise ThreadRefused(f"the feed did not start: {error}") from error
        self._thread = thread
        ready.wait()
        if failed:
            raise FeedUnavailable(f"the feed did not start: {failed[0]}") from failed[0]
        if self._port_wanted not in (0, port):
            _LOG.info("port %d is taken: the feed listens on port %d, %s", self._port_wanted, port, self.url)
        else:
            _LOG.info("the feed listens on port %d, %s", port, self.url)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what is waiting, tell the clients to come back later (1012), end the thread. Idempotent.

        Args:
            timeout_s: after it the connections are cut. In a forked child nothing is done: the thread and the
                connections are the parent's.
        """
        thread = self._thread
        if thread is None or self._closing or os.getpid() != self._pid:
            return
        self._closing = True
        self._host.set_wake(None)
        self._host.remove_listener(self._on_applied)
        with contextlib.suppress(RuntimeError):  # the loop ended by itself
            self._loop.call_soon_threadsafe(self._begin_close, timeout_s)
        if threading.current_thread() is not thread:
            thread.join(timeout_s + 1.0)

    def authorizes(self, token: str | None) -> bool:
        """Whether this is the feed's token; compared in constant time."""
        return token_matches(self._token, token)

    @property
    def client_count(self) -> int:
        """Feed clients that have shown the token and are connected."""
        return sum(1 for connection in tuple(self._runners) if connection.authenticated)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._bind else socket.AF_INET
        wanted = self._port_wanted
        candidates = [0] if wanted == 0 else [*range(wanted, min(wanted + _PORTS_TRIED, 65_536)), 0]
        refusal: OSError | None = None
        for port in candidates:
            try:
                return socket.create_server((self._bind, port), family=family, backlog=128)
            except OSError as error:
                refusal = error
        raise FeedUnavailable(f"the feed cannot listen on {self._bind}: {refusal}") from refusal

    # --- the thread ------------------------------------------------------------------------------------

    def _run(self, listener: socket.socket, ready: threading.Event, failed: list[BaseException]) -> None:
        self._thread_id = threading.get_ident()
        try:
            self._loop = asyncio.SelectorEventLoop(selectors.DefaultSelector())
            self._loop.set_exception_handler(self._on_loop_error)
            self._loop.run_until_complete(self._open(listener))
        except BaseException as error:
            failed.append(error)
            listener.close()
            ready.set()
            return
        try:
            self._loop.call_soon(ready.set)
            self._loop.run_forever()
        finally:
            with contextlib.suppress(Exception):
                self._loop.run_until_complete(_end_tasks())
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._bell.close()
            self._ringer.close()

    async def _open(self, listener: socket.socket) -> None:
        self._all_gone = asyncio.Event()
        connection_type = type("OwnedConnection", (ServedConnection,), {"owner": self})
        self._server: Server = await serve(
            self._serve,  # type: ignore[arg-type]  # our create_connection makes every connection a ServedConnection
            sock=listener,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
            compression=None,
            process_request=self._admit,  # type: ignore[arg-type]  # as above
            server_header=None,
            open_timeout=self.limits.handshake_timeout_s,
            ping_interval=None,
            close_timeout=self.limits.close_timeout_s,
            max_size=self.limits.max_frame_before_auth_bytes,
            write_limit=(WRITE_HIGH_BYTES, WRITE_LOW_BYTES),
            logger=silent_logger("otelprogress.feed.websockets"),
            create_connection=connection_type,
        )
        self._loop.add_reader(self._bell.fileno(), self._on_bell)
        self._host.add_listener(self._on_applied)
        self._host.set_wake(self._ring)
        self._schedule_host()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.stats.failures += 1
        _LOG.debug("the feed's loop reports: %s", context.get("message"), exc_info=context.get("exception"))

    def _begin_close(self, timeout_s: float) -> None:
        self._closing_task = self._loop.create_task(self._close(timeout_s))

    async def _close(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self._host.pending:
                    self._host.drain()
                self._server.close(close_connections=False)  # no new ones; those being opened get a 503
                for runner in tuple(self._runners.values()):
                    runner.drain()
                for connection in tuple(self._connections):
                    if connection not in self._runners:
                        connection.shut(CloseCode.RESTART, "the process ends")
                if not self._connections:
                    self._all_gone.set()
                await self._all_gone.wait()
        except Exception:
            _LOG.debug("the feed was cut while closing", exc_info=True)
        finally:
            for connection in tuple(self._connections):
                connection.transport.abort()
            self._loop.remove_reader(self._bell.fileno())
            if self._host_timer is not None:
                self._host_timer.cancel()
            if self._address is not None:
                fork.release_listener(*self._address)
            # One more turn, so that the aborted connections see their end.
            self._loop.call_later(0.01, self._loop.stop)

    # --- from the host to the clients ------------------------------------------------------------------

    def _ring(self) -> None:
        """The host's wake, on application threads: one byte, unless as many are waiting as fit."""
        with contextlib.suppress(BlockingIOError):
            self._ringer.send(b"\0")

    def _on_applied(self, applied: Sequence[Applied]) -> None:
        """A drain on another thread (the sampler's, a reader's) leaves news that this loop has not seen."""
        if threading.get_ident() != self._thread_id and not self._stale:
            self._stale = True
            self._ring()

    def _on_bell(self) -> None:
        self._deliver()
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)
        # The ring for something submitted just now may be among the bytes just read: nobody would ring again.
        self._deliver_the_rest()

    def _tend_commands(self) -> None:
        if self._commanding is not None:
            self._commanding.tend()

    def _deliver(self) -> None:
        self._stale = False
        self._host.drain()
        self._tend_commands()
        for runner in tuple(self._runners.values()):
            runner.pump()
        self._schedule_host()
        self._deliver_the_rest()

    def _deliver_the_rest(self) -> None:
        """Go on after the sockets had their turn."""
        if (self._stale or self._host.pending) and not self._delivery_planned and not self._closing:
            self._delivery_planned = True
            self._loop.call_soon(self._deliver_planned)

    def _deliver_planned(self) -> None:
        self._delivery_planned = False
        self._deliver()

    def _schedule_host(self) -> None:
        """Come back when the passing of time changes something in the hub."""
        due_unix_ns = self._host.next_deadline_unix_ns()
        if (
            self._commanding is not None
            and (commands_ns := self._commanding.next_deadline_unix_ns()) is not None
        ):
            due_unix_ns = commands_ns if due_unix_ns is None else min(due_unix_ns, commands_ns)
        if self._host_timer is not None:
            self._host_timer.cancel()
            self._host_timer = None
        if due_unix_ns is not None and not self._closing:
            wait_s = (due_unix_ns - self._host.clock.time_unix_ns()) / 1e9
            self._host_timer = self._loop.call_later(
                min(max(wait_s, 0.001), _MAX_DEADLINE_WAIT_S), self._deliver
            )

    # --- connections -----------------------------------------------------------------------------------

    def connection_opened(self, connection: ServedConnection) -> bool:
        """Count a connection in; `False` when too many have not shown a token."""
        if sum(1 for each in self._connections if not each.authenticated) >= self.limits.max_unauthenticated:
            self.stats.dropped += 1
            return False
        self._connections.add(connection)
        return True

    def connection_closed(self, connection: ServedConnection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if self._closing and not self._connections:
            self._all_gone.set()
        runner = self._runners.pop(connection, None)
        if runner is not None:
            runner.stop()

    def _admit(self, connection: ServedConnection, request: Request) -> Response | None:
        """Decide before the upgrade."""
        headers = request.headers
        refusal = self._admission.refusal(request.path, headers.get_all("Host"), headers.get_all("Origin"))
        connection.path = request.path.partition("?")[0]
        if refusal is None:
            connection.token, refusal = token_of(
                headers.get_all("Authorization"), headers.get_all("Sec-WebSocket-Protocol")
            )
        if refusal is None and connection.path == WORKER_PATH and self._worker_handler is None:
            refusal = Refusal(HTTPStatus.NOT_FOUND, "This process takes no workers.\n")
        if refusal is None and self._closing:
            refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The process ends.\n")
        if (
            refusal is None
            and connection.path == FEED_PATH
            and self.client_count >= self.limits.max_feed_clients
        ):
            refusal = Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.limits.max_feed_clients} clients are connected; the collector serves more.\n",
            )
        if refusal is None:
            return None
        self.stats.refused += 1
        response = connection.respond(refusal.status, refusal.text)
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = "5"
        elif refusal.status == HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    async def _serve(self, connection: ServedConnection) -> None:
        """One connection, from the upgrade to its end. Whatever the peer does, only this connection ends."""
        connection.forget_handshake()
        try:
            if connection.path == WORKER_PATH:
                assert self._worker_handler is not None  # _admit refused the path otherwise
                await self._worker_handler(connection)
            else:
                await self._serve_feed(connection)
        except ConnectionClosed:
            pass
        except Exception:
            self.stats.failures += 1
            _LOG.debug("a connection failed", exc_info=True)
            connection.shut(CloseCode.INTERNAL, "internal error")

    async def _serve_feed(self, connection: ServedConnection) -> None:
        def authorize(token: str | None) -> Grant | None:
            if not self.authorizes(token):
                return None
            connection.authenticate(self.limits.max_client_frame_bytes)
            return Grant(scopes=_EVERYTHING, actor=_ACTOR)

        with self._host.lock:
            session = ServerSession(
                self._host.hub,
                authorize=authorize,
                limits=self._host.hub.limits,
                server_info=self._server_info(),
                now_s=self._host.clock.monotonic_s(),
                token=connection.token,
                commands=self._commanding,
            )
        connection.token = None
        runner = SessionRunner(connection, session, self._host, self.limits)
        self._runners[connection] = runner
        runner.pump()
        async for message in connection:
            known_before = connection.authenticated
            runner.receive(message)
            self._tend_commands()
            if (
                connection.authenticated
                and not known_before
                and self.client_count > self.limits.max_feed_clients
            ):
                connection.shut(CloseCode.OVERLOADED, f"{self.limits.max_feed_clients} clients are connected")


async def _end_tasks() -> None:
    """Let handlers of connections that were cut come to their end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
