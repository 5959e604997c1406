"""The server's side of one feed connection: frames and times in, frames out.

It does no I/O and never raises for what a client sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec

from otelprogress.exceptions import InvalidValue, RemoteProtocolError
from otelprogress.protocol import filters
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.command_judging import Asker
from otelprogress.protocol.digest_subscription import DigestSubscription
from otelprogress.protocol.encoding import CLIENT_MESSAGES, UnknownMessage, decode, encode
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import (
    PROTOCOL_VERSION,
    Ack,
    Auth,
    Command,
    CommandStatus,
    Drain,
    Error,
    ErrorCode,
    Filter,
    Hello,
    Limits,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from otelprogress.protocol.server_subscription import ServerSubscription

SCOPE_READ: Final = "progress:read"
_MAX_PENDING_ANSWERS: Final = 1024
"""A client that asks and does not read is cut off: answers are the only thing that could pile up."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token allows."""

    tenant: str = ""
    scopes: frozenset[str] = frozenset({SCOPE_READ})
    predicate: Filter | None = None
    """What may be seen at all, applied before any filter; `None`: everything of the tenant."""
    expires_at_s: float | None = None
    """By the clock that `now_s` comes from; `None`: never."""
    actor: str = ""
    """Who that is, for the audit of commands."""

    @property
    def everything(self) -> filters.Matcher:
        """What it may see, all of it, to look operations up by."""
        return filters.Matcher(Filter(roots=False), tenant=self.tenant, predicate=self.predicate)


class Commands(Protocol):
    """Who takes the commands of a feed; see `command_desk.CommandDesk.submit`."""

    def submit(
        self, command: Command, asker: Asker, matcher: filters.Matcher, now_unix_ns: int
    ) -> CommandStatus:
        """Judge a command and, where it is accepted, have it passed on. No I/O, under the hub's lock."""


Authorize = Callable[[str | None], Grant | None]
"""Judges a token (`None`: there was none); `None`: refused. Compares in constant time, and must not raise."""


_Subscription = ServerSubscription | DigestSubscription


class ServerSession:
    """One connection.

    Its driver calls `receive` for each text frame, then sends what `outgoing` gives; `outgoing` again whenever
    the hub published something, the socket can take more, or `next_deadline_s` is reached. Once `closed` is set,
    it sends what `outgoing` still gives and closes with that code.

    Args:
        hub: what is served.
        authorize: judges tokens.
        limits: `None`: the defaults.
        server_info: goes into `welcome`; strings about the server, its version.
        now_s: a monotonic clock; all `now_s` come from the same one.
        token: of the HTTP request; `None`: the `hello` must carry one if one is needed.
        commands: takes commands; `None`: every one is answered `unsupported`.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        authorize: Authorize,
        limits: Limits | None = None,
        server_info: Mapping[str, str] | None = None,
        now_s: float,
        token: str | None = None,
        commands: Commands | None = None,
    ) -> None:
        self._hub = hub
        self._commands = commands
        self._authorize = authorize
        self._limits = limits if limits is not None else hub.limits
        self._server_info = dict(server_info or {})
        self._token = token
        self._grant: Grant | None = None
        self._hello_by_s = now_s + self._limits.hello_timeout_s
        self._subscriptions: dict[str, _Subscription] = {}
        self._turn = 0
        self._answers: list[bytes] = []
        self._draining: tuple[float, float] | None = None
        self._allowance = float(self._limits.frames_burst)
        self._allowance_at_s = now_s
        self.connection_id = secrets.token_hex(8)
        self.closed: tuple[int, str] | None = None
        """Code and reason with which the connection has to be closed; `None`: it goes on."""

    @property
    def grant(self) -> Grant | None:
        """What the client's token allows; `None`: no `hello` was accepted yet."""
        return self._grant

    @property
    def subscription_count(self) -> int:
        """How many subscriptions stand."""
        return len(self._subscriptions)

    @property
    def hasty(self) -> bool:
        """Whether any subscription is: only then can `next_deadline_s` be less than a second ahead all of a sudden."""
        return any(subscription.hasty for subscription in self._subscriptions.values())

    def tick_interests(self) -> list[tuple[filters.Matcher, float]]:
        """What its subscriptions want ticks of, and how often a second."""
        found = (subscription.tick_interest for subscription in self._subscriptions.values())
        return [interest for interest in found if interest is not None]

    # --- in ------------------------------------------------------------------------------------------
    def receive(self, frame: str | bytes, now_s: float, now_unix_ns: int) -> None:
        """Take one frame. Whatever it holds, the answer is a message or `closed`, never an exception."""
        self.check_deadlines(now_s)
        if self.closed is not None:
            return
        if not self._allowed(now_s):
            self._close(CloseCode.ABUSE, "too many frames")
            return
        limits = self._limits
        max_bytes = limits.hello_frame_bytes if self._grant is None else limits.client_frame_bytes
        try:
            message = decode(CLIENT_MESSAGES, frame, max_bytes=max_bytes, max_depth=limits.depth)
        except UnknownMessage as error:
            self._answer_unknown(error)
            return
        except RemoteProtocolError as error:
            self._close(CloseCode(error.code), str(error))
            return
        if isinstance(message, Hello):
            self._hello(message, now_s, now_unix_ns)
        elif self._grant is None:
            self._close(CloseCode.BAD_MESSAGE, "the first message is hello")
        elif isinstance(message, Subscribe):
            self._subscribe(message, now_s)
        elif isinstance(message, Ack):
            subscription = self._subscriptions.get(message.id)
            # An ack may cross our answer to an unsubscribe: not worth an error.
            if subscription is None:
                return
            acknowledged = subscription.acknowledge(message.frames)
            if acknowledged is None:
                self._error(message.id, "invalid", "ack names a frame that was not sent")
            elif acknowledged:
                # Asked for by what we sent, hence bounded by it.
                self._allowance += 1
        elif isinstance(message, Unsubscribe):
            if self._subscriptions.pop(message.id, None) is None:
                self._error(message.id, "unknown_subscription", "no such subscription on this connection")
        elif isinstance(message, Auth):
            self._renew(message.token)
        else:
            self._command(message, now_unix_ns)

    def _hello(self, message: Hello, now_s: float, now_unix_ns: int) -> None:
        if self._grant is not None:
            self._close(CloseCode.BAD_MESSAGE, "a second hello")
            return
        if message.version != PROTOCOL_VERSION:
            self._close(
                CloseCode.BAD_MESSAGE, f"version {message.version} is not spoken here, {PROTOCOL_VERSION} is"
            )
            return
        grant = self._authorize(message.token if message.token is not None else self._token)
        self._token = None
        if grant is None:
            self._close(CloseCode.BAD_TOKEN, "the token is missing or wrong")
            return
        if SCOPE_READ not in grant.scopes:
            self._close(CloseCode.FORBIDDEN, f"the token lacks the scope {SCOPE_READ}")
            return
        self._grant = grant
        self.check_deadlines(now_s)
        if self.closed is not None:
            return
        self._answer(
            Welcome(
                connection=self.connection_id,
                server=self._server_info,
                epoch=self._hub.epoch,
                ping_interval_s=self._limits.ping_interval_s,
                limits=self._limits,
                now=now_unix_ns,
                token_expires_in_s=None if grant.expires_at_s is None else grant.expires_at_s - now_s,
            )
        )

    def _subscribe(self, message: Subscribe, now_s: float) -> None:
        assert self._grant is not None
        if message.id in self._subscriptions:
            self._error(message.id, "duplicate", "this connection has a subscription of that id")
        elif len(self._subscriptions) >= self._limits.subscriptions:
            self._error(
                message.id, "too_many_subscriptions", f"at most {self._limits.subscriptions} a connection"
            )
        else:
            try:
                filters.check(message.filter, max_clauses=self._limits.filter_clauses)
                matcher = self._hub.shared(
                    filters.Matcher(
                        message.filter, tenant=self._grant.tenant, predicate=self._grant.predicate
                    )
                )
            except InvalidValue as error:
                self._error(message.id, "invalid", str(error))
                return
            kind = DigestSubscription if message.render == "digest" else ServerSubscription
            self._subscriptions[message.id] = kind(self._hub, message, matcher, self._limits, now_s)

    def _renew(self, token: str) -> None:
        assert self._grant is not None
        grant = self._authorize(token)
        if grant is None:
            self._error("auth", "unauthorized", "the new token is wrong; the old one counts until it expires")
        elif SCOPE_READ not in grant.scopes:
            self._error("auth", "forbidden", f"the new token lacks the scope {SCOPE_READ}")
        elif (grant.tenant, grant.predicate) != (self._grant.tenant, self._grant.predicate):
            # What stands was authorized by the old rights: with other rights it has to be asked for again.
            self._error("auth", "forbidden", "the new token has other rights: open a new connection with it")
        else:
            self._grant = grant

    def _command(self, message: Command, now_unix_ns: int) -> None:
        assert self._grant is not None
        if self._commands is None:
            text = "this feed takes no commands"
            status = CommandStatus(command_id=message.command_id, status="unsupported", message=text)
        else:
            grant = self._grant
            asker = Asker(actor=grant.actor, scopes=grant.scopes, tenant=grant.tenant)
            status = self._commands.submit(message, asker, grant.everything, now_unix_ns)
        self._answer(status)

    def _answer_unknown(self, error: UnknownMessage) -> None:
        if self._grant is None:
            self._close(CloseCode.BAD_MESSAGE, "the first message is hello")
        elif not error.known:
            self._error(error.ref or error.kind, "unsupported", f"no message of type {error.kind!r}")
        elif error.kind == "command":
            self._answer(CommandStatus(command_id=error.ref, status="invalid", message=str(error)))
        elif error.kind == "subscribe" and error.ref:
            self._error(error.ref, "invalid", str(error))
        else:
            self._close(CloseCode.BAD_MESSAGE, str(error))

    def _allowed(self, now_s: float) -> bool:
        elapsed_s = max(0.0, now_s - self._allowance_at_s)
        self._allowance_at_s = now_s
        refilled = self._allowance + elapsed_s * self._limits.frames_per_s
        self._allowance = min(float(self._limits.frames_burst), refilled) - 1
        return self._allowance >= 0

    # --- out -----------------------------------------------------------------------------------------
    def outgoing(self, now_s: float, now_unix_ns: int, *, budget_bytes: int = 256 * 1024) -> list[bytes]:
        """Text frames to send now, as UTF-8; empty: nothing.

        Args:
            now_s: the monotonic clock.
            now_unix_ns: the host's clock.
            budget_bytes: about how much to give at once; the frame that reaches it is the last. Asking again
                gives the rest.
        """
        self.check_deadlines(now_s)
        out, self._answers = self._answers, []
        if self.closed is not None:
            return out
        spent = sum(map(len, out))
        subscriptions: Iterable[_Subscription] = self._subscriptions.values()
        if len(self._subscriptions) > 1:
            # Everyone's turn to be first comes: a busy subscription cannot keep its neighbours waiting.
            self._turn = (self._turn + 1) % len(self._subscriptions)
            ordered = list(subscriptions)
            subscriptions = ordered[self._turn :] + ordered[: self._turn]
        for subscription in subscriptions:
            if spent >= budget_bytes:
                break
            frames = subscription.frames(now_s, now_unix_ns, budget_bytes - spent)
            if frames:
                spent += sum(map(len, frames))
                out += frames
        if self._draining is not None and spent < budget_bytes:
            out.append(encode(Drain(reconnect_after_s=self._draining)))
            self._close(CloseCode.RESTART, "the feed ends or restarts")
        return out

    def next_deadline_s(self) -> float | None:
        """When to call `outgoing` at the latest, if nothing else happens; `None`: no need."""
        if self.closed is not None:
            return None
        if self._grant is None:
            return self._hello_by_s
        earliest_s = self._grant.expires_at_s
        for subscription in self._subscriptions.values():
            deadline_s = subscription.next_deadline_s()
            if deadline_s is not None and (earliest_s is None or deadline_s < earliest_s):
                earliest_s = deadline_s
        return earliest_s

    def drain(self, now_s: float, reconnect_after_s: tuple[float, float] = (0.5, 5.0)) -> None:
        """The feed ends: send what is owed as far as windows allow, then `drain`, then close with 1012.

        Args:
            now_s: the monotonic clock.
            reconnect_after_s: the span from which clients choose when to come back.
        """
        self.check_deadlines(now_s)
        self._draining = reconnect_after_s
        for subscription in self._subscriptions.values():
            if isinstance(subscription, DigestSubscription):
                subscription.hurry()

    def check_deadlines(self, now_s: float) -> None:
        """Set `closed` where a time is over (no hello, token expired); for while nothing can be sent or received."""
        if self.closed is not None:
            return
        if self._grant is None:
            if now_s >= self._hello_by_s:
                self._close(CloseCode.HELLO_TIMEOUT, f"no hello within {self._limits.hello_timeout_s:g} s")
        elif self._grant.expires_at_s is not None and now_s >= self._grant.expires_at_s:
            self._close(CloseCode.TOKEN_EXPIRED, "the token expired")

    def _answer(self, message: msgspec.Struct) -> None:
        self._answers.append(encode(message))
        if len(self._answers) > _MAX_PENDING_ANSWERS:
            self._answers.clear()
            self._close(CloseCode.ABUSE, "asks without reading the answers")

    def _error(self, ref: str, code: ErrorCode, message: str) -> None:
        self._answer(Error(ref=ref, code=code, message=message))

    def _close(self, code: CloseCode, reason: str) -> None:
        if self.closed is None:
            # A close frame has room for 123 bytes.
            self.closed = (int(code), reason.encode()[:120].decode(errors="ignore"))
            self._subscriptions.clear()
