"""The worker's end of the worker link: to the feed of the parent process, or to a collector.

One daemon thread makes the connection, again and again where it is cut. The application's threads only ring a bell.
The connection itself is what proves life: it ends with the process, and never because the interpreter was busy.

A child process reports over it instead of opening a feed: the thread drains the child's host and keeps what it says
until the parent has acknowledged it. To a collector the sender tells the events; the link says who lives, and hears
who watches (`link_route`). It is long because one thread owns the socket, its times and the host's turns.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from otelprogress.exceptions import FeedDenied, FeedError, FeedUnavailable, InvalidValue
from otelprogress.feed.bell import Bell
from otelprogress.feed.link_wire import LinkWire
from otelprogress.model import semconv
from otelprogress.protocol.backoff import Backoff
from otelprogress.protocol.close_codes import CloseCode, retryable
from otelprogress.protocol.link_session import LinkSender
from otelprogress.protocol.messages import SUBPROTOCOL, CommandStatus

if TYPE_CHECKING:
    from otelprogress.feed.host import Host
    from otelprogress.feed.link_route import LinkRoute
    from otelprogress.model.events import Event
    from otelprogress.model.tree import Applied
    from otelprogress.protocol.messages import LinkCommand

_LOG: Final = logging.getLogger("otelprogress.feed")

_HANDSHAKE_S: Final = 5.0
_IDLE_POLL_S: Final = 5.0
"""With nothing to do the thread looks up this often, in seconds, for what time has caused in the host."""
_STOOD_S: Final = 0.5
"""A connection that stood this long is replaced at once; one that did not, with a growing pause."""
_AFTER_FAILURE_S: Final = 0.05
_GOODBYE_S: Final = 0.5
"""How long the parent may take to close its side after `bye`; then it is closed anyway."""
_EXIT_FLUSH_S: Final = 1.0


class LinkStats(msgspec.Struct):
    """What happened to a link since its start."""

    connections: int = 0
    """How often a connection was opened, the first time included."""
    failed_attempts: int = 0
    failures: int = 0
    """Errors of our own: a bug here."""
    last_failure: str = ""
    """Why the last attempt failed, or the last connection ended; empty since the other end has welcomed us."""


class LinkClient:
    """Keeps a link for one writer, and reports over it everything a host is told, where the route carries events.

    Nothing is opened or started before the first event of this writer. Everything public may be called from any
    thread and raises nothing.

    Args:
        host: this process's host. The link listens to it, and drains it where the route carries events.
        route: to the parent, or to a collector.
        writer_id: of this process incarnation.
        service: `service.name`; empty: not said.
        max_pending: durable events kept until acknowledged; more are dropped and counted.
        backoff_s: least and greatest pause between two attempts to connect; `None`: the route's.
        alive_every_s: a sign of life is sent this often; `None`: none is.
        on_command: obeys a command, on the link's thread; must not wait. `None`: every command is answered `unsupported`.
        on_interest: told, on the link's thread, how often ticks are wanted, by run id or `*`, whenever that changes.
    """

    def __init__(
        self,
        host: Host,
        route: LinkRoute,
        *,
        writer_id: str,
        service: str = "",
        max_pending: int = 10_000,
        backoff_s: tuple[float, float] | None = None,
        alive_every_s: float | None = None,
        on_interest: Callable[[Mapping[str, float]], object] | None = None,
        on_command: Callable[[LinkCommand], CommandStatus] | None = None,
    ) -> None:
        self.stats = LinkStats()
        self.writer_id = writer_id
        self._host = host
        self._route = route
        resource: dict[str, str | bool | int | float] = {semconv.PROCESS_PID: os.getpid()}
        if service:
            resource[semconv.SERVICE_NAME] = service
        self._session = LinkSender(writer_id, resource=resource, max_pending=max_pending)
        self._backoff = Backoff(*(backoff_s or route.backoff_s), rng=random.Random())
        self._alive_every_s = alive_every_s
        self._alive_at_s = 0.0
        self._on_interest = on_interest
        self._on_command = on_command
        self._interest: Mapping[str, float] = self._session.interest
        self._pid = os.getpid()
        self._wire: LinkWire | None = None
        self._opened_at_s = 0.0
        self._retry_at_s = 0.0
        self._given_up = False
        self._unanswered = False
        self._end_reason = ""
        self._warned_of = ""
        self._ended = False
        self._healthy = False
        self._closing_at_s: float | None = None
        self._goodbye_at_s: float | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._told: deque[Event] = deque()
        self._settled = threading.Condition()
        self._rings = 0
        """How often the bell was rung; two rings at once may count as one."""
        self._clean_at = -1
        """The rings of which everything has left the process."""
        self._flush_wanted = 0
        self._flush_sent = 0
        self._flush_acknowledged = 0
        self._bell: Bell | None = None

    # --- any thread ---------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Begin to listen to the host; the thread starts with the first event."""
        if self._route.carries_events:
            self._host.add_listener(self._tell)
            self._host.set_wake(self._ring)
        else:
            self._host.add_listener(self._begin)

    @property
    def dropped(self) -> int:
        """Durable events that no room was left for."""
        return self._session.dropped

    @property
    def connected(self) -> bool:
        """Whether the other end has welcomed this writer on the present connection."""
        return self._session.welcomed

    @property
    def given_up(self) -> bool:
        """Whether the parent is proven gone or has refused us: nothing is kept or sent any more."""
        return self._given_up

    def report(self) -> str:
        """How it stands, in one line, for `doctor`."""
        if self._session.welcomed:
            state = "connected"
        elif self._thread is None:
            state = "not needed yet"
        else:
            state = "given up" if self._given_up else "not connected"
        if self.stats.last_failure:
            state += f" ({self.stats.last_failure})"
        dropped = f", {self.dropped} events dropped" if self.dropped else ""
        return f"{self._route.name}: {state}{dropped}"

    def flush(self, timeout_s: float, *, acknowledged: bool = False) -> bool:
        """Wait until what was submitted before this call has left the process.

        Args:
            timeout_s: the wait is never longer.
            acknowledged: wait until the parent has confirmed it, not only until the kernel has taken it. What the
                kernel has taken arrives even when this process is killed the next moment.

        Returns:
            Whether that was reached. `True` at once when there is nothing to send, or nobody to send it to. `False`
            at once when an earlier flush was in vain and the parent has not been heard since: a parent that stands
            still costs its children one `timeout_s`, not one for each task.
        """
        if self._has_nothing_to_do() and (not acknowledged or self._session.settled):
            return True
        if self._unanswered:
            return False
        with self._settled:
            self._flush_wanted += 1
            wanted = self._flush_wanted
            try:
                self._ring()
            except RuntimeError:  # it got no thread: nothing will leave
                return False
            flushed = self._settled.wait_for(
                lambda: (
                    self._given_up
                    or self._ended
                    or wanted <= (self._flush_acknowledged if acknowledged else self._flush_sent)
                ),
                timeout_s,
            )
        self._unanswered = not flushed
        return flushed

    def close(self, timeout_s: float = _EXIT_FLUSH_S) -> None:
        """Send what is waiting, say `bye`, end the connection and the thread; in `timeout_s` or less.

        Where events are left and no connection stands one attempt is made. What cannot be sent in time is dropped: the
        application's exit waits for nobody.
        """
        if self._thread is None and not (self._route.carries_events and (self._host.pending or self._told)):
            self._ended = True
            return
        self._closing_at_s = time.monotonic() + timeout_s
        self._retry_at_s = 0.0
        with contextlib.suppress(RuntimeError):  # it got no thread: nothing will leave
            self._ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def abandon(self) -> None:
        """Let go of everything without a word, in a forked child: the connection is the parent process's.

        `feed.fork` has given up the socket already; the thread does not exist here.
        """
        self._ended = True
        self._close_bell()

    def _has_nothing_to_do(self) -> bool:
        if self._given_up or self._ended or not self._route.carries_events:
            return True
        if self._host.pending or self._told:
            return False
        return self._thread is None or self._clean_at == self._rings

    def _ring(self) -> None:
        if self._ended or os.getpid() != self._pid:
            return
        self._rings += 1
        if self._thread is None:
            self._start()
        bell = self._bell
        if bell is not None:
            bell.ring()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._ended:
                return
            self._bell = Bell()
            thread = threading.Thread(target=self._run, name="otelprogress-link", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # no thread left, or the interpreter is leaving
                self._thread = None
                self._close_bell()
                raise  # to the host, which counts it and rings again with the next event

    def _close_bell(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()

    # --- the link's thread --------------------------------------------------------------------------------

    def _tell(self, applied: Sequence[Applied]) -> None:
        # Any thread that drains the host. The session belongs to the link's thread, which drains next.
        if not self._given_up:
            # What this host concluded by itself (a stall) names no writer: the parent's host concludes it too.
            self._told.extend(each.source for each in applied if each.source.writer_id)

    def _begin(self, applied: Sequence[Applied]) -> None:
        # Any thread that drains the host. What only passes through it has links of its own.
        if self._thread is None and any(each.source.writer_id == self.writer_id for each in applied):
            self._ring()

    def _run(self) -> None:
        try:
            while not self._is_over():
                try:
                    self._turn()
                except Exception:
                    self.stats.failures += 1
                    _LOG.debug("the worker link failed", exc_info=True)
                    self._hang_up()
                    # A failure that stays shall not cost a core.
                    time.sleep(_AFTER_FAILURE_S)
        finally:
            self._hang_up()
            with self._settled:
                self._ended = True
                self._settled.notify_all()
            self._close_bell()

    def _turn(self) -> None:
        """One round: reduce, connect if due, send, wait, receive."""
        flushing, rings = self._flush_wanted, self._rings
        if self._route.carries_events:
            self._host.drain()
            while self._told:
                self._session.offer(self._told.popleft())
        now_s = time.monotonic()
        if self._wants_wire() and now_s >= self._retry_at_s:
            self._connect(now_s)
        self._send()
        self._note_flushed(flushing, rings)
        if self._is_over():
            return
        self._wait()
        self._receive()

    def _wants_wire(self) -> bool:
        if self._wire is not None or self._given_up:
            return False
        if not self._route.carries_events:
            return self._closing_at_s is None
        # Once registered it stays so, with nothing to say too: the connection is what says that this writer lives.
        return not self._session.settled or (self.stats.connections > 0 and self._closing_at_s is None)

    def _connect(self, now_s: float) -> None:
        try:
            target = self._route.find()
            self._wire = LinkWire(
                target.url,
                target.token,
                subprotocols=(SUBPROTOCOL,),
                connect_timeout_s=target.connect_timeout_s,
                tls=target.tls,
            )
        except FeedDenied as refused:
            self._refused(str(refused))
        except (OSError, FeedUnavailable, InvalidValue) as failed:
            self._failed(str(failed))
        else:
            self._opened_at_s = now_s

    def _send(self) -> None:
        wire = self._wire
        if wire is None or not wire.open:
            return
        if not self._session.connected:
            wire.send(self._session.connection_opened())
            self.stats.connections += 1
        wire.write()
        if not wire.wants_write:
            for frame in self._session.outgoing():
                wire.send(frame)
            if self._alive_every_s is not None and self._session.welcomed:
                now_s = time.monotonic()
                if now_s >= self._alive_at_s:
                    self._alive_at_s = now_s + self._alive_every_s
                    wire.send(self._session.alive())
        if self._closing_at_s is not None and self._goodbye_at_s is None and self._may_leave():
            self._goodbye_at_s = time.monotonic() + _GOODBYE_S
            wire.send(self._session.bye())
            wire.say_goodbye()
        wire.write()
        if wire.closed:
            self._lost_connection()

    def _wait(self) -> None:
        bell = self._bell
        if bell is None:
            return
        poll = select.poll()
        poll.register(bell.fileno(), select.POLLIN)
        wire = self._wire
        if wire is not None and not wire.closed:
            poll.register(wire.fileno(), select.POLLIN | (select.POLLOUT if wire.wants_write else 0))
        poll.poll(self._pause_s() * 1000)
        bell.hush()

    def _receive(self) -> None:
        wire = self._wire
        if wire is None:
            return
        now_s = time.monotonic()
        try:
            for message in wire.read():
                self._unanswered = False
                self._session.receive(message)
        except FeedDenied as refused:
            self._refused(str(refused))
            return
        except FeedError as broken:
            self._end_reason = str(broken)
            wire.close()
        self._tell_interest()
        self._obey()
        if not wire.closed and not self._session.welcomed and now_s - self._opened_at_s > _HANDSHAKE_S:
            self._end_reason = "it does not answer"
            wire.close()
        if wire.closed:
            self._lost_connection()
        elif self._session.welcomed and not self._healthy:
            self._healthy = True
            self._end_reason = self.stats.last_failure = self._warned_of = ""
            self._backoff.connected(now_s)

    def _obey(self) -> None:
        """Bring what was commanded to the operations; the answers go with the next frames."""
        for command in self._session.take_commands():
            if self._on_command is None:
                status = CommandStatus(command_id=command.command_id, status="unsupported")
            else:
                status = self._on_command(command)
            self._session.answer(status)

    def _pause_s(self) -> float:
        now_s = time.monotonic()
        until = [_IDLE_POLL_S]
        if self._wants_wire():
            until.append(self._retry_at_s - now_s)
        if self._wire is not None and not self._session.welcomed:
            until.append(self._opened_at_s + _HANDSHAKE_S - now_s)
        elif self._wire is not None and self._alive_every_s is not None:
            until.append(self._alive_at_s - now_s)
        until += [at_s - now_s for at_s in (self._closing_at_s, self._goodbye_at_s) if at_s is not None]
        due_unix_ns = self._host.next_deadline_unix_ns() if self._route.carries_events else None
        if due_unix_ns is not None:
            until.append((due_unix_ns - self._host.clock.time_unix_ns()) / 1e9)
        return max(0.0, min(until))

    def _lost_connection(self) -> None:
        code = self._wire.close_code if self._wire is not None else None
        reason = self._end_reason or ("the connection was cut" if code is None else f"closed with {code}")
        self._end_reason = ""
        if code is not None and code != CloseCode.NORMAL and not retryable(code):
            self._refused(reason)
            return
        was_healthy, self._healthy = self._healthy, False
        drain = self._session.drain
        self._hang_up()
        now_s = time.monotonic()
        if drain is not None:
            self.stats.last_failure = "it restarts"
            self._retry_at_s = now_s + self._backoff.asked_delay_s(*drain.reconnect_after_s)
        elif was_healthy and now_s - self._opened_at_s >= _STOOD_S:
            # The other end's grace is short: the first attempt is at once.
            self._retry_at_s = 0.0
        else:
            self._failed(reason)

    def _failed(self, reason: str) -> None:
        now_s = time.monotonic()
        self.stats.failed_attempts += 1
        self.stats.last_failure = reason
        self._retry_at_s = now_s + self._backoff.next_delay_s(now_s)
        if self._closing_at_s is not None:
            self._closing_at_s = now_s

    def _refused(self, reason: str) -> None:
        if self._route.refusal_is_final:
            self.stats.last_failure = reason
            self._give_up(reason)
            return
        self._hang_up()
        self._healthy = False
        self._failed(reason)
        if reason != self._warned_of:
            self._warned_of = reason
            _LOG.warning(
                "otelprogress: %s refuses the worker link (%s): that this process died would be seen late. It is tried "
                "again; `otelprogress doctor` says more",
                self._route.name,
                reason,
            )

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        self._session.connection_closed()
        self._alive_at_s = 0.0
        self._tell_interest()

    def _tell_interest(self) -> None:
        """Pass on what changed since the last call. Nobody watches where no connection says so."""
        interest = self._session.interest
        if interest is not self._interest:
            self._interest = interest
            if self._on_interest is not None:
                self._on_interest(interest)

    def _give_up(self, reason: str) -> None:
        _LOG.debug("the worker link gives up: %s", reason)
        self._hang_up()
        self._given_up = True
        self._session.clear()

    def _may_leave(self) -> bool:
        """Whether everything was said that is to be said before `bye`."""
        return self._session.settled and (self._route.carries_events or self._session.welcomed)

    def _is_over(self) -> bool:
        if self._closing_at_s is None:
            # The host still has to be drained when nobody is to be told.
            return False
        now_s = time.monotonic()
        if now_s >= self._closing_at_s or (self._goodbye_at_s is not None and now_s >= self._goodbye_at_s):
            return True
        if self._given_up:
            return True
        if not self._route.carries_events:
            # A writer that is not registered need not say that it leaves.
            return not self._session.welcomed
        return self._wire is None and self._session.settled and not self._host.pending

    def _note_flushed(self, flushing: int, rings: int) -> None:
        wire = self._wire
        sent = self._session.settled or (
            self._session.all_sent and wire is not None and wire.open and not wire.wants_write
        )
        if sent:
            self._clean_at = rings
        if self._flush_acknowledged >= flushing:
            return
        with self._settled:
            if sent:
                self._flush_sent = flushing
            if self._session.settled:
                self._flush_acknowledged = flushing
            self._settled.notify_all()
