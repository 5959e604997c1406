"""Commands that reach this process, brought to its operations. The worker's side of `protocol.command_desk`.

They come from the feed of this process, from its parent over the worker link, and from a collector: the same command
may come by two ways, and again after a reconnect. Each id is obeyed once; whoever sends it again gets the first answer.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, get_args

from otelprogress import active
from otelprogress.commands import ASKING, Order
from otelprogress.model.input_schema import content_of
from otelprogress.protocol.messages import CommandAnswer, CommandStatus

if TYPE_CHECKING:
    from otelprogress.active import Instrumentation
    from otelprogress.protocol.messages import LinkCommand

MAX_REMEMBERED: Final = 10_000
"""Commands whose answer is kept."""
_ANSWERS: Final = frozenset(get_args(CommandAnswer))


class Control:
    """See the module. Any thread may call it.

    Args:
        ins: whose operations are commanded.
    """

    def __init__(self, ins: Instrumentation) -> None:
        self._ins = ins
        self._lock = threading.Lock()
        self._answered: OrderedDict[tuple[str, str], CommandStatus] = OrderedDict()
        """By command id and run: a command that reaches below several runs is one for each."""

    def take(self, command: LinkCommand) -> CommandStatus:
        """Obey a command once. Never blocks for the instrumented code, and raises nothing.

        Returns:
            `accepted`: its effect, or its refusal, is said by an event of the operation; `duplicate`: it came before; else
            why this process cannot obey it.
        """
        key = command.command_id, command.run
        with self._lock:
            before = self._answered.get(key)
            # Without an id it is no command, but how things stand above: that is obeyed each time.
            if before is not None and command.command_id:
                if command.below and before.status == "accepted":
                    self._prolong(command)
                return CommandStatus(
                    command_id=command.command_id,
                    status="duplicate" if before.status == "accepted" else before.status,
                    message=before.message,
                )
            self._answered[key] = CommandStatus(command_id=command.command_id, status="accepted")
        # With no lock held: what is said of it runs through the application's own processors, which may be slow. Whoever
        # brings it meanwhile need not bring it.
        try:
            status = self._obeyed(command)
        except Exception as error:
            active.count_misuse(f"a command could not be obeyed: {type(error).__name__}: {error}")
            status = CommandStatus(
                command_id=command.command_id, status="invalid", message="it failed in otelprogress"
            )
        with self._lock:
            if status.status == "not_found":
                # What is not there yet may come: a child that is just being started.
                self._answered.pop(key, None)
            else:
                self._answered[key] = status
                while len(self._answered) > MAX_REMEMBERED:
                    self._answered.popitem(last=False)
        return status

    def _obeyed(self, command: LinkCommand) -> CommandStatus:
        order = _order(command)
        if command.below:
            return _status(command, self._below(command, order))
        operation = self._ins.live.get(command.run)
        if operation is None:
            return _status(command, "not_found", "no such operation lives in this process")
        if command.action == ASKING:
            asked = command.arguments.get("input_id")
            answer = operation.answer(
                asked if isinstance(asked, str) else None, content_of(command.arguments), order
            )
        else:
            answer = operation.obey(command.action, order)
        return _status(command, answer)

    def _prolong(self, command: LinkCommand) -> None:
        gate = self._ins.remote_gates.get(command.run)
        if gate is not None:
            gate.prolong(command.action, _order(command))

    def _below(self, command: LinkCommand, order: Order) -> str:
        gate = self._ins.remote_gates.get(command.run)
        if gate is None:
            return "not_found"
        gate.obey(command.action, order)
        return "accepted"


def _order(command: LinkCommand) -> Order:
    reason = command.arguments.get("reason")
    return Order(
        command_id=command.command_id,
        actor=command.actor,
        reason=reason if isinstance(reason, str) else "",
        until_s=math.inf if command.valid_s is None else time.monotonic() + command.valid_s,
    )


def _status(command: LinkCommand, answer: str, message: str = "") -> CommandStatus:
    for known in _ANSWERS:
        if answer == known:
            return CommandStatus(command_id=command.command_id, status=known, message=message)
    # What is wrong with it, in words.
    return CommandStatus(command_id=command.command_id, status="invalid", message=answer)
