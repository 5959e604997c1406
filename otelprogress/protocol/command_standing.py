"""Cancels and pauses that what is below an operation in other processes has to obey as well, also what begins later.

Pure. One that was only accepted has the time of its command; once the operation itself has said that it took effect, it
is in force, without a deadline, until it is taken back or the operation ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from otelprogress.protocol.command_judging import PAUSE, RESUME
from otelprogress.protocol.messages import LinkCommand


class Standing:
    """By run: at most one order of each action, as it is sent to processes below."""

    def __init__(self) -> None:
        self._by_run: dict[str, dict[str, LinkCommand]] = {}

    def __len__(self) -> int:
        return len(self._by_run)

    def of(self, run_id: str) -> Iterator[LinkCommand]:
        """What stands at a run, in the order in which it is to be obeyed."""
        return iter(tuple(self._by_run.get(run_id, {}).values()))

    def accepted(self, run_id: str, order: LinkCommand) -> None:
        """It stands as long as its command may take effect; one that is in force stays. A resume lifts nothing yet."""
        if order.action == RESUME:
            return
        at_run = self._by_run.setdefault(run_id, {})
        before = at_run.get(order.action)
        if before is None or before.valid_s is not None:
            at_run[order.action] = order

    def took_effect(self, run_id: str, order: LinkCommand) -> None:
        """The operation itself obeyed."""
        at_run = self._by_run.get(run_id, {})
        if order.action == RESUME:
            paused = at_run.get(PAUSE)
            if paused is not None and paused.valid_s is None:
                # Kept for a process that was away meanwhile, and still stands still. A pause that is younger, and was
                # not obeyed yet, stays as it is.
                del at_run[PAUSE]
                at_run[RESUME] = msgspec.structs.replace(order, command_id="")
            return
        before = at_run.get(order.action)
        if before is None or before.command_id == order.command_id:
            at_run[order.action] = msgspec.structs.replace(before or order, valid_s=None)
        if order.action == PAUSE:
            at_run.pop(RESUME, None)
        self._by_run[run_id] = at_run

    def withdraw(self, run_id: str, action: str, command_id: str) -> None:
        """That command came to nothing; another one of its kind stays."""
        at_run = self._by_run.get(run_id, {})
        order = at_run.get(action)
        if order is None or order.command_id != command_id:
            return
        del at_run[action]
        if not at_run:
            del self._by_run[run_id]

    def ended(self, run_id: str) -> None:
        """Nothing begins below that run any more."""
        self._by_run.pop(run_id, None)
