"""The client's side: a connection (`ClientSession`), and what outlives it (`Subscription`). No I/O.

A `Subscription` keeps the cursor and, per run, the newest revision it has seen. With these it makes good the
guarantees of the feed on its side: revisions rise strictly (G1), and a missed durable event is noticed (G2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from otelprogress.exceptions import LocalProtocolError, RemoteProtocolError
from otelprogress.model import semconv
from otelprogress.model.digest_budget import DEFAULT_MAX_TOKENS
from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.encoding import SERVER_MESSAGES, UnknownMessage, decode, encode
from otelprogress.protocol.messages import (
    PROTOCOL_VERSION,
    Ack,
    Auth,
    Bookmark,
    Command,
    DigestText,
    Drain,
    Error,
    Events,
    Filter,
    Gap,
    Hello,
    Left,
    Level,
    Limits,
    Render,
    ServerMessage,
    Snapshot,
    SnapshotEnd,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Welcome,
)

DEFAULT_WINDOW_BYTES: Final = 1024 * 1024
SNAPSHOT: Final = "snapshot"
LEFT: Final = "left"
MISSED: Final = "missed"
"""The gap's reason where this side found a durable event missing; the server's reasons are `GapReason`."""
_MAX_KNOWN_GONE: Final = 10_000
"""Runs that ended or left are remembered, so that nothing older of theirs is ever shown, up to this many."""
_TERMINAL: Final = semconv.OPERATION_ENDED.removeprefix(semconv.PREFIX)
_DURABLE_KINDS: Final = frozenset(kind.removeprefix(semconv.PREFIX) for kind in semconv.DURABLE_EVENTS)


class _Known:
    __slots__ = ("durable", "revision", "view")

    def __init__(self) -> None:
        self.revision = 0
        self.durable: int | None = None
        """The newest durable revision (at the subscription's level) that is covered; `None`: it was not followed."""
        self.view: OperationView | None = None
        """As last shown; `None`: it left."""


class Delivery(NamedTuple):
    """One event for the callback."""

    subscription: Subscription
    event: FeedEvent
    cursor: str | None
    """Where to go on once this event has been handled; `None`: from the beginning (no cursor was given yet)."""


class Subscription:
    """What a client follows, across any number of connections. Used on one connection at a time.

    Args:
        id: unique among the subscriptions of one client; equal ids across clients let the server share bytes.
        filter: `None`: the default one (roots that live or ended less than ten minutes ago).
        level: `ticks`, `milestones` or `terminal`.
        max_rate_hz: of ticks; `None`: the server's.
        cursor: of an earlier subscription with the same filter; `None`: begin with a snapshot.
        window_bytes: how much the server may send ahead; 0: no limit.
        render: `digest`: text for language models comes instead of deliveries.
        max_tokens: the budget of one digest.

    Attributes:
        cursor: where to go on; save it once everything delivered with it has been handled.
        gaps: the reasons of all gaps so far, oldest first.
        more: how many operations the last snapshot left out because of the filter's `limit`.
    """

    def __init__(
        self,
        id: str = "1",  # noqa: A002 - the name of the field in the protocol
        *,
        filter: Filter | None = None,  # noqa: A002 - the name of the field in the protocol
        level: Level = "milestones",
        max_rate_hz: float | None = None,
        cursor: str | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        render: Render = "events",
        max_tokens: int = DEFAULT_MAX_TOKENS,
    ) -> None:
        self.id = id
        self.filter = filter if filter is not None else Filter()
        self.level: Level = level
        self.max_rate_hz = max_rate_hz
        self.cursor = cursor
        self.window_bytes = window_bytes
        self.render: Render = render
        self.max_tokens = max_tokens
        self.gaps: list[str] = []
        self.more = 0
        self._known: dict[str, _Known] = {}
        self._gap: str | None = None
        self._shown: set[str] = set()
        self._frames = 0
        self._acknowledged = 0

    @property
    def operations(self) -> list[OperationView]:
        """What belongs to the subscription now, as last shown."""
        return [known.view for known in self._known.values() if known.view is not None]

    def connect(self) -> bytes:
        """The `subscribe` of a new connection."""
        self._frames = self._acknowledged = 0
        self._shown = set()
        return encode(
            Subscribe(
                id=self.id,
                filter=self.filter,
                level=self.level,
                max_rate_hz=self.max_rate_hz,
                cursor=self.cursor,
                window_bytes=self.window_bytes,
                render=self.render,
                max_tokens=self.max_tokens,
            )
        )

    def acknowledgement(self) -> bytes | None:
        """The `ack` that is due; `None`: nothing new was handled, or the window is unlimited."""
        if not self.window_bytes or self._frames == self._acknowledged:
            return None
        self._acknowledged = self._frames
        return encode(Ack(id=self.id, frames=self._frames))

    def take(self, message: ServerMessage) -> list[Delivery]:
        """What a message of this subscription means for the callback.

        Raises:
            MissedEvents: a durable event is missing; the next connection begins with a snapshot.
            RemoteProtocolError: revisions went back.
        """
        if isinstance(message, Subscribed):
            return []
        self._frames += 1
        if isinstance(message, Events):
            return self._events(message)
        if isinstance(message, Snapshot):
            return self._snapshot(message.operations)
        if isinstance(message, SnapshotEnd):
            return self._snapshot_end(message)
        if isinstance(message, Left):
            out = self._leave(message.operation, message.cursor)
            self.cursor = message.cursor
            return out
        if isinstance(message, Gap):
            self._gap = message.reason
            self._shown = set()
            self.gaps.append(message.reason)
        elif isinstance(message, Bookmark | DigestText):
            self.cursor = message.cursor
        return []

    def _events(self, message: Events) -> list[Delivery]:
        out: list[Delivery] = []
        for event in message.events:
            known = self._known.get(event.operation.id)
            if known is None:
                known = self._known[event.operation.id] = _Known()
            elif event.revision <= known.revision:
                continue
            terminal = self.level == "terminal"
            before = event.previous_terminal if terminal else event.previous_durable
            if known.durable is not None and before > known.durable:
                self.cursor, self._gap = None, MISSED
                self.gaps.append(MISSED)
                known.durable = None
                raise MissedEvents(
                    f"revision {before} of {event.operation.handle or event.operation.id} never came", out
                )
            known.revision = event.revision
            counted = event.kind == _TERMINAL if terminal else event.kind in _DURABLE_KINDS
            known.durable = event.revision if counted else max(before, known.durable or 0)
            self._show(known, event.operation)
            # Only with its last event is a frame done: going on from its cursor would skip the rest.
            out.append(Delivery(self, event, self.cursor))
        if out:
            out[-1] = out[-1]._replace(cursor=message.cursor)
        self.cursor = message.cursor
        return out

    def _snapshot(self, operations: Sequence[OperationView]) -> list[Delivery]:
        out: list[Delivery] = []
        for view in operations:
            self._shown.add(view.id)
            known = self._known.setdefault(view.id, _Known())
            if view.revision < known.revision and self._gap == "epoch":
                raise RemoteProtocolError(
                    f"revision {view.revision} of {view.handle or view.id} after {known.revision}: the host forgot "
                    "revisions it had given",
                    CloseCode.BAD_MESSAGE,
                )
            newer = view.revision > known.revision
            known.revision = max(known.revision, view.revision)
            known.durable = known.revision
            if newer or known.view is None:
                self._show(known, view)
            if newer:
                out.append(
                    Delivery(
                        self,
                        FeedEvent(
                            kind=SNAPSHOT,
                            operation=view,
                            revision=view.revision,
                            time_unix_ns=view.updated_at_unix_ns,
                            gap=self._gap,
                        ),
                        self.cursor,
                    )
                )
        return out

    def _snapshot_end(self, message: SnapshotEnd) -> list[Delivery]:
        out: list[Delivery] = []
        if message.complete:
            gone = [
                run_id
                for run_id, known in self._known.items()
                if known.view is not None and run_id not in self._shown
            ]
            for run_id in gone:
                out += self._leave(run_id, self.cursor)
            if out:
                out[-1] = out[-1]._replace(cursor=message.cursor)
        self._gap = None
        self._shown = set()
        self.more = message.more
        self.cursor = message.cursor
        return out

    def _leave(self, run_id: str, cursor: str | None) -> list[Delivery]:
        known = self._known.get(run_id)
        if known is None or known.view is None:
            return []
        view = known.view
        known.view = known.durable = None
        self._forget_some()
        return [Delivery(self, FeedEvent(kind=LEFT, operation=view, revision=known.revision), cursor)]

    def _show(self, known: _Known, view: OperationView) -> None:
        known.view = view
        if not view.live:
            self._forget_some()

    def _forget_some(self) -> None:
        if len(self._known) <= _MAX_KNOWN_GONE:
            return
        gone = [run_id for run_id, known in self._known.items() if known.view is None or not known.view.live]
        for run_id in gone[: len(self._known) // 2]:
            del self._known[run_id]


class MissedEvents(RemoteProtocolError):
    """The server skipped a durable event.

    Attributes:
        deliveries: what the same frame held before it.
    """

    def __init__(self, message: str, deliveries: list[Delivery]) -> None:
        super().__init__(message, CloseCode.BAD_MESSAGE)
        self.deliveries = deliveries


class ClientSession:
    """One connection.

    Its driver sends what `outgoing` gives (after opening, after each `receive`, and after a call that asks for
    something), and hands every text frame to `receive`.

    Args:
        subscriptions: subscribed as soon as the server welcomes us.
        token: `None`: the HTTP request carries it, or none is needed.
        client: names us in the server's diagnostics.
        limits: of what is accepted from the server; `None`: the defaults.

    Attributes:
        welcome: the server's `welcome`; `None`: it did not come yet.
        drain: the server's `drain`; `None`: it goes on.
    """

    def __init__(
        self,
        subscriptions: Iterable[Subscription] = (),
        *,
        token: str | None = None,
        client: str = "otelprogress",
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits if limits is not None else Limits()
        self._subscriptions: dict[str, Subscription] = {}
        self.welcome: Welcome | None = None
        self.drain: Drain | None = None
        self._failure: RemoteProtocolError | None = None
        hello = Hello(version=PROTOCOL_VERSION, client=client, token=token)
        self._out: list[bytes] = [encode(hello)]
        for subscription in subscriptions:
            self.add(subscription)

    def add(self, subscription: Subscription) -> None:
        """Subscribe.

        Raises:
            LocalProtocolError: its id is taken on this connection.
        """
        if subscription.id in self._subscriptions:
            raise LocalProtocolError(f"subscription {subscription.id!r} stands already on this connection")
        self._subscriptions[subscription.id] = subscription
        if self.welcome is not None:
            self._out.append(subscription.connect())

    def remove(self, subscription: Subscription) -> None:
        """Unsubscribe; nothing more of it is delivered."""
        if self._subscriptions.pop(subscription.id, None) is not None and self.welcome is not None:
            self._out.append(encode(Unsubscribe(id=subscription.id)))

    def renew(self, token: str) -> None:
        """Show a newer token on the open connection."""
        self._out.append(encode(Auth(token=token)))

    def command(self, command: Command) -> None:
        """Ask an operation for something; the answer is a `CommandStatus` from `receive`."""
        self._out.append(encode(command))

    def outgoing(self) -> list[bytes]:
        """Text frames to send, as UTF-8.

        Raises:
            RemoteProtocolError: what the last `receive` found wrong: close with its code, connect again.
        """
        self._raise_failure()
        out, self._out = self._out, []
        for subscription in self._subscriptions.values():
            ack = subscription.acknowledgement()
            if ack is not None:
                out.append(ack)
        return out

    def receive(self, frame: str | bytes) -> list[Delivery | ServerMessage]:
        """What one frame brings: deliveries of subscriptions, and messages that concern the connection.

        `Welcome`, `Drain`, `Gap`, `DigestText`, `Error` and `CommandStatus` are given as they came.

        Raises:
            RemoteProtocolError: the server broke the protocol: close with its code, connect again.
        """
        self._raise_failure()
        limits = self._limits
        try:
            # Views nest in events in frames; the margin is for fields that later versions add.
            message = decode(
                SERVER_MESSAGES, frame, max_bytes=limits.server_frame_bytes, max_depth=limits.depth
            )
        except UnknownMessage as error:
            if not error.known:
                return []
            raise
        if isinstance(message, Welcome):
            if self.welcome is not None:
                raise RemoteProtocolError("a second welcome")
            self.welcome = message
            self._out += [subscription.connect() for subscription in self._subscriptions.values()]
            return [message]
        if isinstance(message, (Subscribed, Snapshot, SnapshotEnd, Events, DigestText, Bookmark, Gap, Left)):
            return self._of_subscription(message)
        if isinstance(message, Drain):
            self.drain = message
        elif isinstance(message, Error):
            self._subscriptions.pop(message.ref, None)
        return [message]

    def _of_subscription(
        self, message: Subscribed | Snapshot | SnapshotEnd | Events | DigestText | Bookmark | Gap | Left
    ) -> list[Delivery | ServerMessage]:
        subscription = self._subscriptions.get(message.id)
        if subscription is None:
            # It was on its way when we unsubscribed.
            return []
        try:
            out: list[Delivery | ServerMessage] = [*subscription.take(message)]
        except MissedEvents as missed:
            # What came before it is good and was counted as seen: it is delivered, then the connection ends.
            self._failure = missed
            return [*missed.deliveries]
        if isinstance(message, Gap | DigestText):
            out.append(message)
        return out

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
