"""Both ends of the worker link, sans I/O: a child process reports to its parent's feed.

The worker numbers its durable events from 1, sends them in order, and keeps each until the parent has acknowledged
it; on a new connection it goes on behind the last one the parent has. Conflated events are not numbered and not
kept: of each run only the newest waits. The parent takes each number of a writer once.

To a collector events travel as OTLP: there the same worker offers none, and the link says that it lives and hears who
watches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.protocol import encoding
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.messages import (
    PROTOCOL_VERSION,
    Alive,
    Bye,
    CommandStatus,
    Drain,
    Interest,
    LinkAck,
    LinkCommand,
    LinkEvents,
    LinkWelcome,
    Register,
)

FRAME_BYTES: Final = 128 * 1024
"""An `events` frame is closed once it holds this much; the limit of a worker's frame is twice that."""
WINDOW_EVENTS: Final = 2048
"""Events sent and not acknowledged; beyond it the worker waits, so that neither side hoards."""
WORKER_FRAME_BYTES: Final = 256 * 1024
MAX_COMMANDS: Final = 1024
"""Commands that wait for the worker's thread; the host sends again what is not answered."""
EVERY_RUN: Final = "*"
"""Stands for all runs of the writer in an `interest`."""
PLAIN_RATE_HZ: Final = 1.0
"""Of ticks where nobody asked for more; an `interest` of this much or less takes an earlier one back."""
MAX_WATCHED_RUNS: Final = 1024
"""An interest in more is not taken: those ticks come at the plain rate."""
_NOBODY: Final[Mapping[str, float]] = MappingProxyType({})
_RESERVED: Final = 0.2
"""Of the room for durable events, only for those that say that a run began, ended, or changed its state."""
_NEVER_CROWDED_OUT: Final = frozenset(
    {semconv.OPERATION_STARTED, semconv.OPERATION_ENDED, semconv.OPERATION_STATE_CHANGED}
)


class _Kept(msgspec.Struct, gc=False):
    n: int
    data: bytes


class LinkSender:
    """The worker's end. It survives its connections.

    Args:
        writer_id: of this process incarnation.
        resource: attributes of the process; `process.pid` lets a parent say how its child ended.
        max_pending: durable events kept; one more is dropped, and counted.
        max_pending_bytes: of them, encoded.
        max_ticks: runs whose newest tick waits.
    """

    def __init__(
        self,
        writer_id: str,
        *,
        resource: dict[str, str | bool | int | float] | None = None,
        max_pending: int = 10_000,
        max_pending_bytes: int = 16 * 1024 * 1024,
        max_ticks: int = 10_000,
    ) -> None:
        self.dropped = 0
        """Durable events that found no room."""
        self.connected = False
        """Whether `connection_opened` was called and `connection_closed` not yet."""
        self.welcomed = False
        """Whether the parent has answered on this connection."""
        self.interest: Mapping[str, float] = _NOBODY
        """How often a second ticks are wanted, by run id or `*`; replaced with each change, empty when disconnected."""
        self.drain: Drain | None = None
        """The host goes away for a while; `None`: it has not said so on this connection."""
        self._writer_id = writer_id
        self._resource = resource or {}
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._max_ticks = max_ticks
        self._commands: list[LinkCommand] = []
        self._statuses: list[CommandStatus] = []
        self._clear()

    def _clear(self) -> None:
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._ticks: dict[str, Event] = {}
        self._next = 1
        self._sent = 0

    def offer(self, event: Event) -> None:
        """Take over one event; over the bounds it is dropped and counted."""
        if not event.durable:
            if event.run_id in self._ticks or len(self._ticks) < self._max_ticks:
                self._ticks[event.run_id] = event
            return
        data = encoding.encode_link_event(event)
        share = 1.0 if event.kind in _NEVER_CROWDED_OUT else 1.0 - _RESERVED
        if (
            len(self._kept) >= self._max_pending * share
            or self._kept_bytes + len(data) > self._max_pending_bytes * share
            or len(data) > FRAME_BYTES
        ):
            self.dropped += 1
            return
        if event.sequence is not None:
            # It carries the counts too, and newer ones. A note that existing code wrote carries none.
            self._ticks.pop(event.run_id, None)
        self._kept.append(_Kept(self._next, data))
        self._kept_bytes += len(data)
        self._next += 1

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not self._kept and not self._ticks

    @property
    def all_sent(self) -> bool:
        """Whether everything offered was handed out on this connection."""
        return self.welcomed and self._sent >= self._next - 1 and not self._ticks

    def clear(self) -> None:
        """Forget what is kept: there is nobody to send it to."""
        self._clear()

    def connection_opened(self) -> bytes:
        """A new connection stands; its first frame, `register`."""
        self.connected = True
        self.drain = None
        return encoding.encode(
            Register(version=PROTOCOL_VERSION, writer=self._writer_id, resource=self._resource)
        )

    def connection_closed(self) -> None:
        """The connection ended: what is not acknowledged will be sent again."""
        self.connected = self.welcomed = False
        self.interest = _NOBODY
        # The host sends again what it has no answer to.
        self._statuses.clear()

    def receive(self, frame: bytes) -> None:
        """One frame of the parent's.

        Raises:
            RemoteProtocolError: it is no message, or not at this time.
        """
        try:
            message = encoding.decode(encoding.HOST_MESSAGES, frame, max_bytes=WORKER_FRAME_BYTES)
        except encoding.UnknownMessage as unknown:
            if unknown.known:
                raise
            return  # of a later version
        if isinstance(message, LinkWelcome):
            self.welcomed = True
            self._acknowledge(message.n)
            # Everything that is left was not taken, whatever was sent before.
            self._sent = self._kept[0].n - 1 if self._kept else self._next - 1
        elif isinstance(message, LinkAck):
            self._acknowledge(message.n)
        elif isinstance(message, Interest):
            self._note_interest(message.run, message.rate_hz)
        elif isinstance(message, LinkCommand):
            if len(self._commands) < MAX_COMMANDS:
                self._commands.append(message)
        elif isinstance(message, Drain):
            self.drain = message

    def take_commands(self) -> list[LinkCommand]:
        """What the host asked for since the last call; each is to be answered by `answer`."""
        taken, self._commands = self._commands, []
        return taken

    def answer(self, status: CommandStatus) -> None:
        """Tell the host what was done with a command, with the next frames."""
        self._statuses.append(status)

    def outgoing(self) -> list[bytes]:
        """Frames to send now; empty before the welcome, and while too much is unacknowledged."""
        if not self.welcomed:
            return []
        frames: list[bytes] = [encoding.encode(status) for status in self._statuses]
        self._statuses.clear()
        batch: list[bytes] = []
        size = 0
        # Numbers are consecutive, so the first one not sent has a known place.
        first = self._sent - self._kept[0].n + 1 if self._kept else 0
        for index in range(first, min(len(self._kept), WINDOW_EVENTS)):
            kept = self._kept[index]
            if batch and size + len(kept.data) > FRAME_BYTES:
                frames.append(self._frame(kept.n - len(batch), batch))
                batch, size = [], 0
            batch.append(kept.data)
            size += len(kept.data)
            self._sent = kept.n
        if batch:
            frames.append(self._frame(self._sent - len(batch) + 1, batch))
        if self._ticks and self._sent >= self._next - 1:
            # Ticks come after what they are newer than.
            frames.extend(self._tick_frames())
        return frames

    def _frame(self, n: int, batch: list[bytes], ticks: list[bytes] | None = None) -> bytes:
        return encoding.encode(
            LinkEvents(
                n=n,
                # Raw JSON of the same shape: each event is encoded once, when it is offered.
                events=tuple(msgspec.Raw(data) for data in batch),  # type: ignore[misc]  # see above
                ticks=tuple(msgspec.Raw(data) for data in ticks or ()),  # type: ignore[misc]  # see above
                dropped=self.dropped,
            )
        )

    def _tick_frames(self) -> list[bytes]:
        ticks, self._ticks = self._ticks, {}
        frames: list[bytes] = []
        batch: list[bytes] = []
        size = 0
        for tick in ticks.values():
            data = encoding.encode_link_event(tick)
            if batch and size + len(data) > FRAME_BYTES:
                frames.append(self._frame(self._next, [], batch))
                batch, size = [], 0
            if len(data) <= FRAME_BYTES:
                batch.append(data)
                size += len(data)
        if batch:
            frames.append(self._frame(self._next, [], batch))
        return frames

    def alive(self) -> bytes:
        """The frame that says: this writer lives."""
        return encoding.encode(Alive())

    def bye(self, reason: str = "") -> bytes:
        """The last frame: the end of this connection is no death."""
        return encoding.encode(Bye(reason=reason))

    def _note_interest(self, run: str, rate_hz: float) -> None:
        rates = dict(self.interest)
        if not math.isfinite(rate_hz) or rate_hz <= PLAIN_RATE_HZ:
            rates.pop(run, None)
        elif run in rates or run == EVERY_RUN or len(rates) < MAX_WATCHED_RUNS:
            rates[run] = rate_hz
        self.interest = rates

    def _acknowledge(self, n: int) -> None:
        if n >= self._next:
            raise RemoteProtocolError(
                f"acknowledged {n}, but only {self._next - 1} were sent", CloseCode.BAD_MESSAGE
            )
        while self._kept and self._kept[0].n <= n:
            self._kept_bytes -= len(self._kept.popleft().data)


class LinkReceiver:
    """The parent's end, of one writer. It survives the writer's connections.

    Attributes:
        taken: the last number that was taken.
        dropped: durable events the worker says it had to drop.
        said_bye: whether the worker left on purpose.
    """

    def __init__(self, writer_id: str) -> None:
        self.writer_id = writer_id
        self.taken = 0
        self.dropped = 0
        self.missed = 0
        self.said_bye = False
        self.statuses: list[CommandStatus] = []

    def welcome(self, connection: str) -> bytes:
        """The answer to `register`."""
        self.said_bye = False
        return encoding.encode(LinkWelcome(connection=connection, n=self.taken))

    def receive(self, frame: bytes) -> list[Event]:
        """The events of one frame that were not taken before, in order.

        Raises:
            RemoteProtocolError: it is no message of a worker, or not at this time.
        """
        message = encoding.decode(encoding.WORKER_MESSAGES, frame, max_bytes=WORKER_FRAME_BYTES)
        if isinstance(message, LinkEvents):
            return self._take(message)
        if isinstance(message, Register):
            raise RemoteProtocolError("registered twice on one connection", CloseCode.BAD_MESSAGE)
        if isinstance(message, Bye):
            self.said_bye = True
        elif isinstance(message, CommandStatus):
            self.statuses.append(message)
        return []

    def take_statuses(self) -> list[CommandStatus]:
        """What the worker did with commands, since the last call."""
        taken, self.statuses = self.statuses, []
        return taken

    def ack(self) -> bytes:
        """The frame that acknowledges what was taken."""
        return encoding.encode(LinkAck(n=self.taken))

    def _take(self, message: LinkEvents) -> list[Event]:
        self.dropped = max(self.dropped, message.dropped)
        fresh = [event for n, event in enumerate(message.events, message.n) if n > self.taken]
        if message.events:
            if message.n > self.taken + 1:
                self.missed += message.n - self.taken - 1
            self.taken = max(self.taken, message.n + len(message.events) - 1)
        return [*fresh, *message.ticks]


def registration(frame: bytes, *, max_bytes: int = WORKER_FRAME_BYTES) -> Register:
    """The first frame of a worker's connection.

    Raises:
        RemoteProtocolError: it is something else, or of a version this side does not speak.
    """
    message = encoding.decode(encoding.WORKER_MESSAGES, frame, max_bytes=max_bytes)
    if not isinstance(message, Register):
        raise RemoteProtocolError("the first frame must be `register`", CloseCode.BAD_MESSAGE)
    if message.version != PROTOCOL_VERSION:
        raise RemoteProtocolError(f"version {message.version} is not spoken here", CloseCode.BAD_MESSAGE)
    return message
