"""The parent's end of the worker link: child processes report here, and here their death is seen.

A worker's connection ends only with its process (FIN or RST), or with its host (TCP keepalive). Nobody pings:
an interpreter that stands still for a minute is not dead. When a connection ends without `bye` and the writer is
not back within a second, its live runs are lost, and whoever is their parent process can often say why. A parent that
leaves does not wait for that second: it calls lost what it knows to be dead.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec
from websockets.exceptions import ConnectionClosed

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.feed.admission import token_matches
from otelprogress.feed.cause_of_death import ChildRecord
from otelprogress.feed.link_wire import keep_alive
from otelprogress.model import semconv
from otelprogress.model.events import Event, OperationView, State
from otelprogress.model.fields import sanitized
from otelprogress.protocol import encoding
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.link_session import WORKER_FRAME_BYTES, LinkReceiver, registration

if TYPE_CHECKING:
    from otelprogress.feed.connection import ServedConnection
    from otelprogress.feed.host import Host
    from otelprogress.protocol.messages import CommandStatus, LinkCommand

_LOG: Final = logging.getLogger("otelprogress.feed")

GRACE_S: Final = 1.0
"""How long a writer may be away before its live runs are lost, unless its end is proven earlier."""
_REGISTER_TIMEOUT_S: Final = 5.0
_DRAIN_AT: Final = 256
"""Events waiting in the host at which this side reduces them before it reads on."""
_MAX_REMEMBERED: Final = 1024
"""Writers that have left and whose numbers are kept, against a late reconnect."""
_LOOKS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Pauses between looks for an exit status: the kernel closes the sockets of a dying process just before that."""
_DYING_S: Final = 0.1
"""What a parent that leaves gives children that a signal may have hit with it: they die within milliseconds."""
_CONCLUDE_EVERY_S: Final = 0.005


class WorkerStats(msgspec.Struct):
    """What came over worker links since the start."""

    workers: int = 0
    """Connections open now."""
    connections: int = 0
    refused: int = 0
    """Connections ended for a wrong token or a frame that is no message."""
    events: int = 0
    duplicates: int = 0
    """Events sent again after a reconnect that had been taken before."""
    dropped: int = 0
    """Durable events that workers had to drop."""
    lost_runs: int = 0


class _Writer:
    """One process incarnation, over all its connections."""

    __slots__ = ("child", "conclude", "connection", "heard_unix_ns", "receiver", "verdict")

    def __init__(self, writer_id: str, process_id: int) -> None:
        self.receiver = LinkReceiver(writer_id)
        self.child = ChildRecord(process_id)
        self.connection: ServedConnection | None = None
        self.verdict: asyncio.TimerHandle | None = None
        self.conclude: Callable[[], None] | None = None
        """Gives the verdict that is waited with, if the process is known to be gone; `None`: there is none."""
        self.heard_unix_ns = 0


class WorkerLinks:
    """All worker links of one host; give it to `WebSocketServer` as its `worker_handler`.

    Everything runs on the server's loop. The events of workers get to the host as they came, with the writer's own
    id and sequence, and nothing of theirs is exported from here.

    Args:
        host: what is told.
        token: what a worker has to show.
        grace_s: how long a writer may be away before its runs are lost.
    """

    def __init__(self, host: Host, *, token: str, grace_s: float = GRACE_S) -> None:
        self.stats = WorkerStats()
        self._host = host
        self._token = token
        self._grace_s = grace_s
        self._writers: dict[str, _Writer] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        self.on_connected: Callable[[str], object] | None = None
        """Told the id of each writer that has connected (again)."""
        self.on_status: Callable[[str, CommandStatus], object] | None = None
        """Told what a writer did with a command."""

    @property
    def connected_writers(self) -> list[str]:
        """The ids of the writers that are connected now."""
        return [id_ for id_, writer in tuple(self._writers.items()) if writer.connection is not None]

    def connected(self, writer_id: str) -> bool:
        """Whether that writer can be told something now."""
        writer = self._writers.get(writer_id)
        return writer is not None and writer.connection is not None

    def command(self, writer_id: str, command: LinkCommand) -> None:
        """Send a command to a writer, as far as it is connected. On the server's loop."""
        writer = self._writers.get(writer_id)
        if writer is not None and writer.connection is not None and writer.connection.is_open:
            writer.connection.write_frames([encoding.encode(command)])

    async def __call__(self, connection: ServedConnection) -> None:
        """Serve one `/v1/worker` connection to its end.

        Raises:
            ConnectionClosed: it ended before the worker had registered.
        """
        if self._loop is None:
            self._thread_id, self._loop = threading.get_ident(), asyncio.get_running_loop()
        keep_alive(connection.transport.get_extra_info("socket"))
        if connection.token is not None and not self._admit(connection, connection.token):
            return
        try:
            async with asyncio.timeout(_REGISTER_TIMEOUT_S):
                frame = await connection.recv(decode=False)
            register = registration(frame)
        except TimeoutError:
            self._refuse(connection, CloseCode.HELLO_TIMEOUT, "no register in time")
            return
        except RemoteProtocolError as broken:
            self._refuse(connection, broken.code, str(broken))
            return
        if not connection.authenticated and not self._admit(connection, register.token):
            return
        pid = register.resource.get(semconv.PROCESS_PID)
        writer = self._writer(register.writer, pid if isinstance(pid, int) else 0)
        await self._serve(writer, connection)

    def _admit(self, connection: ServedConnection, token: str | None) -> bool:
        if token_matches(self._token, token):
            connection.authenticate(WORKER_FRAME_BYTES)
            return True
        self._refuse(connection, CloseCode.BAD_TOKEN, "the token is missing or wrong")
        return False

    def _refuse(self, connection: ServedConnection, code: int, reason: str) -> None:
        self.stats.refused += 1
        connection.shut(code, reason)

    def _writer(self, writer_id: str, process_id: int) -> _Writer:
        writer = self._writers.get(writer_id)
        if writer is None:
            if len(self._writers) >= _MAX_REMEMBERED:
                self._forget_one()
            writer = self._writers[writer_id] = _Writer(writer_id, process_id)
        return writer

    def _forget_one(self) -> None:
        for writer_id, writer in self._writers.items():
            if writer.connection is None and writer.verdict is None:
                del self._writers[writer_id]
                return

    async def _serve(self, writer: _Writer, connection: ServedConnection) -> None:
        before, writer.connection = writer.connection, connection
        if before is not None:
            # The writer is one process with one link: what it left behind is half open.
            before.transport.abort()
        if writer.verdict is not None:
            writer.verdict.cancel()
            writer.verdict = writer.conclude = None
        self.stats.workers += 1
        self.stats.connections += 1
        try:
            # Runs of its that were called lost meanwhile come back to life.
            self._submit_alive(writer)
            connection.write_frames([writer.receiver.welcome(secrets.token_hex(4))])
            if self.on_connected is not None:
                self.on_connected(writer.receiver.writer_id)
            while True:
                frame = await connection.recv(decode=False)
                self._take(writer, connection, frame)
        except ConnectionClosed as ended:
            self._ended(writer, connection, ended)
        except RemoteProtocolError as broken:
            self._refuse(connection, broken.code, str(broken))
            self._ended(writer, connection, None)
        finally:
            self.stats.workers -= 1
            if writer.connection is connection:
                writer.connection = None

    def _take(self, writer: _Writer, connection: ServedConnection, frame: bytes) -> None:
        receiver = writer.receiver
        taken_before, dropped_before = receiver.taken, receiver.dropped
        events = receiver.receive(frame)
        writer.heard_unix_ns = self._host.clock.time_unix_ns()
        writer.child.look_up()
        for event in events:
            self._host.submit(sanitized(event))
        if self._host.pending >= _DRAIN_AT:
            # Acknowledged is what has a place: many workers together could fill the host's queue.
            self._host.drain()
        if self.on_status is not None:
            for status in receiver.take_statuses():
                self.on_status(writer.receiver.writer_id, status)
        self.stats.events += len(events)
        self.stats.dropped += receiver.dropped - dropped_before
        if receiver.taken != taken_before and connection.is_open:
            connection.write_frames([receiver.ack()])

    def _submit_alive(self, writer: _Writer) -> None:
        self._host.submit(
            Event(
                kind=semconv.WRITER_ALIVE,
                run_id="",
                time_unix_ns=self._host.clock.time_unix_ns(),
                writer_id=writer.receiver.writer_id,
            )
        )

    # --- the end of a writer ------------------------------------------------------------------------------

    def _ended(self, writer: _Writer, connection: ServedConnection, ended: ConnectionClosed | None) -> None:
        if writer.connection is not connection:
            return
        if ended is not None and ended.sent is not None and not ended.rcvd_then_sent:
            # This side closed it: the feed ends, and the worker will look for it elsewhere or not at all.
            return
        if writer.receiver.said_bye:
            # Whatever it left open has nobody who could end it.
            self._lose(writer, "atexit", writer.heard_unix_ns, "the process ended with it open")
            self._writers.pop(writer.receiver.writer_id, None)
            return
        error = ended.__cause__ if ended is not None else None
        silent = isinstance(error, OSError) and error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
        detector = "keepalive" if silent else "link"
        # FIN and RST are the kernel's last word for the process; a silent host was last heard when it last spoke.
        evidence_unix_ns = writer.heard_unix_ns if silent else self._host.clock.time_unix_ns()
        self._judge(writer, detector, evidence_unix_ns, _how_it_ended(error))

    def _judge(self, writer: _Writer, detector: str, evidence_unix_ns: int, ending: str) -> None:
        """Wait for the writer to come back, or for the proof that it cannot."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._grace_s
        pauses_s = iter(_LOOKS_S)

        def look() -> None:
            cause = writer.child.cause()
            left_s = deadline_s - loop.time()
            if cause is None and left_s > 0:
                # Looked for again and again, because nobody tells: a handler of SIGCHLD is the application's.
                writer.verdict = loop.call_later(min(next(pauses_s, _LOOKS_S[-1]), left_s), look)
                return
            pronounce(cause)

        def conclude() -> None:
            cause = writer.child.cause()
            if cause is not None or (writer.child.pid > 0 and writer.child.gone):
                if writer.verdict is not None:
                    writer.verdict.cancel()
                pronounce(cause)

        def pronounce(cause: str | None) -> None:
            writer.verdict = writer.conclude = None
            if cause is None:
                cause = f"{ending}; the process is gone" if writer.child.gone else ending
            self._lose(writer, detector, evidence_unix_ns, cause)

        writer.conclude = conclude
        look()

    def conclude(self, timeout_s: float) -> None:
        """Call lost what a dead child left open, without the grace: this process leaves, and nobody else would say so.

        From any thread but the server's; while the server runs and the host's listeners still hear it.

        Args:
            timeout_s: for all of it. While children with live runs are connected or dying, it takes 0.1 s of it: whatever
                ended this process may have ended them too. Those that live on are left alone.
        """
        loop = self._loop
        if loop is None or not self._writers or threading.get_ident() == self._thread_id:
            return
        concluded = threading.Event()
        tasks: list[asyncio.Task[None]] = []  # the loop itself remembers them weakly

        def begin() -> None:
            tasks.append(loop.create_task(self._conclude(min(timeout_s, _DYING_S))))
            tasks[0].add_done_callback(lambda _: concluded.set())

        try:
            loop.call_soon_threadsafe(begin)
        except RuntimeError:  # it ended by itself
            return
        concluded.wait(timeout_s)

    async def _conclude(self, dying_s: float) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + dying_s
        while True:
            for writer in list(self._writers.values()):
                if writer.conclude is not None:
                    writer.conclude()
            if loop.time() >= until_s or not any(map(self._may_be_dying, list(self._writers.values()))):
                return
            await asyncio.sleep(_CONCLUDE_EVERY_S)

    def _may_be_dying(self, writer: _Writer) -> bool:
        if writer.connection is None and writer.conclude is None:
            return False
        return next(self._live_runs(writer.receiver.writer_id), None) is not None

    def _lose(self, writer: _Writer, detector: str, evidence_unix_ns: int, cause: str) -> None:
        for view in list(self._live_runs(writer.receiver.writer_id)):
            evidence = max(evidence_unix_ns, view.started_at_unix_ns)
            self.stats.lost_runs += 1
            self._host.submit(
                Event(
                    kind=semconv.OPERATION_ENDED,
                    run_id=view.id,
                    time_unix_ns=evidence,
                    # Verdicts are exported from here, and the worker's own words may have died with it.
                    name=view.name or None,
                    title=view.title or None,
                    label=view.label,
                    parent_span_id=None if view.parent_id is None else view.parent_id[33:],
                    start_unix_ns=view.started_at_unix_ns or None,
                    service=view.service or None,
                    process_id=view.process_id,
                    state=State.LOST,
                    lost_detector=detector,
                    lost_evidence_unix_ns=evidence,
                    lost_cause=cause,
                )
            )

    def _live_runs(self, writer_id: str) -> Iterator[OperationView]:
        self._host.drain()
        now_unix_ns = self._host.clock.time_unix_ns()
        with self._host.lock:
            tree = self._host.hub.tree
            for run_id in list(tree.runs_of_writer(writer_id)):
                view = tree.view(run_id, now_unix_ns)
                if view is not None and view.live:
                    yield view


def _how_it_ended(error: BaseException | None) -> str:
    if isinstance(error, ConnectionResetError):
        return "the connection was reset"
    if isinstance(error, OSError) and error.errno is not None:
        return f"the connection failed ({errno.errorcode.get(error.errno, error.errno)})"
    return "the connection was closed without a farewell"
