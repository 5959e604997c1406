"""Sending a command to a feed, until it has answered: a lost connection is made again, under the same command id."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

import msgspec
from websockets.exceptions import ConnectionClosed

from otelprogress.exceptions import FeedUnavailable
from otelprogress.feed.watching import (
    CLIENT_LIMITS,
    TRANSPORT_ERRORS,
    denial,
    hang_up,
    open_connection,
)
from otelprogress.model.events import FeedEvent, OperationView, State
from otelprogress.protocol.backoff import Backoff
from otelprogress.protocol.client_session import ClientSession
from otelprogress.protocol.close_codes import retryable
from otelprogress.protocol.messages import Command, CommandStatus

if TYPE_CHECKING:
    from otelprogress.feed.discovery import FeedTarget

ANSWER_TIMEOUT_S = 5.0
"""For one attempt: connecting, and the answer."""


class CommandOptions(TypedDict, total=False):
    """What may be said with a command."""

    arguments: Mapping[str, str | bool | int | float | None]
    """For `input`: `input_id` and `content`, or `content.FIELD` for each field of a form."""
    reason: str
    """For the audit."""
    expect_revision: int | None
    """The revision that was seen last: refuse it as `stale` if anything durable has happened since. `None`: never."""
    deadline_s: float | None
    """How long it may take to be applied; after it it is refused as `expired`. `None`: the host's 300 s."""
    command_id: str
    """Makes several calls one command; left out: a new one."""


def command_for(run_id: str, action: str, options: CommandOptions) -> Command:
    """The command to send."""
    arguments = dict(options.get("arguments") or {})
    if reason := options.get("reason"):
        arguments["reason"] = reason
    return Command(
        command_id=options.get("command_id") or secrets.token_hex(8),
        operation=run_id,
        action=action,
        arguments=arguments,
        expect_revision=options.get("expect_revision"),
        deadline_s=options.get("deadline_s"),
    )


class Commanded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command."""

    status: CommandStatus
    """The host's answer; `accepted` never means applied, and a `duplicate` was accepted before."""
    operation: OperationView
    """As it was last seen."""
    event: FeedEvent | None = None
    """Its `control.applied` or `control.refused`; `None`: it was not accepted, or did not come in time.

    Where its host went away with the operation, a `control.refused` that no feed gives: see `went_without_a_word`.
    """

    @property
    def applied(self) -> bool:
        """Whether it took effect."""
        return self.event is not None and self.event.kind == "control.applied"

    @property
    def refusal(self) -> str | None:
        """Why it did not; `None`: it did, or that is not known yet."""
        if self.event is not None:
            return self.event.control_refusal if self.event.kind == "control.refused" else None
        return None if is_accepted(self.status) else self.status.message or self.status.status


def is_accepted(status: CommandStatus) -> bool:
    """Whether the host took it, now or when it came before."""
    return status.status in ("accepted", "duplicate")


def went_without_a_word(status: CommandStatus, view: OperationView) -> Commanded:
    """An accepted command whose operation has ended, and nobody is left to say what became of it.

    Args:
        status: the answer of its host.
        view: with its outcome.
    """
    said = FeedEvent(
        kind="control.refused",
        operation=view,
        revision=view.revision,
        time_unix_ns=view.ended_at_unix_ns or view.as_of_unix_ns,
        control_id=status.command_id,
        # The words of a host that lives on.
        control_refusal="worker_lost" if view.state is State.LOST else "ended",
    )
    return Commanded(status=status, operation=view, event=said)


async def send_command(
    target: FeedTarget,
    command: Command,
    *,
    timeout_s: float,
    backoff_s: tuple[float, float] = (0.1, 2.0),
    rng: random.Random | None = None,
) -> CommandStatus:
    """Send a command to a feed until it has answered.

    Args:
        target: the feed.
        command: its id makes it one, however often it is sent.
        timeout_s: for all attempts.
        backoff_s: least and greatest pause between two of them.
        rng: of the jitter; `None`: unseeded.

    Raises:
        FeedDenied: it does not let us in.
        FeedUnavailable: it has not answered, or its process is gone; whether it took the command is not known.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    backoff = Backoff(*backoff_s, rng=rng or random.Random())
    while True:
        left_s = until_s - loop.time()
        try:
            async with asyncio.timeout(min(max(0.0, left_s), ANSWER_TIMEOUT_S)):
                return await _attempt(target, command)
        except ConnectionClosed as closed:
            if closed.rcvd is not None and not retryable(closed.rcvd.code):
                raise denial(closed.rcvd.code, closed.rcvd.reason) from closed
            failure: Exception = closed
        except TRANSPORT_ERRORS as error:
            failure = error
        pause_s = backoff.next_delay_s(loop.time())
        if (is_gone := target.gone) or loop.time() + pause_s >= until_s:
            why = "it is gone" if is_gone else str(failure) or "timed out"
            raise FeedUnavailable(
                f"{target.name} did not answer a command: {why}; whether it was taken is not known"
            ) from failure
        await asyncio.sleep(pause_s)


async def _attempt(target: FeedTarget, command: Command) -> CommandStatus:
    connection = await open_connection(target)
    try:
        session = ClientSession(client="otelprogress", limits=CLIENT_LIMITS)
        while session.welcome is None:
            for frame in session.outgoing():
                await connection.send(frame, text=True)
            session.receive(await connection.recv(decode=False))
        session.command(command)
        for frame in session.outgoing():
            await connection.send(frame, text=True)
        while True:
            for item in session.receive(await connection.recv(decode=False)):
                if isinstance(item, CommandStatus) and item.command_id == command.command_id:
                    return item
    finally:
        await hang_up(connection)
