"""The gate of an operation that lives in another process: what is below it here obeys its cancel and pause too.

The process that was started for a controlled operation is told so (`propagation`), so that its loops look up. It is told
of commands over its worker link; a command counts for what lives here at that moment, and the host sends it again for
what begins later.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from otelprogress import active
from otelprogress.gate import Gate

if TYPE_CHECKING:
    from otelprogress.commands import Commanded, Order


class RemoteGate(Gate):
    """Cancel and pause of an operation elsewhere, for those below it in this process."""

    __slots__ = ("_below", "_lock", "_orders")

    def __init__(self) -> None:
        super().__init__(self._took_effect)
        self._lock = threading.Lock()
        self._below: weakref.WeakSet[Commanded] = weakref.WeakSet()
        self._orders: dict[str, list[Order]] = {}

    @property
    def in_use(self) -> bool:
        """Whether an operation right below it has not ended."""
        return any(not each.ended for each in tuple(self._below))

    def add(self, operation: Commanded) -> None:
        """An operation that stands right below; the first that lives speaks for all of them."""
        self._below.add(operation)

    def obey(self, action: str, order: Order) -> None:
        """Take a command that the operation elsewhere was given."""
        with self._lock:
            self._orders.setdefault(action, []).append(order)
        if action == "cancel":
            self.cancel(order.reason, order.until_s)
        elif action == "pause":
            self.pause(order.until_s)
        else:
            was_paused = self.paused
            self.resume()
            if not was_paused:
                self._took_effect(action)

    @active.contained
    def _took_effect(self, action: str) -> None:
        name, _, expired = action.partition("_")
        with self._lock:
            orders = self._orders.pop(name, [])
        if expired:
            return  # the host says so, for the operation elsewhere
        speaker = next((each for each in tuple(self._below) if not each.ended), None)
        if speaker is not None:
            for order in orders:
                if order.command_id:
                    speaker._said(name, order)
