"""What may be asked of a live operation from outside its code: cancel, pause, resume, own signals.

The middle of `run.Operation`, between what it says (`voice`) and what it asks back (`asking`).
"""

# ruff: noqa: TC004 - `load` fetches these names when the first operation begins

from __future__ import annotations

import itertools
import operator
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otelprogress import active
from otelprogress.exceptions import UsageError
from otelprogress.gate import NEVER, OPPOSITES, Gate
from otelprogress.imports import fetch
from otelprogress.model import semconv
from otelprogress.voice import Voice

if TYPE_CHECKING:
    from otelprogress.active import Instrumentation
    from otelprogress.model.events import State
    from otelprogress.outcome import clean_message
    from otelprogress.step import Step

ASKING: Final = "input"
GATED: Final = frozenset({"cancel", "pause", "resume"})
"""Actions that are no signals of the user's own. `input` has no gate: it is answered where it waits."""

MAX_ORDERS: Final = 256
"""Commands of one action that wait for its code to come by: as many as a host lets wait for one operation."""

Handler = Callable[[], object]


class Order(NamedTuple):
    """One command on its way to its effect."""

    command_id: str = ""
    """Empty: the program's own call, not a command."""
    actor: str = ""
    reason: str = ""
    until_s: float = NEVER
    """By `time.monotonic`: after it it may not take effect any more."""


def load() -> None:
    """Import what only operations need."""
    fetch(
        globals(),
        {"otelprogress.model.events": ("State",), "otelprogress.outcome": ("clean_message",)},
    )


class Commanded(Voice):
    """Obeys commands where its code gives control: at each item of a loop and at each checkpoint.

    Args:
        ins: what it reports through.
        name: of low cardinality.
        root: the step that counts where no step is open.
        controls: what it declared.
        above: the gate of the operation around it; `None`: nobody can command that.
    """

    __slots__ = (
        "_begun_in",
        "_cancel_said",
        "_ends",
        "_gate",
        "_handlers",
        "_handling",
        "_orders",
        "_signals",
        "_stood",
        "_told",
        "around",
        "controls",
        "gate",
    )

    def __init__(
        self,
        ins: Instrumentation | None,
        name: str,
        root: Step,
        *,
        controls: tuple[str, ...],
        above: Gate | None,
    ) -> None:
        super().__init__(ins, name, root)
        self.controls = controls
        """What it accepts: `cancel`, `pause`, `input` or own signal names; nothing by default."""
        self._cancel_said = False
        self._ends = False
        """It is on its way to its outcome: what waits for its effect is settled, and nothing more is taken."""
        self._gate = Gate(self._command_applied, above) if set(controls) - {ASKING} else None
        self.gate: Gate | None = self._gate or above
        """What loops and checkpoints obey: its own, else the nearest ancestor's; `None`: nobody can command it."""
        self._orders: dict[str, list[Order]] = {}
        """By action: what has not taken effect yet."""
        self._signals: list[str] = []
        self._handlers: dict[str, Handler] = {}
        self._handling = False
        """A thread runs handlers: one at a time."""
        self.around: Commanded | None = None
        """The operation around it in this process."""
        self._begun_in = None if self.gate is None else weakref.ref(_runner())
        self._told: weakref.WeakKeyDictionary[object, tuple[int, int]] | None = None
        """Of which cancel each thread and task was told: the gate, and how often it had been cancelled."""
        self._stood = 0
        """How many of them stand still at the gates of operations around it."""

    # --- what its code calls ----------------------------------------------------------------------------------

    @property
    def cancel_requested(self) -> bool:
        """Whether it, or an operation around it whose cancel it obeys, was cancelled. Asking raises nothing."""
        gate = self.gate
        while gate is not None:
            if gate.cancelled:
                return True
            gate = gate.parent
        return False

    def checkpoint(self) -> None:
        """Handle signals, stand still while paused; on a running event loop's thread a pause is not honoured.

        Raises:
            OperationCancelled: it was cancelled.
        """
        if self.gate is not None:
            self.gate.check(self)

    async def acheckpoint(self) -> None:
        """Handle signals, stand still while paused, letting the event loop go on.

        Raises:
            OperationCancelled: it was cancelled.
        """
        if self.gate is not None:
            await self.gate.acheck(self)

    def on_signal(self, name: str, handler: Handler) -> None:
        """Let `handler` be called for each command `name` that it accepts (`controls=[name]`).

        It runs in this operation's code, at its next item or checkpoint, one at a time: what comes meanwhile is handled
        behind it, and other threads go on. What it raises goes no further: the command is then refused. A second handler
        of a name replaces the first.

        Args:
            name: one of `controls`, other than `cancel`, `pause` and `input`.
            handler: called without arguments.
        """
        if name in GATED or name == ASKING or name not in self.controls:
            active.misuse(
                f"operation {self.name!r} does not declare a signal {name!r}: add controls=[{name!r}]",
                UsageError,
            )
            return
        import inspect

        if inspect.iscoroutinefunction(handler):
            active.misuse(
                f"the handler of signal {name!r} is a coroutine function: nobody would await it", UsageError
            )
            return
        self._handlers[name] = handler

    # --- at a gate (`gate.Passer`) ------------------------------------------------------------------------------

    def was_told(self, gate: Gate) -> bool:
        """Whether this thread or task was told, in this operation or one around it: what it does is to clean up."""
        runner, told = _runner(), (id(gate), gate.cancels)
        each: Commanded | None = self
        while each is not None:
            if each._told is not None and each._told.get(runner) == told:
                return True
            each = each.around
        return False

    def is_told(self, gate: Gate) -> None:
        """The exception will pass this operation, and those around it that this thread or task is inside of."""
        runner, told = _runner(), (id(gate), gate.cancels)
        each: Commanded | None = self
        while each is not None and (
            each is self or (each._begun_in is not None and each._begun_in() is runner)
        ):
            if each._told is None:
                each._told = weakref.WeakKeyDictionary()
            each._told[runner] = told
            each = each.around

    @active.contained
    def stands_at(self, gate: Gate) -> None:
        """It is shown as paused where an operation around it was: its own gate says so itself."""
        if gate is self._gate:
            return
        with self._event_lock:
            self._stood += 1
            if self._stood > 1 or self.ended or self._ends or self._state is State.PAUSED:
                return
            self._state = State.PAUSED
        self._say(semconv.OPERATION_STATE_CHANGED, state=State.PAUSED)

    @active.contained
    def leaves(self, gate: Gate) -> None:
        """It is shown as going on."""
        if gate is self._gate:
            return
        own = self._gate
        with self._event_lock:
            self._stood -= 1
            if self._stood or self.ended or self._ends or self._state is not State.PAUSED:
                return
            if own is not None and own.paused and own.stands:
                return
            self._state = self._unpaused()
            state = self._state or State.RUNNING
        self._say(semconv.OPERATION_STATE_CHANGED, state=state)

    # --- what others call, from any thread ------------------------------------------------------------------------

    def cancel(self, reason: str = "") -> bool:
        """Let its next item or checkpoint raise `OperationCancelled`. Any thread.

        Returns:
            Whether it will be obeyed: it declared `cancel` and has not ended.
        """
        return self._commanded("cancel") and self.obey("cancel", Order(reason=reason)) == "accepted"

    def pause(self) -> bool:
        """Let its next item or checkpoint stand still until `resume()`. Returns whether it declared `pause` and lives."""
        return self._commanded("pause") and self.obey("pause", Order()) == "accepted"

    def resume(self) -> bool:
        """Let it go on. Returns whether it declared `pause` and lives."""
        return self._commanded("pause") and self.obey("resume", Order()) == "accepted"

    def _commanded(self, action: str) -> bool:
        if self.ended:
            return False
        if action not in self.controls:
            active.misuse(
                f"operation {self.name!r} does not accept {action!r}: add controls=[{action!r}]", UsageError
            )
            return False
        return True

    def obey(self, action: str, order: Order) -> str:
        """Take a command; that it took effect is said later, by `control.applied`. Any thread.

        Args:
            action: `cancel`, `pause`, `resume`, or a signal of its own.
            order: who commands, and until when it counts.

        Returns:
            `accepted`, `ended`, `unsupported`: it does not declare that; or in words that too many wait.
        """
        if self.ended:
            return "ended"
        gate = self._gate
        wanted = "pause" if action == "resume" else action
        if gate is None or wanted not in self.controls or action == ASKING:
            return "unsupported"
        with self._event_lock:
            if self._ends:
                return "ended"
            paused = self._state is State.PAUSED
            in_effect = (self._cancel_said if action == "cancel" else paused) if action in GATED else False
            at_once = in_effect if action != "resume" else not paused
            opposite = OPPOSITES.get(action, "") if at_once else ""
            withdrawn = self._orders.pop(opposite, [])
            expired: list[Order] = []
            fits = True
            if not at_once:
                expired = self._without_expired(action)
                orders = self._orders.setdefault(action, [])
                if len(orders) < MAX_ORDERS:
                    orders.append(order)
                    if action not in GATED:
                        self._signals.append(action)
                else:  # the program's own calls have no audit of their own: what waits is theirs, too
                    fits = action in GATED and not order.command_id
        self._refuse(withdrawn, opposite, f"superseded by a {action}")
        self._refuse(expired, action, "expired")
        if not fits:
            return f"{MAX_ORDERS} commands of this kind wait for its code already"
        if at_once and order.command_id:
            self._said(action, order)
        if action == "cancel":
            gate.cancel(order.reason, order.until_s)
        elif action == "pause":
            gate.pause(order.until_s)
        elif action == "resume":
            gate.resume()
        else:
            gate.signal()
        return "accepted"

    def _without_expired(self, action: str) -> list[Order]:
        """Take away what waits in vain, once it would be too many: its code may not come by for long. Locked."""
        orders = self._orders.get(action, [])
        if len(orders) < MAX_ORDERS:
            return []
        over = [_is_over(order) for order in orders]
        if action not in GATED:
            each = iter(over)  # of a signal each order has its entry
            self._signals = [name for name in self._signals if name != action or not next(each)]
        self._orders[action] = list(itertools.compress(orders, map(operator.not_, over)))
        return list(itertools.compress(orders, over))

    # --- where the code comes by ----------------------------------------------------------------------------------

    @active.contained
    def _command_applied(self, action: str) -> None:
        """A command took effect in the instrumented code; called by the gate there."""
        if action == "signal":
            self._handle_signals()
            return
        name, _, expired = action.partition("_")
        with self._event_lock:
            if self.ended:
                return
            orders = self._orders.pop(name, [])
            if expired:
                # One that came at this very moment has its time before it.
                if fresh := [order for order in orders if not _is_over(order)]:
                    self._orders[name] = fresh
                    orders = [order for order in orders if order not in fresh]
            elif name == "cancel":
                again, self._cancel_said = self._cancel_said, True
            else:
                state = State.PAUSED if name == "pause" else self._unpaused()
                again, self._state = state is self._state, state
        if expired:
            self._refuse(orders, name, "expired")
            return
        if again and not orders:
            return
        self._ensure_begun()
        for order in orders or [Order()]:
            self._said(name, order)
        if name != "cancel" and not again:
            self._say(semconv.OPERATION_STATE_CHANGED, state=state or State.RUNNING)

    def _unpaused(self) -> State | None:
        """What it is in once its pause is over; `None`: it runs."""
        return None

    def _handle_signals(self) -> None:
        with self._event_lock:
            if self._handling:
                return  # on another thread, or around this call: it comes to these, too
            self._handling = True
        try:
            while (signalled := self._next_signal()) is not None:
                self._handle(*signalled)
        except BaseException:
            with self._event_lock:
                self._handling, left = False, bool(self._signals)
            if left and self._gate is not None:
                self._gate.signal()  # whoever comes by next handles them
            raise

    def _next_signal(self) -> tuple[str, Order] | None:
        """`None`: there is none, and nobody handles any more."""
        with self._event_lock:
            if not self._signals:
                self._handling = False
                return None
            name = self._signals.pop(0)
            orders = self._orders.get(name, [])
            return name, orders.pop(0) if orders else Order()

    def _handle(self, name: str, order: Order) -> None:
        if _is_over(order):
            self._refuse([order], name, "expired")
            return
        handler = self._handlers.get(name)
        if handler is None:
            self._refuse([order], name, "no handler: its code has not called on_signal()")
            return
        try:
            handler()
        except Exception as error:
            active.count_misuse(f"the handler of signal {name!r} raised {type(error).__name__}: {error}")
            self._refuse([order], name, f"its handler raised {type(error).__name__}")
        except BaseException as left:
            self._refuse([order], name, f"its handler raised {type(left).__name__}")
            raise
        else:
            self._said(name, order)

    def _settle_orders(self, *, cancelled: bool) -> None:
        """It ends: nothing takes effect any more. `cancelled`: as a cancel that it was given wanted."""
        with self._event_lock:
            left, self._orders = self._orders, {}
            self._signals.clear()
        if cancelled:
            # Its code never came by; what it was waiting for, below it or in another process, was cancelled instead.
            for order in left.pop("cancel", []):
                if order.command_id:
                    self._said("cancel", order)
        for action, orders in left.items():
            self._refuse(orders, action, "ended")

    def _refuse(self, orders: list[Order], action: str, refusal: str) -> None:
        for order in orders:
            if order.command_id:
                self._said(action, order, refusal=refusal)

    def _said(self, action: str, order: Order, refusal: str | None = None) -> None:
        """What became of a command, for its audit: on the span, in the log."""
        fields: dict[str, Any] = {} if refusal is None else {"control_refusal": refusal}
        gate = self._gate
        reason = order.reason or (
            gate.reason if gate is not None and action == "cancel" and not refusal else ""
        )
        self._ensure_begun()
        self._say(
            semconv.CONTROL_APPLIED if refusal is None else semconv.CONTROL_REFUSED,
            control_id=order.command_id or None,
            control_action=action,
            control_actor=order.actor or None,
            control_reason=clean_message(reason) or None,
            **fields,
        )


def _is_over(order: Order) -> bool:
    return time.monotonic() >= order.until_s


def _runner() -> object:
    """The task that runs here, else the thread."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except (RuntimeError, AttributeError):  # no loop runs here; or asyncio is just being imported
            task = None
        if task is not None:
            return task
    return threading.current_thread()
