"""Every message of feed protocol v1 and of the worker link, as typed structs.

`docs/protocol.md` is the normative text. A frame is one JSON object whose `type` names the struct. Unknown
fields are ignored, so that fields can be added; `Filter` alone refuses them, because a clause that is not
understood would otherwise widen what is sent.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from otelprogress.model.digest_budget import DEFAULT_MAX_TOKENS
from otelprogress.model.events import Event, FeedEvent, OperationView

PROTOCOL_VERSION: Final = 1
SUBPROTOCOL: Final = "otelprogress.v1.json"

SubscriptionId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Token = Annotated[str, msgspec.Meta(max_length=8192)]
_Cursor = Annotated[str, msgspec.Meta(max_length=512)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
MaxTokens = Annotated[int, msgspec.Meta(ge=50, le=10_000)]

Level = Literal["ticks", "milestones", "terminal"]
Render = Literal["events", "digest"]
GapReason = Literal["expired", "epoch", "evicted", "invalid"]
"""`expired`: the cursor is past retention; `epoch`: another log; `evicted`: the subscription fell out of
retention while connected; `invalid`: the cursor is not ours, or belongs to another filter, tenant or grant."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection may do; sent in `welcome`."""

    hello_frame_bytes: int = 4 * 1024
    """Of a frame before authentication."""
    client_frame_bytes: int = 64 * 1024
    server_frame_bytes: int = 256 * 1024
    depth: int = 16
    """Of nested JSON."""
    subscriptions: int = 128
    """A connection."""
    filter_clauses: int = 16
    operations: int = 1000
    """In one snapshot."""
    max_rate_hz: float = 10.0
    """Of ticks."""
    frames_per_s: float = 200.0
    """From a client, on average."""
    frames_burst: int = 1000
    hello_timeout_s: float = 5.0
    ping_interval_s: float = 25.0
    pong_timeout_s: float = 8.0
    bookmark_idle_s: float = 10.0
    bookmark_filtered: int = 1000
    """Events passed over between two positions told to the client."""


class Filter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which operations a subscription is about. All clauses must hold; of a list, any member."""

    run: tuple[_Text, ...] = ()
    """Run ids or handles."""
    label: tuple[_Text, ...] = ()
    trace_id: tuple[_Text, ...] = ()
    service: tuple[_Text, ...] = ()
    name: _Text | None = None
    """A glob over the name: `*` any characters, `?` one."""
    attributes: dict[_Text, str | bool | int | float] = {}
    """Each must be equal."""
    state: tuple[_Text, ...] = ()
    subtree: _Text | None = None
    """A run id: it and everything below it."""
    roots: bool | None = None
    """Only operations without a parent. `None`: yes, unless `run`, `label`, `trace_id`, `name` or `subtree` is given."""
    ended_within_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 600.0
    """In snapshots: live, or ended less than so long ago."""
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Operations in a snapshot, live ones and then the newest first."""
    after: _Text | None = None
    """The snapshot's page that follows this run id."""

    @property
    def only_roots(self) -> bool:
        """What `roots` comes to."""
        if self.roots is not None:
            return self.roots
        return not (
            self.run or self.label or self.trace_id or self.name is not None or self.subtree is not None
        )

    @property
    def clauses(self) -> int:
        """How many values are compared."""
        lists = len(self.run) + len(self.label) + len(self.trace_id) + len(self.service) + len(self.state)
        return lists + len(self.attributes) + (self.name is not None) + (self.subtree is not None)


# --- client to server ----------------------------------------------------------------------------------
class Hello(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="hello"):
    """The first frame, within 5 s."""

    version: int
    client: _Text = ""
    capabilities: tuple[_Text, ...] = ()
    token: _Token | None = None
    """`None`: the one of the HTTP request."""


class Subscribe(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="subscribe"
):
    """Follow what matches a filter, from a cursor or from now."""

    id: SubscriptionId
    """Chosen by the client, unique on its connection."""
    filter: Filter = Filter()
    level: Level = "milestones"
    max_rate_hz: Annotated[float, msgspec.Meta(ge=0.001)] | None = None
    """Of ticks, or of digests of what can wait; `None`: the server's."""
    cursor: _Cursor | None = None
    window_bytes: _Count = 0
    """Unacknowledged bytes after which the subscription stalls; 0: no limit, no `ack` needed."""
    render: Render = "events"
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS
    """Of one digest, as docs/digest.md counts them."""


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="unsubscribe"):
    """End one subscription."""

    id: SubscriptionId


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ack"):
    """Everything up to the n-th data frame of this subscription on this connection was handled."""

    id: SubscriptionId
    frames: _Count
    """Counted from 1: `gap`, `snapshot`, `snapshot_end`, `events`, `digest`, `bookmark` and `left` of this subscription."""


class Auth(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="auth"):
    """Renew the token on the open connection."""

    token: _Token


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="command"):
    """Ask an operation to do something it declared."""

    command_id: _Text
    operation: _Text
    action: _Text
    arguments: dict[_Text, str | bool | int | float | None] = {}
    expect_revision: int | None = None
    """The last revision the caller has seen; refused as `stale` where something durable came after it. `None`: any."""
    deadline_s: float | None = None
    """How long, from its arrival, it may take to be applied; after it it is refused as `expired`. `None`: 300 s."""


# --- server to client ----------------------------------------------------------------------------------
class Welcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="welcome"):
    """The answer to `hello`."""

    connection: str
    server: dict[str, str]
    epoch: str
    ping_interval_s: float
    limits: Limits
    now: int
    """The host's clock, ns since the Unix epoch."""
    token_expires_in_s: float | None = None


class Subscribed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribed"):
    """A subscription stands."""

    id: str
    mode: Literal["resumed", "snapshot"]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="snapshot"):
    """A part of the state of what matches."""

    id: str
    operations: tuple[OperationView, ...]


class SnapshotEnd(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="type",
    tag="snapshot_end",
):
    """The state is complete; events follow."""

    id: str
    cursor: str
    complete: bool = False
    """Every operation that matches was in it: what a client knows beyond them has left."""
    more: int = 0
    """How many matched beyond `limit`; ask for them with `after`."""


class Events(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="events"):
    """What happened, oldest first."""

    id: str
    cursor: str
    events: tuple[FeedEvent, ...]


class DigestText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="digest"):
    """What there is to tell, as text for language models; instead of `snapshot`, `snapshot_end`, `events` and `left`."""

    id: str
    cursor: str
    text: str
    """By the grammar of docs/digest.md."""


class Bookmark(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="bookmark"):
    """A newer position; nothing that matches lies between."""

    id: str
    cursor: str


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="gap"):
    """Events may be missing: a snapshot follows."""

    id: str
    reason: GapReason
    from_: str | None = msgspec.field(default=None, name="from")
    """The cursor from which the subscription could not go on."""


class Left(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="left"):
    """An operation no longer belongs to the subscription."""

    id: str
    operation: str
    """Its run id."""
    reason: Literal["filter", "evicted"]
    cursor: str


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="drain"):
    """The feed ends; close 1012 follows."""

    reconnect_after_s: tuple[float, float]


ErrorCode = Literal[
    "invalid",
    "unsupported",
    "unauthorized",
    "forbidden",
    "duplicate",
    "too_many_subscriptions",
    "unknown_subscription",
]


class Error(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="error"):
    """One request failed; the connection goes on."""

    ref: str
    """The id of the subscription or command, else the type of the message."""
    code: ErrorCode
    message: str = ""
    retryable: bool = False
    retry_after_s: float | None = None


CommandAnswer = Literal[
    "accepted",
    "not_found",
    "ended",
    "forbidden",
    "invalid",
    "unsupported",
    "stale",
    "duplicate",
    "ambiguous",
    "no_worker",
    "overloaded",
]


class CommandStatus(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="type",
    tag="command_status",
):
    """What became of a command. Accepted never means applied."""

    command_id: str
    status: CommandAnswer
    message: str = ""


# --- the worker link -----------------------------------------------------------------------------------
class Register(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="register"
):
    """The first frame of a worker, within 5 s."""

    version: int
    writer: _Text
    resource: dict[_Text, str | bool | int | float] = {}
    token: _Token | None = None


class LinkWelcome(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="welcome"):
    """The answer to `register`."""

    connection: str
    n: int
    """The last event of this writer that arrived before; 0: none."""


class LinkEvents(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="events"
):
    """Events of a worker, in order."""

    n: int
    """The number of the first of `events`; they are numbered from 1, per writer."""
    events: tuple[Event, ...] = ()
    """Durable: kept by the worker until acknowledged."""
    ticks: tuple[Event, ...] = ()
    """Conflated: sent once, not kept."""
    dropped: int = 0
    """Durable events the worker had to drop so far, because its buffer was full."""


class LinkAck(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ack"):
    """Events up to this number have been taken."""

    n: int


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="alive"):
    """The writer lives; covers all its runs."""


class Bye(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="bye"):
    """The worker leaves on purpose: the end of this connection is no death."""

    reason: str = ""


class Interest(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="interest"):
    """Somebody watches: how often ticks of a run are worth sending."""

    run: str
    """A run id, or `*` for all of this writer."""
    rate_hz: float


class LinkCommand(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="command"
):
    """A command that the host accepted, for the worker to apply. It may come twice; it is applied once."""

    command_id: _Text
    run: _Text
    """The run id."""
    action: _Text
    arguments: dict[_Text, str | bool | int | float | None] = {}
    actor: str = ""
    """Who commands."""
    valid_s: float | None = None
    """How long, from its arrival, it may still be applied; `None`: for ever."""
    below: bool = False
    """`run` lives in another process: meant are the operations of this one below it."""


ClientMessage = Hello | Subscribe | Unsubscribe | Ack | Auth | Command
ServerMessage = (
    Welcome
    | Subscribed
    | Snapshot
    | SnapshotEnd
    | Events
    | DigestText
    | Bookmark
    | Gap
    | Left
    | Drain
    | Error
    | CommandStatus
)
WorkerMessage = Register | LinkEvents | Alive | Bye | CommandStatus
HostMessage = LinkWelcome | LinkAck | Interest | LinkCommand | Drain | Error
