"""What a tree answers: applied events with their revision, what it counted, and its limits."""

from __future__ import annotations

from typing import Final

import msgspec

from otelprogress.model import semconv
from otelprogress.model.bounds import Repairs
from otelprogress.model.events import Event, FeedEvent
from otelprogress.model.reduce import STEP_EVENTS
from otelprogress.model.state import RunState
from otelprogress.model.views import BaselineLookup, operation_view, step_view

TICK: Final = semconv.OPERATION_PROGRESSED
_SHORT_KIND: Final = {
    kind: kind.removeprefix(semconv.PREFIX) for kind in semconv.DURABLE_EVENTS | semconv.CONFLATED_EVENTS
}


class TreeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tree keeps and how long it waits. Seconds, counts."""

    keep_ended_s: float = 600.0
    max_runs: int = 100_000
    """Ended runs go first when there are more; live ones never go."""
    reorder_window_s: float = 1.0
    span_end_grace_s: float = 5.0
    foreign_notes_per_s: float = 10.0
    foreign_notes_burst: float = 100.0
    foreign_flush_s: float = 1.0
    """How long folded notes wait for the one that counts them."""
    max_depth: int = 256
    """A run deeper than this becomes a root."""
    max_held: int = 1024
    """Events of one run that may wait for their order; more end the wait."""


DEFAULT_LIMITS: Final = TreeLimits()


class TreeStats(msgspec.Struct, gc=False):
    """What was counted since the start."""

    applied: int = 0
    duplicates: int = 0
    stale: int = 0
    """Events that said nothing new, or something older than what is known."""
    after_end: int = 0
    """Ticks of runs that had ended."""
    late: int = 0
    incomplete: int = 0
    illegal: int = 0
    """Moves that the transition table does not have."""
    cycles: int = 0
    too_deep: int = 0
    overruled: int = 0
    """Span events of runs whose log events arrive."""
    foreign_folded: int = 0
    revived: int = 0
    evicted: int = 0
    alive: int = 0
    ancestors_touched: int = 0
    repairs: Repairs = msgspec.field(default_factory=Repairs)


class AnnouncedSpan(msgspec.Struct, frozen=True, gc=False):
    """What the start of a run said of its span."""

    parent_span_id: str
    """16 hex digits; empty: a root."""
    kind: str | None
    trace_state: str | None
    sampled: bool


class Applied(msgspec.Struct, frozen=True, gc=False):
    """One thing to publish."""

    event: FeedEvent
    source: Event
    """The event behind it: the writer's, or one that the tree made (then without writer and sequence)."""
    durable: bool
    terminal: bool


def publish(
    run: RunState, event: Event, now_ns: int, *, late: bool = False, baselines: BaselineLookup | None = None
) -> Applied:
    """Give an event that was applied its revision, and carry the state of its run after it."""
    kind = event.kind
    durable = kind != TICK
    terminal = kind == semconv.OPERATION_ENDED
    run.revision += 1
    revision = run.revision
    previous_durable, previous_terminal = run.durable_revision, run.terminal_revision
    if durable:
        run.durable_revision = revision
        if terminal:
            run.terminal_revision = revision
    view = operation_view(run, now_ns, baselines=baselines)
    if not durable:
        return Applied(
            FeedEvent(
                kind="operation.progressed",
                operation=view,
                revision=revision,
                previous_durable=previous_durable,
                previous_terminal=previous_terminal,
                time_unix_ns=event.time_unix_ns,
            ),
            event,
            durable=False,
            terminal=False,
        )
    step = None
    if kind in STEP_EVENTS and run.plan is not None:
        found = _said_step(run, event)
        step = None if found is None else step_view(run.plan.steps[found])
    return Applied(
        FeedEvent(
            kind=_SHORT_KIND[kind],
            operation=view,
            revision=revision,
            previous_durable=previous_durable,
            previous_terminal=previous_terminal,
            time_unix_ns=event.time_unix_ns,
            late=late,
            step=step,
            message=event.message,
            level=event.level,
            control_id=event.control_id,
            control_action=event.control_action,
            control_actor=event.control_actor,
            control_reason=event.control_reason,
            control_refusal=event.control_refusal,
            folded=event.folded,
        ),
        event,
        durable=True,
        terminal=terminal,
    )


def _said_step(run: RunState, event: Event) -> int | None:
    """The position of the step that an applied event was about."""
    plan = run.plan
    if plan is None:
        return None
    index, name = event.step_index, event.step_name
    if index is not None and 0 <= index < len(plan.steps) and (not name or plan.steps[index].name == name):
        return index
    if plan.by_name is not None and name:
        return plan.by_name.get(name)
    return next((record.index for record in plan.steps if record.name == name), None)
