"""What a watcher of a feed knows: the newest view of every operation, with its steps. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from otelprogress.model.events import NO_STEP_INDEX, FeedEvent, OperationView, StepView

KEEP_ENDED_S: Final = 600.0
MAX_OPERATIONS: Final = 20_000


class Board:
    """Applies events in any number; asked for views now and then.

    Events carry the current step only, snapshots all of them: the steps are collected here.
    """

    def __init__(self, *, keep_ended_s: float = KEEP_ENDED_S, max_operations: int = MAX_OPERATIONS) -> None:
        self._views: dict[str, OperationView] = {}
        self._steps: dict[str, dict[int, StepView]] = {}
        self._keep_ended_s = keep_ended_s
        self._max_operations = max_operations

    def __len__(self) -> int:
        return len(self._views)

    def apply(self, event: FeedEvent) -> None:
        """Take the state that the event carries. `left` only says that no more is heard of an operation."""
        view = event.operation
        if event.kind == "left":
            self._forget(view.id)
            return
        steps = self._steps.setdefault(view.id, {})
        steps.update({step.index: step for step in view.steps})
        for step in (view.step, event.step):
            if step is not None and step.index != NO_STEP_INDEX:
                steps[step.index] = step
        self._views[view.id] = view

    def view(self, run_id: str) -> OperationView | None:
        """One operation, with the steps that were heard of; `None`: it is not known."""
        view = self._views.get(run_id)
        return None if view is None else self._with_steps(view)

    def views(self, now_unix_ns: int) -> list[OperationView]:
        """All that live, and what ended less than `keep_ended_s` ago; with the steps that were heard of."""
        old = now_unix_ns - int(self._keep_ended_s * 1e9)
        for run_id in [
            view.id for view in self._views.values() if not view.live and (view.ended_at_unix_ns or 0) < old
        ]:
            self._forget(run_id)
        if len(self._views) > self._max_operations:
            by_worth = sorted(self._views.values(), key=lambda view: (view.live, view.updated_at_unix_ns))
            for view in by_worth[: len(by_worth) - self._max_operations]:
                self._forget(view.id)
        return [self._with_steps(view) for view in self._views.values()]

    def _with_steps(self, view: OperationView) -> OperationView:
        steps = self._steps[view.id]
        if not steps:
            return view
        return msgspec.structs.replace(view, steps=tuple(steps[index] for index in sorted(steps)))

    def _forget(self, run_id: str) -> None:
        self._views.pop(run_id, None)
        self._steps.pop(run_id, None)
