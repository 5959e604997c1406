"""The imperative face, for code whose flow no `with` statement follows: callbacks, state machines, message handlers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from otelprogress import active
from otelprogress.exceptions import (
    IllegalTransition,
    InvalidValue,
    OperationCancelled,
    UnknownOperation,
    UnknownStep,
    UsageError,
)
from otelprogress.no_operation import NO_OPERATION
from otelprogress.operation import Steps, plan_of
from otelprogress.run import Operation, begin
from otelprogress.step import Step, as_count

MAX_REMEMBERED: Final = 10_000
"""Ended operations whose outcome is remembered, to tell a second end from an unknown one."""


class _Failure(Exception):
    """Stands for a failure that is known by its text only."""


class _Tracked:
    __slots__ = ("ended_as", "entered", "operation", "steps")

    def __init__(self, operation: Operation, steps: tuple[str, ...]) -> None:
        self.operation = operation
        self.steps = steps
        self.entered: Step | None = None
        self.ended_as: str | None = None


class ProgressTracker:
    """Operations by an id of the caller's. Safe to use from any thread.

    Unlike the rest of the instrumentation it says what is wrong: every mistake raises a `ProgressError`, whether or
    not anything is configured.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._operations: dict[str, _Tracked] = {}
        self._ended: dict[str, str] = {}

    def start_operation(
        self,
        operation_id: str,
        steps: Steps = (),
        *,
        name: str | None = None,
        title: str | None = None,
        controls: Sequence[str] = (),
        total: float | None = None,
        unit: str | None = None,
    ) -> Operation:
        """Begin an operation; an id that ended may be used again.

        Args:
            operation_id: the caller's; its label.
            steps: names in order, or names with positive weights.
            name: of low cardinality; `None`: the id.
            title: for people; `None`: the name.
            controls: commands that it accepts.
            total: items in all where there are no steps; `None`: unknown.
            unit: of those items; `row` means `{row}`.

        Returns:
            The operation; one that does nothing while nothing is configured.

        Raises:
            UsageError: an operation of that id lives.
            InvalidValue: no id, no list of names, a weight or total that cannot be meant.
        """
        if not operation_id:
            raise InvalidValue("operation_id is empty: give the operation an id")
        try:
            hash(operation_id)
        except TypeError:
            raise InvalidValue(f"operation_id={operation_id!r}: give the operation an id") from None
        for word, names in (("steps", steps), ("controls", controls)):
            if isinstance(names, str) or not isinstance(names, Iterable):
                raise InvalidValue(f"{word}={names!r}: give a list of names")
        for weight in steps.values() if isinstance(steps, Mapping) else ():
            if not as_count(weight):
                raise InvalidValue(f"steps={steps!r}: weights are positive numbers")
        if total is not None and as_count(total) is None:
            raise InvalidValue(f"total={total!r}: give a finite number that is not negative, or None")
        with self._lock:
            if operation_id in self._operations:
                raise UsageError(f"operation {operation_id!r} was started and has not ended")
            plan = plan_of(
                name or operation_id,
                steps=steps,
                label=operation_id,
                controls=controls,
                total=total,
                unit=unit,
            )
            ins = active.instrumentation()
            operation = NO_OPERATION if ins is None else begin(ins, plan, title=title)
            self._operations[operation_id] = _Tracked(operation, plan.steps)
            self._ended.pop(operation_id, None)
            return operation

    def update_progress(
        self,
        operation_id: str,
        step: str | int | None = None,
        message: str | None = None,
        *,
        completed: float | None = None,
        total: float | None = None,
        unit: str | None = None,
    ) -> None:
        """Say where it stands. Another step than the last one ends that one as succeeded.

        Args:
            operation_id: of a started operation.
            step: name, or index from 0; `None`: the operation itself, or the step it is in.
            message: what is being done; the latest wins.
            completed: items done, absolute, finite and not negative; `None`: not said.
            total: items in all; `None`: not said.
            unit: `row` means `{row}`; `None`: not said.

        Raises:
            UnknownOperation: no operation of that id was started.
            IllegalTransition: it has ended.
            UnknownStep: no step of that name or index was given when it started.
            InvalidValue: a count that cannot be meant.
        """
        for word, value in (("completed", completed), ("total", total)):
            if value is not None and as_count(value) is None:
                raise InvalidValue(f"{word}={value!r}: give a finite number that is not negative")
        with self._lock:
            tracked = self._live(operation_id, "running")
            name = None if step is None else self._step_name(tracked, operation_id, step)
            operation = tracked.operation
            if operation.ended:  # nothing is configured
                return
            if name is not None and (tracked.entered is None or tracked.entered.name != name):
                self._leave(tracked, None)
                entered = operation.step(name)
                operation._step_entered(entered)
                tracked.entered = entered
            counting = tracked.entered or operation.root
            if total is not None or unit is not None:
                counting.set_total(counting.total if total is None else total, unit=unit)
            if completed is not None:
                counting.set_completed(completed)
            if message is not None:
                operation.show(message)

    def note(self, operation_id: str, message: str, *, level: str = "info") -> None:
        """Say one line for people, which is kept.

        Raises:
            UnknownOperation: no operation of that id was started.
            IllegalTransition: it has ended.
            InvalidValue: a level other than `info`, `warning`, `error`.
        """
        if level not in {"info", "warning", "error"}:
            raise InvalidValue(f"level={level!r}: one of info, warning, error")
        with self._lock:
            tracked = self._live(operation_id, "running")
        tracked.operation.note(message, level=level)

    def complete_operation(self, operation_id: str, result: object = None) -> None:
        """End it as succeeded.

        Args:
            operation_id: of a started operation.
            result: kept as JSON of at most 4 KiB, redacted; `None`: nothing.

        Raises:
            UnknownOperation: no operation of that id was started.
            IllegalTransition: it has ended.
        """
        with self._lock:
            tracked = self._live(operation_id, "succeeded")
            self._forget(operation_id, "succeeded")
            if result is not None:
                tracked.operation.set_result(result)
            self._leave(tracked, None)
            tracked.operation.end()

    def fail_operation(self, operation_id: str, error: BaseException | str) -> None:
        """End it as failed.

        Args:
            operation_id: of a started operation.
            error: what went wrong; an exception gives type and stack trace.

        Raises:
            UnknownOperation: no operation of that id was started.
            IllegalTransition: it has ended.
        """
        problem = _Failure(error) if isinstance(error, str) else error
        with self._lock:
            tracked = self._live(operation_id, "failed")
            self._forget(operation_id, "failed")
            self._leave(tracked, problem)
            tracked.operation.end_failed(problem, said=isinstance(error, str))

    def cancel_operation(self, operation_id: str, reason: str = "") -> None:
        """End it as cancelled: say that it stopped, where `Operation.cancel()` asks running code to stop.

        Raises:
            UnknownOperation: no operation of that id was started.
            IllegalTransition: it has ended.
        """
        problem = OperationCancelled(reason)
        with self._lock:
            tracked = self._live(operation_id, "cancelled")
            self._forget(operation_id, "cancelled")
            self._leave(tracked, problem)
            tracked.operation.end(problem)

    def get_operation(self, operation_id: str) -> Operation:
        """The live operation of that id; one that does nothing while nothing is configured.

        Raises:
            UnknownOperation: no operation of that id was started.
            IllegalTransition: it has ended.
        """
        with self._lock:
            return self._live(operation_id, "running").operation

    # --- parts ---------------------------------------------------------------------------------------------------

    def _live(self, operation_id: str, wanted: str) -> _Tracked:
        try:
            tracked = self._operations.get(operation_id)
        except TypeError:
            raise UnknownOperation(f"operation {operation_id!r} was not started: that is no id") from None
        if tracked is not None:
            return tracked
        ended = self._ended.get(operation_id)
        if ended is not None:
            raise IllegalTransition(f"operation {operation_id!r}", ended, wanted)
        started = ", ".join(str(each) for each in list(self._operations)[:5]) or "none"
        raise UnknownOperation(f"operation {operation_id!r} was not started; started are: {started}")

    def _forget(self, operation_id: str, state: str) -> None:
        del self._operations[operation_id]
        self._ended[operation_id] = state
        if len(self._ended) > MAX_REMEMBERED:
            del self._ended[next(iter(self._ended))]

    @staticmethod
    def _step_name(tracked: _Tracked, operation_id: str, step: str | int) -> str:
        steps = tracked.steps
        if isinstance(step, int) and not isinstance(step, bool):
            if 0 <= step < len(steps):
                return steps[step]
        elif step in steps:
            return step
        known = ", ".join(steps) or "none"
        raise UnknownStep(f"operation {operation_id!r} has no step {step!r}; its steps are: {known}")

    @staticmethod
    def _leave(tracked: _Tracked, error: BaseException | None) -> None:
        entered, tracked.entered = tracked.entered, None
        if entered is not None and not tracked.operation.ended:
            tracked.operation._step_left(entered, error)
