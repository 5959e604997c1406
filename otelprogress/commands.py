"""What may be asked of a live operation from outside its code: cancel, pause, resume. The middle of `run.Operation`."""

# ruff: noqa: TC004 - `load` fetches these names when the first operation begins

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from otelprogress import active
from otelprogress.exceptions import UsageError
from otelprogress.gate import Gate
from otelprogress.imports import fetch
from otelprogress.model import semconv
from otelprogress.voice import Voice

if TYPE_CHECKING:
    from otelprogress.active import Instrumentation
    from otelprogress.model.events import State
    from otelprogress.step import Step


def load() -> None:
    """Import what only operations need."""
    fetch(globals(), {"otelprogress.model.events": ("State",)})


class Commanded(Voice):
    """Obeys commands where its code gives control: at each item of a loop and at each checkpoint.

    Args:
        ins: what it reports through.
        name: of low cardinality.
        root: the step that counts where no step is open.
        controls: what it declared.
        above: the gate of the operation around it; `None`: nobody can command that.
    """

    __slots__ = ("_cancel_said", "_gate", "controls", "gate")

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
        declared = "cancel" in controls or "pause" in controls
        self._gate = Gate(self._command_applied, above) if declared else None
        self.gate: Gate | None = self._gate or above
        """What loops and checkpoints obey: its own, else the nearest ancestor's; `None`: nobody can command it."""

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
        """Stand still while paused; on a running event loop's thread a pause is not honoured, a cancel is.

        Raises:
            OperationCancelled: it was cancelled.
        """
        if self.gate is not None:
            self.gate.check()

    async def acheckpoint(self) -> None:
        """Stand still while paused, letting the event loop go on.

        Raises:
            OperationCancelled: it was cancelled.
        """
        if self.gate is not None:
            await self.gate.acheck()

    def cancel(self, reason: str = "") -> bool:
        """Let its next item or checkpoint raise `OperationCancelled`. Any thread.

        Returns:
            Whether it will be obeyed: it declared `cancel` and has not ended.
        """
        gate = self._commanded("cancel")
        if gate is not None:
            gate.cancel(reason)
        return gate is not None

    def pause(self) -> bool:
        """Let its next item or checkpoint stand still until `resume()`. Returns whether it declared `pause` and lives."""
        gate = self._commanded("pause")
        if gate is not None:
            gate.pause()
        return gate is not None

    def resume(self) -> bool:
        """Let it go on. Returns whether it declared `pause` and lives."""
        gate = self._commanded("pause")
        if gate is not None:
            gate.resume()
        return gate is not None

    def obey_at_once(self, apply: Callable[[str], None]) -> None:
        """Let commands take effect where they are given, by `apply(action)`; see `Gate.obey_at_once`.

        For work that has no items and no checkpoints of its own, as a program that was started.
        """
        if self._gate is not None:
            self._gate.obey_at_once(apply)

    def _commanded(self, action: str) -> Gate | None:
        if self.ended:
            return None
        if self._gate is None or action not in self.controls:
            active.misuse(
                f"operation {self.name!r} does not accept {action!r}: add controls=[{action!r}]", UsageError
            )
            return None
        return self._gate

    @active.contained
    def _command_applied(self, action: str) -> None:
        """A command took effect in the instrumented code; called by the gate there."""
        if self.ended:
            return
        with self._event_lock:
            if action == "cancel":
                if self._cancel_said:
                    return
                self._cancel_said = True
            else:
                state = State.PAUSED if action == "pause" else None
                if state is self._state:
                    return
                self._state = state
        self._ensure_begun()
        gate = self._gate
        reason = gate.reason if gate is not None and action == "cancel" else ""
        self._say(semconv.CONTROL_APPLIED, control_action=action, control_reason=reason or None)
        if action != "cancel":
            self._say(
                semconv.OPERATION_STATE_CHANGED, state=State.PAUSED if action == "pause" else State.RUNNING
            )
