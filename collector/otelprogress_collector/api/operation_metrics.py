"""Metrics of operations for `/metrics`: the names of the conventions, of all tenants together. Pure.

Dimensions are operation name, step name and outcome, never an id; beyond `MAX_NAMES` names the rest counts as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from otelprogress.model import semconv
from otelprogress.model.events import State, StepState
from otelprogress_collector.api.metrics import Sample

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied

MAX_NAMES: Final = 1_000
OTHER: Final = "other"
BUCKETS_S: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0)
"""Upper bounds: from a step of a moment to a job of a day."""
_ENDED: Final = semconv.OPERATION_ENDED.removeprefix(semconv.PREFIX)
_STARTED: Final = semconv.OPERATION_STARTED.removeprefix(semconv.PREFIX)
_STEP_ENDED: Final = semconv.STEP_ENDED.removeprefix(semconv.PREFIX)
_STATE_CHANGED: Final = semconv.OPERATION_STATE_CHANGED.removeprefix(semconv.PREFIX)


class _Histogram:
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum += seconds

    def samples(self, name: str, text: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        reached = 0
        for bound, count in zip((*BUCKETS_S, None), self.counts, strict=True):
            reached += count
            le = "+Inf" if bound is None else f"{bound:g}"
            yield (f"{name}_bucket", text, "histogram", {**labels, "le": le}, reached)
        yield (f"{name}_sum", text, "histogram", labels, self.sum)
        yield (f"{name}_count", text, "histogram", labels, reached)


class OperationMetrics:
    """Counts what was applied; give it to `CollectorHost.on_applied`."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._operations: dict[tuple[str, str], _Histogram] = {}
        self._steps: dict[tuple[str, str, str], _Histogram] = {}
        self._ended: dict[tuple[str, str], int] = {}
        self._started: dict[str, int] = {}
        self._stalled: dict[str, int] = {}

    def __call__(self, applied: Sequence[Applied]) -> None:
        """Take what one cycle applied."""
        for each in applied:
            if each.durable:
                self._count(each)

    def _count(self, each: Applied) -> None:
        event, view = each.event, each.event.operation
        if event.late:
            return
        name = self._named(view.name)
        if event.kind == _STARTED:
            self._started[name] = self._started.get(name, 0) + 1
        elif event.kind == _ENDED:
            key = (name, view.state.value)
            self._ended[key] = self._ended.get(key, 0) + 1
            if view.state is not State.LOST:
                self._operations.setdefault(key, _Histogram()).observe(view.elapsed_s)
        elif event.kind == _STATE_CHANGED and view.stalled:
            self._stalled[name] = self._stalled.get(name, 0) + 1
        elif event.kind == _STEP_ENDED and event.step is not None:
            step = event.step
            if step.started_at_unix_ns is not None and step.ended_at_unix_ns is not None:
                state = step.state if step.state is not StepState.RUNNING else StepState.SUCCEEDED
                seconds = max(0, step.ended_at_unix_ns - step.started_at_unix_ns) / 1e9
                key_ = (name, self._named(step.name), state.value)
                self._steps.setdefault(key_, _Histogram()).observe(seconds)

    def _named(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) >= MAX_NAMES:
            return OTHER
        self._names.add(name)
        return name

    def samples(self) -> Iterator[Sample]:
        """Everything, in the order of the names."""
        for name, count in sorted(self._started.items()):
            yield (
                "otelprogress_operation_started_total",
                "Operations that were heard of.",
                "counter",
                {"operation_name": name},
                count,
            )
        for (name, outcome), count in sorted(self._ended.items()):
            yield (
                "otelprogress_operation_ended_total",
                "Operations by outcome.",
                "counter",
                {"operation_name": name, "outcome": outcome},
                count,
            )
        for name, count in sorted(self._stalled.items()):
            yield (
                "otelprogress_operation_stalled_total",
                "Times an operation stopped moving.",
                "counter",
                {"operation_name": name},
                count,
            )
        for (name, outcome), histogram in sorted(self._operations.items()):
            yield from histogram.samples(
                "otelprogress_operation_duration_seconds",
                "How long operations took, those that were lost left out.",
                {"operation_name": name, "outcome": outcome},
            )
        for (name, step, state), histogram in sorted(self._steps.items()):
            yield from histogram.samples(
                "otelprogress_step_duration_seconds",
                "How long steps took.",
                {"operation_name": name, "step_name": step, "state": state},
            )
