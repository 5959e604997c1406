"""What a host that restarts knows again of commands, from its log: what became of them, and what stands.

Of those that were accepted and have no word in the log it knows nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from otelprogress.model.events import Event, State
from otelprogress.protocol.command_judging import CANCEL, PAUSE
from otelprogress.protocol.command_standing import Standing
from otelprogress.protocol.command_waiting import Known, Remembered
from otelprogress.protocol.messages import LinkCommand

if TYPE_CHECKING:
    from otelprogress.protocol.hub import Hub

_STANDING: Final = frozenset({CANCEL, PAUSE})
_SAYS_CONTROL: Final = b'"kind":"control.'
"""In an entry of the log that says what became of a command."""


class _Said(msgspec.Struct):
    """What an entry of the log says of a command."""

    kind: str
    control_id: str | None = None
    control_action: str | None = None
    control_actor: str | None = None
    control_reason: str | None = None
    control_refusal: str | None = None


_said_in: Final = msgspec.json.Decoder(_Said).decode


def recall(hub: Hub, known: Remembered, standing: Standing) -> None:
    """What became of the commands of before a restart, as far as the log that was kept reaches, and what stands."""
    ring, tree = hub.ring, hub.tree
    for run_id in tree.run_ids():
        run = tree.identity(run_id)
        if run is not None and run.state is State.PAUSED:
            # By which command is not known where the log does not reach back so far.
            standing.took_effect(run_id, LinkCommand(command_id="", run=run_id, action=PAUSE, below=True))
    for _, entry in ring.read(ring.first - 1):
        if _SAYS_CONTROL not in entry.encoded:
            continue
        said = _said_in(entry.encoded)
        if said.control_id is not None and (word := word_of(said.kind, said.control_refusal)) is not None:
            key = entry.after.tenant, said.control_id
            before = known.get(key)
            if before is None or before.run_id not in tree.ancestors(entry.after.id):
                known.put(key, Known(entry.after.id, word))
            if word == "applied" and said.control_action in _STANDING:
                _recall_standing(hub, standing, entry.after.id, said)


def _recall_standing(hub: Hub, standing: Standing, run_id: str, said: _Said) -> None:
    run = hub.tree.identity(run_id)
    if run is None or not run.live or (said.control_action == PAUSE and run.state is not State.PAUSED):
        return
    # The last one is the one that holds: those before it may have been taken back.
    for order in standing.of(run_id):
        standing.withdraw(run_id, said.control_action or "", order.command_id)
    standing.took_effect(run_id, order_of(said, run_id, said.control_action or ""))


def word_of(kind: str, refusal: str | None) -> str | None:
    """What became of a command, for the answer to a duplicate; `None`: that kind of event does not say it."""
    if kind == "control.applied":
        return "applied"
    return f"refused: {refusal or 'no reason given'}" if kind == "control.refused" else None


def order_of(event: Event | _Said, run_id: str, action: str) -> LinkCommand:
    """For those below: what an operation says that it obeyed, which has no deadline any more."""
    return LinkCommand(
        command_id=event.control_id or "",
        run=run_id,
        action=action,
        arguments={} if event.control_reason is None else {"reason": event.control_reason},
        actor=event.control_actor or "",
        below=True,
    )
