"""`otelprogress cancel`, `pause`, `resume`, `signal`: tell an operation something, and hear what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from otelprogress.cli import connection, exit_codes, options
from otelprogress.cli.exit_codes import ExitCode
from otelprogress.cli.output import json_line, remark, say
from otelprogress.cli.show import recorded
from otelprogress.exceptions import FeedUnavailable, UnknownOperation
from otelprogress.model.text import clean

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient, Commanded
    from otelprogress.feed.command_client import CommandOptions
    from otelprogress.model.events import OperationView
    from otelprogress.protocol.messages import CommandStatus

DEFAULT_TIMEOUT_S: Final = 30.0
_MAX_CHARS: Final = 300


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be told, and how long that is waited for.

    Attributes:
        operation: handle, id, label or the start of one.
        action: `cancel`, `pause`, `resume`, `input`, or a signal of its own.
        called: the action as people call it.
        wait: for its effect, and not for the host's answer alone.
        timeout_s: for all of it.
    """

    operation: str
    action: str
    called: str = ""
    wait: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S
    reason: str = ""
    arguments: Mapping[str, str | bool | int | float | None] = field(default_factory=dict)
    expect_revision: int | None = None
    deadline_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        line: in one line.
        code: what the shell is told.
        record: the same as the object that `--json` prints.
    """

    line: str
    code: ExitCode
    record: dict[str, Any]


def _command(action: str, text: str) -> Callable[..., None]:
    """The command for one of the actions that every gate knows; `text` is its help."""

    def command(
        *,
        operation: options.OperationId,
        reason: options.Reason = "",
        timeout_s: options.AppliedTimeout = DEFAULT_TIMEOUT_S,
        no_wait: options.NoWait = False,
        deadline_s: options.Deadline = None,
        expect_revision: options.ExpectRevision = None,
        as_json: options.AsJson = False,
        url: options.Url = None,
        token_file: options.TokenFile = None,
    ) -> None:
        asked = Order(
            operation=operation,
            action=action,
            reason=reason,
            wait=not no_wait,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            expect_revision=expect_revision,
        )
        tell(asked, as_json=as_json, url=url, token_file=token_file)

    command.__doc__ = text
    return command


cancel: Final = _command(
    "cancel",
    """Ask an operation to stop, at its next item or checkpoint.

    It reaches everything below it, in other processes too. The operation must have declared it: controls=["cancel"].

    Exits with 0 once it is applied, 1 if it is refused, 124 if neither happens in time: it may still be applied then.
    """,
)
pause: Final = _command(
    "pause",
    """Let an operation stand still, at its next item or checkpoint, until it is resumed or cancelled.

    It reaches everything below it, in other processes too. The operation must have declared it: controls=["pause"].
    Exits as cancel does.
    """,
)
resume: Final = _command("resume", "Let a paused operation go on. Exits as cancel does.")


def signal(
    *,
    operation: options.OperationId,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="One that it declared; show says what it accepts.")
    ],
    reason: options.Reason = "",
    timeout_s: options.AppliedTimeout = DEFAULT_TIMEOUT_S,
    no_wait: options.NoWait = False,
    deadline_s: options.Deadline = None,
    expect_revision: options.ExpectRevision = None,
    as_json: options.AsJson = False,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """Send an operation a signal of its own.

    It is one that it declared, as controls=["snapshot"]; its handler runs at its next item or checkpoint.

    Exits with 0 once the handler has run, else as cancel does.
    """
    asked = Order(
        operation=operation,
        action=name,
        reason=reason,
        wait=not no_wait,
        timeout_s=timeout_s,
        deadline_s=deadline_s,
        expect_revision=expect_revision,
    )
    tell(asked, as_json=as_json, url=url, token_file=token_file)


def tell(asked: Order, *, as_json: bool, url: options.Url, token_file: options.TokenFile) -> None:
    """Tell it, say what became of it, and exit.

    Raises:
        typer.Exit: with the code that says it.
        ProgressError: nobody could be told.
    """
    client = connection.open_client(url, token_file)
    outcome = asyncio.run(told(client, asked, history=url is None))
    say(json_line(outcome.record) if as_json else outcome.line)
    if outcome.code is ExitCode.TIMEOUT:
        remark(f"otelprogress: {asked.timeout_s:g} s are over; it may still be applied")
        view: OperationView = outcome.record["operation"]
        if silent := _silent(client, view.process_id or 0):
            remark(f"otelprogress: {silent} does not answer; a stopped one obeys when it goes on")
    raise typer.Exit(outcome.code)


async def told(client: AsyncClient, asked: Order, *, history: bool) -> Outcome:
    """Tell it, and hear what became of it.

    Args:
        client: of the feeds.
        asked: what.
        history: whether the history may say that the operation has ended, where no feed knows it.

    Raises:
        UnknownOperation, AmbiguousOperation: none or several are meant.
        FeedUnavailable: nobody could be told.
        FeedDenied: the feed does not let us in.
    """
    said: CommandOptions = {
        "arguments": asked.arguments,
        "reason": asked.reason,
        "expect_revision": asked.expect_revision,
        "deadline_s": asked.deadline_s,
    }
    async with client:
        try:
            if asked.wait:
                return _outcome(
                    asked,
                    await client.command_and_wait(
                        asked.operation, asked.action, timeout_s=asked.timeout_s, **said
                    ),
                )
            status = await client.command(asked.operation, asked.action, timeout_s=asked.timeout_s, **said)
            is_no_answer = asked.action == "input" and status.status == "invalid"
            # Whether it was a wrong one, or nothing was asked.
            view = await client.get(asked.operation) if is_no_answer else None
            return _answered(asked, asked.operation, status, view)
        except (UnknownOperation, FeedUnavailable) as error:
            if not history:
                raise
            return _in_history(asked, error, _silent(client))


def _outcome(asked: Order, became: Commanded) -> Outcome:
    handle, status = became.operation.handle, became.status
    if became.event is None:
        answered = _answered(asked, handle, status, became.operation)
        if answered.code is not ExitCode.OK:
            return answered
        return _line(asked, handle, "accepted, not applied yet", ExitCode.TIMEOUT, answered.record)
    record = _record(asked, status, became.operation) | {"applied": became.applied, "refusal": became.refusal}
    if became.applied:
        return _line(asked, handle, "applied", ExitCode.OK, record)
    return _line(asked, handle, f"refused: {became.refusal or 'no reason given'}", ExitCode.FAILED, record)


def _answered(asked: Order, handle: str, status: CommandStatus, view: OperationView | None = None) -> Outcome:
    code = exit_codes.of_answer(status.status)
    if code is ExitCode.USAGE and asked.action == "input" and view is not None and view.input_id is None:
        code = ExitCode.FAILED  # nothing is wrong with the answer: nothing was asked
    record = _record(asked, status, view)
    if code is ExitCode.OK:
        return _line(asked, handle, "accepted", code, record)
    why = f"{status.status}: {status.message}" if status.message else status.status
    return _line(asked, handle, f"refused: {why}", code, record | {"refusal": status.status})


def _silent(client: AsyncClient, pid: int | None = None) -> str:
    """The processes whose feeds did not answer though they are there, or the one with that pid; empty: there is none."""
    silent = (target for target in client.unanswered if pid in (None, target.pid))
    return ", ".join(target.name for target in silent if not target.gone)


def _in_history(asked: Order, unknown: UnknownOperation | FeedUnavailable, silent: str) -> Outcome:
    """Of an operation that no feed knows the history may know that it has ended."""
    view = recorded(asked.operation, unknown)
    if view.live:
        if isinstance(unknown, FeedUnavailable):
            raise unknown
        why = f"{silent} does not answer" if silent else "its process has no feed"
        raise FeedUnavailable(f"{view.handle} runs, but {why}: it cannot be told anything")
    record = {
        "action": asked.action,
        "status": "ended",
        "applied": False,
        "refusal": "ended",
        "operation": view,
    }
    return _line(asked, view.handle, f"refused: ended: {view.state}", ExitCode.FAILED, record)


def _record(asked: Order, status: CommandStatus, view: OperationView | None) -> dict[str, Any]:
    return {
        "command_id": status.command_id,
        "action": asked.action,
        "status": status.status,
        "message": status.message,
        "applied": False,
        "refusal": None,
        "operation": view,
    }


def _line(asked: Order, handle: str, became: str, code: ExitCode, record: dict[str, Any]) -> Outcome:
    return Outcome(clean(f"{handle}: {asked.called or asked.action} {became}", _MAX_CHARS), code, record)
