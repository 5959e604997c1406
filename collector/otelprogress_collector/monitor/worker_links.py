"""The collector's end of the worker link: `GET /v1/worker`, where the death of a process is seen.

To a collector events travel as OTLP; the link proves life and carries interest. It ends with its process (FIN, RST) or
with its host (TCP keepalive), and never because of a missing pong: an interpreter that stands still for a minute is
not dead. A writer that is not back a second after its link ended takes its live runs with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.feed.link_wire import keep_alive
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.protocol import encoding
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.link_session import WORKER_FRAME_BYTES, registration
from otelprogress.protocol.messages import (
    SUBPROTOCOL,
    Alive,
    Bye,
    CommandStatus,
    Drain,
    Interest,
    LinkCommand,
    LinkWelcome,
    Register,
)
from otelprogress_collector.auth.principal import WRITE, Denied, Principal
from otelprogress_collector.monitor.verdicts import Detector

if TYPE_CHECKING:
    from otelprogress_collector.host import CollectorHost

_LOG: Final = logging.getLogger("otelprogress_collector.monitor")
GRACE_S: Final = 1.0
"""How long a writer may be away before its live runs are lost."""
FAREWELL_GRACE_S: Final = 2.0
"""How long the last events of a writer that said good-bye may take: they come another way, as OTLP."""
_REGISTER_TIMEOUT_S: Final = 5.0
_ENDINGS: Final = {
    "closed": "the connection was closed without a farewell",
    "fin": "the connection was closed without a farewell",
    "reset": "the connection was reset",
    "timeout": "its host does not answer",
}


class End(Protocol):
    """How a connection ended (`api.ws_protocol.End`; parts of the collector know each other by shape only)."""

    @property
    def kind(self) -> str:
        """`closed`, `fin`, `reset`, `timeout` or `error`."""

    @property
    def error(self) -> BaseException | None:
        """What the kernel said."""


class Connection(Protocol):
    """What stands under a WebSocket of this port (`scope["extensions"]["otelprogress.connection"]`)."""

    transport: asyncio.Transport

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""

    def authenticate(self, max_frame_bytes: int) -> None:
        """Let the peer's messages be this large from now on."""

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Send text frames without waiting."""

    def shut(self, code: int, reason: str = "") -> None:
        """Close without waiting."""

    async def ended(self) -> End:
        """Wait for the end of the TCP connection."""


_Key = tuple[str, str]
"""The id of a writer, and its tenant."""


class Forbidden(Exception):
    """The token is right, and does not allow this."""


Admit = Callable[[WebSocket, str | None], Awaitable[Principal]]
"""(connection, token of its `register`) -> who that is; raises `Denied`."""
Lose = Callable[[str, str, Detector, int, str], None]
"""(writer id, tenant, detector, when it was last known to live, cause): all live runs of that writer are lost."""


class LinkStats(msgspec.Struct, gc=False):
    """What was counted since the start."""

    connections: int = 0
    refused: int = 0
    """Connections ended for a wrong token or a frame that is no message."""
    ended_without_farewell: int = 0


class _Writer:
    __slots__ = ("connection", "heard_unix_ns", "host", "pid", "rate_hz", "tenant", "verdict")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.pid = 0
        self.host = ""
        self.connection: Connection | None = None
        self.verdict: asyncio.TimerHandle | None = None
        self.heard_unix_ns = 0
        self.rate_hz = 0.0


class WorkerLinks:
    """All worker links of the collector; `serve` is a Starlette endpoint.

    Args:
        host: whose clock and runs count.
        admit: who connects.
        lose: called once a writer is gone for good.
        grace_s: how long a writer may be away.
        farewell_grace_s: how long its last events may take once it said good-bye.
    """

    def __init__(
        self,
        host: CollectorHost,
        *,
        admit: Admit,
        lose: Lose,
        grace_s: float = GRACE_S,
        farewell_grace_s: float = FAREWELL_GRACE_S,
    ) -> None:
        self.stats = LinkStats()
        self._host = host
        self._admit = admit
        self._lose = lose
        self._grace_s = grace_s
        self._farewell_grace_s = farewell_grace_s
        self._writers: dict[_Key, _Writer] = {}
        self.on_connected: Callable[[str, str], object] | None = None
        """Told id and tenant of each writer that has connected (again)."""
        self.on_status: Callable[[str, str, CommandStatus], object] | None = None
        """Told what a writer, by id and tenant, did with a command."""

    def linked(self, writer_id: str, tenant: str = "") -> bool:
        """Whether that writer's link is open, or it may still come back."""
        return (writer_id, tenant) in self._writers

    @property
    def connected(self) -> list[str]:
        """The ids of the writers that are connected now."""
        return [writer_id for writer_id, _ in self.connected_of_tenants()]

    def connected_of_tenants(self) -> list[_Key]:
        """The writers that are connected now: their ids and tenants."""
        return [key for key, writer in self._writers.items() if writer.connection is not None]

    def connected_now(self, writer_id: str, tenant: str) -> bool:
        """Whether that writer can be told something."""
        writer = self._writers.get((writer_id, tenant))
        return writer is not None and writer.connection is not None and writer.connection.is_open

    def command(self, writer_id: str, tenant: str, command: LinkCommand) -> None:
        """Send a command, as far as the writer is connected."""
        if self.connected_now(writer_id, tenant):
            connection = self._writers[writer_id, tenant].connection
            assert connection is not None
            connection.write_frames([encoding.encode(command)])

    def interest(self, writer_id: str, tenant: str, rate_hz: float) -> None:
        """Tell a writer how often ticks of its runs are worth sending; told again only when that changes."""
        writer = self._writers.get((writer_id, tenant))
        if writer is None or writer.connection is None or writer.rate_hz == rate_hz:
            return
        writer.rate_hz = rate_hz
        if writer.connection.is_open:
            writer.connection.write_frames([encoding.encode(Interest(run="*", rate_hz=rate_hz))])

    def drain(self) -> None:
        """Say that the collector leaves: the end of these links is nobody's death."""
        for writer in self._writers.values():
            if writer.verdict is not None:
                writer.verdict.cancel()
                writer.verdict = None
            connection, writer.connection = writer.connection, None
            if connection is not None and connection.is_open:
                connection.write_frames([encoding.encode(Drain(reconnect_after_s=(0.0, 1.0)))])
                connection.shut(CloseCode.RESTART, "the collector leaves or restarts")

    # --- one connection -----------------------------------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one `/v1/worker` connection to its end; whatever it sends, nothing is raised."""
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            await websocket.send_denial_response(
                PlainTextResponse(f"The subprotocol of the worker link is {SUBPROTOCOL}.\n", 400)
            )
            return
        await websocket.accept(SUBPROTOCOL)
        connection: Connection = websocket.scope["extensions"]["otelprogress.connection"]
        keep_alive(connection.transport.get_extra_info("socket"))
        try:
            async with asyncio.timeout(_REGISTER_TIMEOUT_S):
                register = registration(await _frame(websocket))
                principal = await self._admit(websocket, register.token)
            self._check(principal)
        except TimeoutError:
            self._refuse(connection, CloseCode.HELLO_TIMEOUT, "no register in time")
        except RemoteProtocolError as broken:
            self._refuse(connection, broken.code, str(broken))
        except Denied as denied:
            self._refuse(connection, CloseCode.BAD_TOKEN, str(denied))
        except Forbidden as forbidden:
            self._refuse(connection, CloseCode.FORBIDDEN, str(forbidden))
        except WebSocketDisconnect:
            return
        else:
            connection.authenticate(WORKER_FRAME_BYTES)
            await self._serve(register, principal, websocket, connection)

    def _check(self, principal: Principal) -> None:
        if WRITE not in principal.scopes:
            raise Forbidden(f"the token lacks the scope {WRITE}")

    def _refuse(self, connection: Connection, code: int, reason: str) -> None:
        self.stats.refused += 1
        connection.shut(code, reason)

    async def _serve(
        self, register: Register, principal: Principal, websocket: WebSocket, connection: Connection
    ) -> None:
        # Ids are what writers say of themselves: each tenant has its own.
        key = register.writer, principal.tenant
        writer = self._writers.setdefault(key, _Writer(principal.tenant))
        before, writer.connection, writer.rate_hz = writer.connection, connection, 0.0
        if before is not None:
            # The writer is one process with one link: what it left behind is half open.
            before.transport.abort()
        if writer.verdict is not None:
            writer.verdict.cancel()
            writer.verdict = None
        pid = register.resource.get(semconv.PROCESS_PID)
        writer.pid = pid if isinstance(pid, int) else 0
        writer.host = websocket.client.host if websocket.client is not None else ""
        self.stats.connections += 1
        farewell = False
        try:
            connection.write_frames([encoding.encode(LinkWelcome(connection=secrets.token_hex(4), n=0))])
            # Runs of its that were called lost meanwhile come back to life.
            self._heard(register.writer, writer)
            if self.on_connected is not None:
                self.on_connected(*key)
            while True:
                message = encoding.decode(
                    encoding.WORKER_MESSAGES, await _frame(websocket), max_bytes=WORKER_FRAME_BYTES
                )
                farewell = isinstance(message, Bye)
                if isinstance(message, Alive | Bye):
                    self._heard(register.writer, writer)
                elif isinstance(message, CommandStatus):
                    if self.on_status is not None:
                        self.on_status(*key, message)
                else:
                    raise RemoteProtocolError(
                        f"{type(message).__name__} is not for a collector: events come as OTLP",
                        CloseCode.BAD_MESSAGE,
                    )
        except RemoteProtocolError as broken:
            # It lives, whatever it is: its lease has to judge it.
            self._refuse(connection, broken.code, str(broken))
            if writer.connection is connection:
                del self._writers[key]
        except WebSocketDisconnect:
            end = await connection.ended()
            if writer.connection is connection:
                writer.connection = None
                self._ended(register.writer, writer, end, farewell=farewell)

    def _heard(self, writer_id: str, writer: _Writer) -> None:
        writer.heard_unix_ns = self._host.clock.time_unix_ns()
        self._host.submit(
            Event(
                kind=semconv.WRITER_ALIVE,
                run_id="",
                time_unix_ns=writer.heard_unix_ns,
                tenant=writer.tenant,
                writer_id=writer_id,
            )
        )

    # --- the end of a writer ------------------------------------------------------------------------------------

    def _ended(self, writer_id: str, writer: _Writer, end: End, *, farewell: bool) -> None:
        silent = end.kind == "timeout"
        # FIN and RST are the kernel's last word for the process; a silent host was last heard when it last spoke.
        evidence_unix_ns = writer.heard_unix_ns if silent else self._host.clock.time_unix_ns()
        detector: Detector = "atexit" if farewell else "keepalive" if silent else "link"
        if not farewell:
            self.stats.ended_without_farewell += 1

        def judge() -> None:
            del self._writers[writer_id, writer.tenant]
            cause = "the process ended with it open" if farewell else _cause(writer, end)
            self._lose(writer_id, writer.tenant, detector, evidence_unix_ns, cause)

        writer.verdict = asyncio.get_running_loop().call_later(
            self._farewell_grace_s if farewell else self._grace_s, judge
        )


async def _frame(websocket: WebSocket) -> bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))
    text: str | None = message.get("text")
    data: bytes = text.encode() if text is not None else message["bytes"]
    return data


def _cause(writer: _Writer, end: End) -> str:
    ending = _ENDINGS.get(end.kind) or f"the connection failed ({end.error})"
    # Only a process of this machine can be looked for here.
    if writer.host in ("127.0.0.1", "::1") and writer.pid > 0 and not _exists(writer.pid):
        return f"{ending}; process {writer.pid} is gone"
    return ending


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
