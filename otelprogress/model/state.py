"""The states of operations and steps: which moves exist, and the records a host keeps of a run.

All moves stand in `OPERATION_TRANSITIONS` and `STEP_TRANSITIONS`; the diagram of the documentation is made from
them (`python -m otelprogress.model.state`). The records are mutable, without a lock and known only to the tree
that owns them; what leaves the tree are immutable views (`model.views`), and dumps that a host keeps
(`model.persistence`, where a new field of `RunState`, `Plan`, `Family` or `Writer` needs a place).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from otelprogress.exceptions import IllegalTransition
from otelprogress.model.carriers import Carrier
from otelprogress.model.estimate import Estimator
from otelprogress.model.events import OUTCOMES, State, StepState

OPERATION_TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.RUNNING: frozenset({State.WAITING, State.PAUSED, *OUTCOMES}),
    State.WAITING: frozenset({State.RUNNING, State.PAUSED, *OUTCOMES}),
    State.PAUSED: frozenset({State.RUNNING, State.WAITING, *OUTCOMES}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    # Out of an outcome there are two ways only: a lost run is heard again, or its true outcome arrives.
    State.LOST: frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
}

STEP_TRANSITIONS: Final[Mapping[StepState, frozenset[StepState]]] = {
    StepState.PENDING: frozenset({StepState.RUNNING, StepState.SKIPPED}),
    StepState.RUNNING: frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED}),
    # A step whose name is entered again continues.
    StepState.SUCCEEDED: frozenset({StepState.RUNNING}),
    StepState.FAILED: frozenset({StepState.RUNNING}),
    StepState.SKIPPED: frozenset({StepState.RUNNING}),
}

TRANSITIONS: Final[
    Mapping[str, Mapping[State, frozenset[State]] | Mapping[StepState, frozenset[StepState]]]
] = {
    "operation": OPERATION_TRANSITIONS,
    "step": STEP_TRANSITIONS,
}
"""Both tables by the subject that error messages name."""

STEPS_DONE: Final = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
IDLE_STATES: Final = frozenset({State.WAITING, State.PAUSED})
"""Live states in which nothing is expected to move: they never count as stalled, and their time is in no rate."""

_S = TypeVar("_S", State, StepState)


def check_transition(subject: str, table: Mapping[_S, frozenset[_S]], current: _S, requested: _S) -> None:
    """Say nothing when the move exists or stays where it is.

    Raises:
        IllegalTransition: the table has no such move; names both states.
    """
    if requested is not current and requested not in table[current]:
        raise IllegalTransition(subject, current.value, requested.value)


def check_operation(current: State, requested: State) -> None:
    """`check_transition` for an operation.

    Raises:
        IllegalTransition: no such move.
    """
    check_transition("operation", OPERATION_TRANSITIONS, current, requested)


def check_step(current: StepState, requested: StepState) -> None:
    """`check_transition` for a step.

    Raises:
        IllegalTransition: no such move.
    """
    check_transition("step", STEP_TRANSITIONS, current, requested)


def diagram() -> str:
    """Both tables as Markdown with two mermaid state diagrams, ending with a newline."""
    parts = []
    for subject, first, lines in (
        ("operation", State.RUNNING.value, _edges(OPERATION_TRANSITIONS)),
        ("step", StepState.PENDING.value, _edges(STEP_TRANSITIONS)),
    ):
        body = "\n".join(f"    {line}" for line in (f"[*] --> {first}", *lines))
        parts.append(
            f"### States of an {subject}\n" if subject == "operation" else f"### States of a {subject}\n"
        )
        parts.append(f"```mermaid\nstateDiagram-v2\n{body}\n```\n")
    return "\n".join(parts)


def _edges(table: Mapping[_S, frozenset[_S]]) -> list[str]:
    order = list(table)
    edges = []
    for current, targets in table.items():
        edges += [f"{current.value} --> {target.value}" for target in order if target in targets]
        if not targets:
            edges.append(f"{current.value} --> [*]")
    return edges


class StepRecord(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """One step of a run, or (index -1, empty name) the counts of a run without steps."""

    name: str
    index: int
    state: StepState = StepState.PENDING
    weight: float = 1.0
    completed: float | None = None
    total: float | None = None
    unit: str | None = None
    initial: float | None = None
    counters: dict[str, float] | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    counts_ns: int = 0
    """Time of the event that last said its counts, by the writer's clock; older ones change nothing."""
    moved_ns: int = 0
    """Time of the last event about it, likewise."""
    estimator: Estimator | None = None
    share: Share | None = None
    ratio: float | None = None
    soft: bool = False
    """Whether its part of the operation's ratio is a guess."""


class Share(msgspec.Struct, gc=False, omit_defaults=True):
    """What the children that started within one step (or beside all steps) have done, as sums.

    The sums make a child's move cost the same whatever the number of its siblings.
    """

    step_index: int = -1
    children: int = 0
    ended: int = 0
    weight: float = 0.0
    """Sum of the children's weights."""
    done: float = 0.0
    """Sum of weight x ratio, ended children with ratio 1."""
    live_ratio: float = 0.0
    """Sum of the ratios of the live children."""
    number: int = 0
    """Which of its parent's shares this is, for good: the step it stands for may move."""


class Plan(msgspec.Struct, gc=False):
    """The steps of a run."""

    steps: list[StepRecord]
    by_name: dict[str, int] | None = None
    """Only kept for many steps; few are searched one by one."""
    open: list[int] = msgspec.field(default_factory=list)
    """Indices of the running steps."""
    declared: bool = False
    """Whether the writer said its steps in advance. Otherwise nobody knows how many will follow."""
    folded: int = 0
    """Steps beyond the limit that share the last record."""
    current: int = -1
    current_by_tick: bool = False
    """Whether a tick said so, whose place among the durable events only its time tells."""
    weight: float = 0.0
    done: float = 0.0
    """Sum of weight x ratio over the steps."""
    finished: int = 0
    """Steps that succeeded or were skipped."""
    soft: int = 0


class Family(msgspec.Struct, gc=False):
    """The direct children of a run."""

    ids: dict[str, None] = msgspec.field(default_factory=dict)
    """Those the tree still holds, in order of arrival."""
    total: int = 0
    live: int = 0
    idle: int = 0
    """How many live children wait or pause, or have a descendant that does."""
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    share: Share | None = None
    """Of the children that started while no step was entered."""


class Extra(msgspec.Struct, gc=False, omit_defaults=True):
    """What only some runs have."""

    label: str | None = None
    attempt: int = 1
    controls: tuple[str, ...] = ()
    attributes: dict[str, str | bool | int | float] | None = None
    expected_children: int | None = None
    stall_after_s: float | None = None
    span_kind: str | None = None
    trace_state: str | None = None
    message: str | None = None
    level: str | None = None
    message_ns: int = 0
    warnings: int = 0
    error_type: str | None = None
    error_message: str | None = None
    result: str | None = None
    lost_detector: str | None = None
    lost_evidence_ns: int | None = None
    lost_cause: str | None = None
    input_id: str | None = None
    input_prompt: str | None = None
    input_schema: str | None = None
    input_default: str | None = None
    input_deadline_ns: int | None = None
    dropped: int = 0


class Writer(msgspec.Struct, gc=False):
    """One process incarnation that reports, shared by its runs."""

    id: str = ""
    service: str = ""
    process_id: int | None = None
    lease_s: float | None = None
    heard_ns: int = 0
    """Host's clock; `writer.alive` covers all its live runs at once."""
    live: dict[str, None] = msgspec.field(default_factory=dict)
    """Ids of its live runs; a dictionary takes half the memory of a set and keeps their order."""
    lost: dict[str, None] = msgspec.field(default_factory=dict)
    tenant: str = ""
    """Whose process: two tenants may run the same image, and ids are what a writer says of itself."""


class RunState(msgspec.Struct, gc=False, kw_only=True):
    """One run. References only lead upwards (run to parent), so no cycle needs the garbage collector.

    `_ns` are nanoseconds since the epoch: by the writer's clock for `started`, `ended`, `state`, `time`; by the
    host's for `heard` and `moved`.
    """

    id: str
    writer: Writer
    tenant: str = ""
    name: str = ""
    title: str = ""
    handle: str = ""
    spoken: bool = False
    """Whether it was published; before that only events that wait for its start are known."""
    state: State = State.RUNNING
    state_ns: int = 0
    state_by_tick: bool = False
    revision: int = 0
    durable_revision: int = 0
    terminal_revision: int = 0
    started_ns: int = 0
    ended_ns: int | None = None
    heard_ns: int = 0
    moved_ns: int = 0
    idle_since_ns: int | None = None
    idle_ns: int = 0
    stalled_since_ns: int | None = None
    stall_queued: bool = False
    plan: Plan | None = None
    counts: StepRecord | None = None
    said_ratio: float | None = None
    said_source: str | None = None
    ratio: float | None = None
    raw_ratio: float | None = None
    ratio_source: str | None = None
    weight: float = 1.0
    parent: RunState | None = None
    awaited_parent: str | None = None
    """Id of the parent it named, while nobody spoke as that."""
    parent_span_id: str = ""
    """As its start announced it, whether or not that span is an operation; empty: a root, or not said."""
    sampled: bool = True
    """Whether its span is: only then may anybody close that span for it."""
    share: Share | None = None
    """Where in its parent it counts."""
    contribution: float = 0.0
    """What it last added there."""
    counted_as: State | None = None
    """The outcome under which its parent counts it; `None`: live."""
    counted_idle: bool = False
    family: Family | None = None
    extra: Extra | None = None
    carrier: Carrier | None = None
    sequence: int = 0
    """High-water mark of its first writer."""
    log_seen: bool = False
    incomplete: bool = False

    @property
    def live(self) -> bool:
        """Whether it has no outcome yet."""
        return self.state not in OUTCOMES

    def details(self) -> Extra:
        """Its `Extra`, made when missing."""
        if self.extra is None:
            self.extra = Extra()
        return self.extra

    def current_step(self) -> StepRecord | None:
        """The step that moved last, else the counts of the run itself; `None`: it never had either."""
        plan = self.plan
        if plan is not None and plan.current >= 0:
            return plan.steps[plan.current]
        return self.counts


if __name__ == "__main__":
    sys.stdout.write(diagram())
