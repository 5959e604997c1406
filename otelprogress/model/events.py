"""The two shapes of progress: what a writer says (`Event`) and what a host answers (`FeedEvent`).

An `Event` travels from instrumented code, or from an OTLP record through `model.mapping`, to a host. The host
reduces it into the state of its run (`model.state`, `model.tree`), gives it a revision and publishes a
`FeedEvent`, which carries the state of the run *after* the event as an `OperationView`. Both are immutable.

Times are integers of nanoseconds since the Unix epoch (`_unix_ns`), durations are seconds (`_s`).
A run is identified by `run_id` = `<trace id, 32 hex>-<span id, 16 hex>`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from otelprogress.model import semconv


class State(StrEnum):
    """The state of an operation. The last four are the only outcomes."""

    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


OUTCOMES: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST})


class StepState(StrEnum):
    """The state of a step."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class Source(StrEnum):
    """Which carrier said it; `conventions.md`, precedence: log event, span end, span event."""

    LOG = "log"
    SPAN_END = "span_end"
    SPAN_EVENT = "span_event"
    FOREIGN = "foreign"
    """A note made from an event that existing code put on an operation's span."""


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a writer says about one run, once. Absolute values, never deltas: losing a tick loses nothing.

    `name` of the event is `kind` (a constant of `semconv`, with its prefix). Fields that do not apply are
    `None` (or empty), which always means "not said", never "zero".
    """

    kind: str
    run_id: str
    time_unix_ns: int
    source: Source = Source.LOG
    tenant: str = ""

    # The writer: one per process incarnation.
    writer_id: str = ""
    sequence: int | None = None
    """+1 per durable event of a run, from 1. `None`: a foreign writer, or an event that is conflated."""
    lease_s: float | None = None
    service: str | None = None
    process_id: int | None = None

    # Said at the start.
    name: str | None = None
    title: str | None = None
    label: str | None = None
    parent_span_id: str | None = None
    """16 hex digits; empty string: a root; `None`: not said."""
    start_unix_ns: int | None = None
    span_kind: str | None = None
    trace_state: str | None = None
    sampled: bool = True
    steps: tuple[str, ...] | None = None
    step_weights: tuple[float, ...] | None = None
    expected_children: int | None = None
    attempt: int | None = None
    weight: float | None = None
    controls: tuple[str, ...] | None = None
    stall_after_s: float | None = None
    attributes: dict[str, str | bool | int | float] | None = None
    """Attributes of the user's, allow-listed and redacted; for filters and views."""

    # Said by every event: the current step and its counts.
    step_name: str | None = None
    step_index: int | None = None
    step_state: StepState | None = None
    completed: float | None = None
    total: float | None = None
    unit: str | None = None
    initial: float | None = None
    counters: dict[str, float] | None = None
    ratio: float | None = None
    """0 to 1, as the writer says it; a host that can compute its own does."""
    ratio_source: str | None = None

    # Said by some.
    state: State | None = None
    stalled: bool | None = None
    message: str | None = None
    level: str | None = None
    """`info`, `warning` or `error`; `None` reads as `info`."""
    error_type: str | None = None
    error_message: str | None = None
    error_stacktrace: str | None = None
    result: str | None = None
    lost_detector: str | None = None
    lost_evidence_unix_ns: int | None = None
    lost_cause: str | None = None
    control_id: str | None = None
    control_action: str | None = None
    control_actor: str | None = None
    control_reason: str | None = None
    control_refusal: str | None = None
    input_id: str | None = None
    input_prompt: str | None = None
    input_schema: str | None = None
    input_default: str | None = None
    input_deadline_unix_ns: int | None = None
    folded: int | None = None
    """How many notes or steps this one stands for, beyond itself."""

    @property
    def durable(self) -> bool:
        """Whether this event is never conflated."""
        return self.kind in semconv.DURABLE_EVENTS

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.run_id[:32]

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self.run_id[33:]


class StepView(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One step of a run, as it stands."""

    name: str
    index: int
    """From 0."""
    state: StepState = StepState.PENDING
    weight: float = 1.0
    completed: float | None = None
    """Absolute; `None`: this step counts nothing."""
    total: float | None = None
    """`None`: unknown."""
    unit: str | None = None
    """UCUM: `{row}`, `By`."""
    initial: float | None = None
    counters: dict[str, float] = {}
    ratio: float | None = None
    """0 to 1; `None`: unknown."""
    started_at_unix_ns: int | None = None
    ended_at_unix_ns: int | None = None


class Eta(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """When the rest will be done, as an interval of seconds from the view's `as_of_unix_ns`."""

    low_s: float
    high_s: float


class ChildCounts(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How many direct children are in which state."""

    total: int = 0
    live: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    expected: int | None = None


class OperationView(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One run as it stands: the shape that snapshots, events and clients share."""

    id: str
    """`<trace id>-<span id>` in hex."""
    handle: str
    """`slug(name)-n`, given by the host."""
    name: str
    state: State
    revision: int
    """Given by the host, rises strictly per run with every event."""
    as_of_unix_ns: int
    """When this view was made, by the host's clock."""
    title: str = ""
    label: str | None = None
    tenant: str = ""
    service: str = ""
    process_id: int | None = None
    writer_id: str = ""
    parent_id: str | None = None
    """The run id of the parent operation; `None`: a root, as far as the host knows."""
    parent_step_index: int | None = None
    """The parent's step that was current when this run started."""
    started_at_unix_ns: int = 0
    updated_at_unix_ns: int = 0
    """When its writer was last heard about this run."""
    ended_at_unix_ns: int | None = None
    ratio: float | None = None
    """0 to 1, never goes back; `None`: unknown."""
    ratio_source: str | None = None
    """`measured` or `estimated`."""
    raw_ratio: float | None = None
    """What was computed, where `ratio` is held above it."""
    rate: float | None = None
    """Items of the current step per second; `None`: unknown."""
    eta: Eta | None = None
    stalled: bool = False
    stalled_since_unix_ns: int | None = None
    usual_interval_s: float | None = None
    """How long it usually takes between two movements of its counts."""
    step: StepView | None = None
    """The current step (of several open, the one that moved last), or the counts of an operation without steps
    as a step with an empty name and index -1."""
    step_count: int = 0
    steps: tuple[StepView, ...] = ()
    """All steps, only in snapshots and single views; at most 256, the rest in `steps_folded`."""
    steps_folded: int = 0
    children: ChildCounts | None = None
    attempt: int = 1
    weight: float = 1.0
    controls: tuple[str, ...] = ()
    attributes: dict[str, str | bool | int | float] = {}
    message: str | None = None
    """The last note."""
    level: str | None = None
    warnings: int = 0
    """How many notes were warnings or errors."""
    error_type: str | None = None
    error_message: str | None = None
    result: str | None = None
    lost_detector: str | None = None
    lost_evidence_unix_ns: int | None = None
    lost_cause: str | None = None
    input_id: str | None = None
    input_prompt: str | None = None
    input_schema: str | None = None
    input_default: str | None = None
    input_deadline_unix_ns: int | None = None
    incomplete: bool = False
    """A hole in the writer's sequence was not filled in time."""
    dropped: int = 0
    """Events of this run that a bounded buffer had to drop."""

    @property
    def outcome(self) -> State | None:
        """One of the four outcomes; `None` while it lives."""
        return self.state if self.state in OUTCOMES else None

    @property
    def live(self) -> bool:
        """Whether it has no outcome yet."""
        return self.state not in OUTCOMES

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.id[:32]

    @property
    def elapsed_s(self) -> float:
        """From its start to its end, or to `as_of_unix_ns` while it lives."""
        end = self.ended_at_unix_ns if self.ended_at_unix_ns is not None else self.as_of_unix_ns
        return max(0, end - self.started_at_unix_ns) / 1e9


class FeedEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What happened to one run, with the state of the run after it.

    On the wire these are the members of an `events` frame. Clients also make them from snapshots, with `kind`
    `snapshot` and, after a gap, its reason in `gap`.
    """

    kind: str
    """The event name without its prefix: `operation.started`, `step.ended`, … or `snapshot`, `left`."""
    operation: OperationView
    revision: int = 0
    previous_durable: int = 0
    """The revision of the run's durable event before this one; 0: none."""
    previous_terminal: int = 0
    """The revision of the run's `operation.ended` before this one; 0: none."""
    time_unix_ns: int = 0
    """When it happened, by the writer's clock."""
    late: bool = False
    step: StepView | None = None
    """The step that started or ended, for `step.*`."""
    message: str | None = None
    level: str | None = None
    control_id: str | None = None
    control_action: str | None = None
    control_actor: str | None = None
    control_reason: str | None = None
    control_refusal: str | None = None
    folded: int | None = None
    gap: str | None = None
    """Client side only: this snapshot follows a gap, for this reason."""


RUN_ID_CHARS: Final = 49
NO_STEP_INDEX: Final = -1
"""`StepView.index` of the counts of an operation that has no steps."""


def run_id(trace_id: int, span_id: int) -> str:
    """The id of a run from the two integers of a span context."""
    return f"{trace_id:032x}-{span_id:016x}"
