"""What the tools stand on: operations that can be found, followed and told something. Pure.

Two hosts implement `Source`: the collector over its hub, and `otelprogress mcp` over the feeds that a client of this
machine reaches (`feeds.FeedsSource`). One contract suite tests both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.protocol.messages import Command, CommandStatus

READ: Final = "progress:read"
CONTROL: Final = "progress:control"
RESPOND: Final = "progress:respond"
START: Final = "progress:start"
ALL_SCOPES: Final = frozenset({READ, CONTROL, RESPOND, START})

MAX_HEARD: Final = 4_096
"""Events kept for one who follows."""

Status = Literal["all", "live", "ended", "failed"]


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and what it may. A host that knows more of its callers has a subclass."""

    actor: str = "local"
    """For audits."""
    key: str = "local"
    """Whose waits and subscriptions are counted together."""
    scopes: frozenset[str] = ALL_SCOPES
    traceparent: str = ""
    """The caller's trace context, as W3C Trace Context says it; empty: it gave none, or none that can be read."""

    gone: Callable[[], bool] = bool
    """Whether nobody listens any more: the connection that the call came by was closed."""

    @property
    def may_not_start(self) -> str:
        """Why it may start nothing, whatever its scopes say; empty: it may."""
        return ""

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty: the caller gave no trace context."""
        return self.traceparent[3:35]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which operations to list."""

    status: Status = "all"
    """`live`: no outcome yet; `ended`: any outcome; `failed`: failed or lost."""
    query: str = ""
    """A part of the handle, the title or the service, in any case. With it children are found, too."""
    trace_id: str = ""
    subtree: str = ""
    """A run id: only what is below it."""
    limit: int = 20


class Listing(msgspec.Struct, frozen=True):
    """What was found."""

    views: Sequence[OperationView]
    """Without the list of their steps; live ones and then the newest first."""
    more: int
    """How many more match, at least."""
    position: str
    """Where to go on from."""


class Since(msgspec.Struct, frozen=True):
    """What happened to some runs after a position."""

    position: str
    """Where to go on from."""
    events: Sequence[FeedEvent] = ()
    """Durable ones, oldest first."""
    before: Mapping[str, OperationView] | None = None
    """The runs as they were at the position, by id, as far as they existed. `None`: the position is unknown or too old."""
    left_out: int = 0
    """How many older events there were beside these."""


class Taken(msgspec.Struct, frozen=True):
    """What a `Following` heard since it was last asked."""

    position: str
    events: Sequence[FeedEvent] = ()
    views: Sequence[OperationView] = ()
    """The runs as they stand; without those that were forgotten or that the viewer may not see any more."""
    left_out: int = 0
    """How many events were too many to keep, older than these."""


class Heard:
    """Events that wait to be taken: of very many the oldest go, and are counted."""

    def __init__(self) -> None:
        self._events: deque[FeedEvent] = deque(maxlen=MAX_HEARD)
        self._left_out = 0

    def add(self, event: FeedEvent) -> None:
        """Keep one."""
        self._left_out += len(self._events) == self._events.maxlen
        self._events.append(event)

    def take(self) -> tuple[Sequence[FeedEvent], int]:
        """All of them, oldest first, and how many went; begins anew."""
        taken = tuple(self._events), self._left_out
        self._events.clear()
        self._left_out = 0
        return taken


class Following(Protocol):
    """Hears what happens to some runs, from when it was made until it is closed."""

    async def wait(self, timeout_s: float) -> bool:
        """Whether a durable event came that was not taken yet; waits for one at most so long."""

    async def take(self) -> Taken:
        """All that came, with the position that says so. Events may come twice: revisions tell.

        Raises:
            Refusal: the viewer may not look any more (its token expired or was revoked), or is gone.
        """

    def close(self) -> None:
        """Hear no more; idempotent."""


class Source(Protocol):
    """See the module. Whatever a viewer may not see is as if it were not there, in the words of errors too."""

    async def find(self, viewer: Viewer, text: str) -> OperationView:
        """The operation that a handle, an id, a label or a unique prefix of one of them means, with its steps.

        Raises:
            UnknownOperation: none.
            AmbiguousOperation: several; `candidates` has what names each.
        """

    async def search(self, viewer: Viewer, wanted: Wanted) -> Listing:
        """What runs, and what ended a short while ago."""

    async def since(self, viewer: Viewer, position: str, run_ids: Collection[str]) -> Since:
        """What happened to these runs after a position; an empty position is the newest one, of which nothing is known."""

    def follow(self, viewer: Viewer, run_ids: Collection[str] | None) -> Following:
        """Hear what happens to these runs from now on; `None`: to all that the viewer may see."""

    async def command(self, viewer: Viewer, command: Command) -> CommandStatus:
        """Tell an operation something. `accepted` never means applied: that is an event with the command's id.

        Raises:
            FeedError: nobody could be told.
        """


def is_named(view: OperationView, query: str) -> bool:
    """Whether a query is part of an operation's handle, title, name or service, in any case."""
    part = query.casefold()
    return any(part in text.casefold() for text in (view.handle, view.title, view.name, view.service))
