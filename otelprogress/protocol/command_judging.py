"""What a host says of a command before it takes it: whether it can be meant, and whether the operation accepts it.

Pure; whether the process can be reached and how many commands wait already is asked by the `command_desk`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress.model.fields import MAX_ID_CHARS
from otelprogress.model.input_schema import checked_text, content_of
from otelprogress.model.text import clean
from otelprogress.protocol.messages import Command, CommandAnswer, CommandStatus

if TYPE_CHECKING:
    from otelprogress.model.events import OperationView

SCOPE_CONTROL: Final = "progress:control"
SCOPE_RESPOND: Final = "progress:respond"
CANCEL: Final = "cancel"
PAUSE: Final = "pause"
RESUME: Final = "resume"
INPUT: Final = "input"

DEFAULT_DEADLINE_S: Final = 300.0
MAX_DEADLINE_S: Final = 86_400.0
MAX_ARGUMENT_CHARS: Final = 8192


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who commands."""

    actor: str
    scopes: frozenset[str]
    tenant: str = ""


def answer(command: Command, status: CommandAnswer, message: str = "") -> CommandStatus:
    """What the host says of a command."""
    return CommandStatus(command_id=command.command_id, status=status, message=message)


def check(command: Command) -> None:
    """Whether a command can be meant at all.

    Raises:
        InvalidValue: it cannot; says why.
    """
    if not command.command_id:
        raise InvalidValue("a command needs an id of its own: `command_id`")
    if clean(command.command_id, MAX_ID_CHARS) != command.command_id:
        # Its effect is an event, which would name another one.
        raise InvalidValue(f"a `command_id` is at most {MAX_ID_CHARS} printable characters")
    if not command.action:
        raise InvalidValue("a command needs an `action`")
    deadline_s = command.deadline_s
    if deadline_s is not None and not 0.0 < deadline_s <= MAX_DEADLINE_S:
        raise InvalidValue(f"`deadline_s` lies between 0 and {MAX_DEADLINE_S:g} seconds")
    revision = command.expect_revision
    if revision is not None and not 0 <= revision < 1 << 63:
        raise InvalidValue("`expect_revision` is no revision")
    size = 0
    for name, value in command.arguments.items():
        size += len(name) + (len(value) if isinstance(value, str) else 8)
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise InvalidValue(f"the argument {name!r} does not fit in 64 bits")
    if size > MAX_ARGUMENT_CHARS:
        raise InvalidValue(f"`arguments` hold at most {MAX_ARGUMENT_CHARS} characters, not {size}")
    reason = command.arguments.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise InvalidValue("`reason` is a text")


def judged(command: Command, view: OperationView, *, durable_revision: int) -> CommandStatus | None:
    """Why an operation does not accept a command; `None`: it does.

    Args:
        command: that `check` lets pass.
        view: of the operation.
        durable_revision: of the operation's last durable event.
    """
    action = command.action
    if not view.live:
        return answer(command, "ended", f"{view.handle} has ended: {view.state.value}")
    if action == INPUT:
        wrong = _wrong_answer(command, view)
        if wrong is not None:
            return answer(command, "invalid", wrong)
    elif (PAUSE if action == RESUME else action) not in view.controls:
        wanted = PAUSE if action == RESUME else action
        accepts = (
            f"it accepts {', '.join(map(_shown, view.controls))}" if view.controls else "it accepts nothing"
        )
        return answer(
            command, "unsupported", f"add controls=[{wanted!r}] to {view.name!r} in its code: {accepts}"
        )
    expected = command.expect_revision
    # What a reader saw last may have been a tick, or a snapshot after one: it has missed nothing durable.
    if expected is not None and not durable_revision <= expected <= view.revision:
        text = f"its last durable revision is {durable_revision}, not {expected}: look again"
        return answer(command, "stale", text)
    return None


def _shown(control: str) -> str:
    """A control in a message: one that is no word could be anything, lines and escape sequences too."""
    return control if control.isidentifier() else repr(control)


def _wrong_answer(command: Command, view: OperationView) -> str | None:
    """Why an answer cannot be one; `None`: it can."""
    if view.input_id is None:
        return f"{view.handle} asks nothing at the moment"
    asked = command.arguments.get("input_id")
    if asked is not None and asked != view.input_id:
        return f"{view.handle} asks {view.input_id!r} now, not {asked!r}"
    content = content_of(command.arguments)
    if content is None:
        return "`arguments` need `content`, the answer"
    try:
        checked_text(view.input_schema, content)
    except InvalidValue as wrong:
        return str(wrong)
    return None
