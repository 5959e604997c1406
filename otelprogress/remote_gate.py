"""The gate of an operation that lives in another process: what is below it here obeys its cancel and pause too.

The process that was started for a controlled operation is told so (`propagation`), so that its loops look up. It is told
of commands over its worker link; a command counts for what comes by in its time, and the host sends it again for what
begins later.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Final

from otelprogress import active
from otelprogress.gate import OPPOSITES, Gate

if TYPE_CHECKING:
    from otelprogress.commands import Commanded, Order


MAX_ORDERS: Final = 64
"""Commands of one kind that are said to have taken effect at once; more of them are only obeyed."""


class RemoteGate(Gate):
    """Cancel and pause of an operation elsewhere, for those below it in this process."""

    __slots__ = ("_below", "_in_force", "_lock", "_orders")

    def __init__(self) -> None:
        super().__init__(self._took_effect)
        self._lock = threading.Lock()
        self._below: weakref.WeakSet[Commanded] = weakref.WeakSet()
        self._orders: dict[str, list[Order]] = {}
        self._in_force: dict[str, str] = {}
        """Action → the command that was last given and not taken back."""

    @property
    def in_use(self) -> bool:
        """Whether an operation right below it has not ended."""
        return self._speaker() is not None

    def _speaker(self) -> Commanded | None:
        with self._lock:
            below = tuple(self._below)
        return next((each for each in below if not each.ended), None)

    def add(self, operation: Commanded) -> None:
        """An operation that stands right below; the first that lives speaks for all of them."""
        with self._lock:
            self._below.add(operation)

    def reset_after_fork(self) -> None:
        """In a forked child: what the parent process was told is not said here."""
        super().reset_after_fork()
        self._lock = threading.Lock()
        self._orders = {}

    def obey(self, action: str, order: Order) -> None:
        """Take a command that the operation elsewhere was given."""
        with self._lock:
            # What was not seen by any code meanwhile has become pointless.
            self._orders.pop(OPPOSITES.get(action, ""), None)
            self._in_force.pop(OPPOSITES.get(action, ""), None)
            self._in_force[action] = order.command_id
            orders = self._orders.setdefault(action, [])
            if len(orders) < MAX_ORDERS:
                orders.append(order)
        if action == "cancel":
            self.cancel(order.reason, order.until_s)
        elif action == "pause":
            self.pause(order.until_s)
        else:
            stands = self.paused and self.stands
            self.resume()
            if not stands:
                self._took_effect(action)

    def prolong(self, action: str, order: Order) -> None:
        """A command came again: it was obeyed above and has no deadline any more, or something begins here that it means.

        It counts for that, too, if it is in force, or if this gate is new (one that nobody used was dropped meanwhile). Its
        effect was said, or will be: a command is said to be applied once.
        """
        with self._lock:
            taken_back = OPPOSITES.get(action, "") in self._in_force
            if taken_back or self._in_force.setdefault(action, order.command_id) != order.command_id:
                return
        if action == "cancel":
            self.cancel(order.reason, order.until_s)
        elif action == "pause":
            self.pause(order.until_s)

    @active.contained
    def _took_effect(self, action: str) -> None:
        name, _, expired = action.partition("_")
        with self._lock:
            orders = self._orders.pop(name, [])
        if expired:
            return  # the host says so, for the operation elsewhere
        # With none left nobody says it: the operation elsewhere, or its host, still does.
        speaker = self._speaker()
        if speaker is not None:
            for order in orders:
                if order.command_id:
                    speaker._said(name, order)
