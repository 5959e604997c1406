"""What is news, and how urgent: the `why` of a digest's first line and of a wait that is over, decided from one event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from otelprogress.model.events import FeedEvent, OperationView, State, StepState

Until = Literal["attention", "step", "change", "end"]
UNTIL: Final = ("attention", "step", "change", "end")

Reason = Literal[
    "started",
    "step",
    "warning",
    "input",
    "stalled",
    "resumed",
    "eta",
    "failed",
    "ended",
    "lost",
    "timeout",
    "changed",
]
"""Why somebody is told something; `changed` is what has no word of its own (paused, a plain note)."""

LOUDEST_FIRST: Final[tuple[Reason, ...]] = (
    "failed",
    "lost",
    "input",
    "warning",
    "stalled",
    "ended",
    "resumed",
    "step",
    "started",
    "eta",
    "changed",
)
"""Of several reasons at once the first of these is said."""

_NEEDED: Final[dict[str, frozenset[str]]] = {
    "end": frozenset({"ended", "failed", "lost"}),
    # That a stall or a question is over needs nobody: it is told with what comes next.
    "attention": frozenset({"ended", "failed", "lost", "warning", "input", "stalled"}),
    "step": frozenset({"ended", "failed", "lost", "warning", "input", "stalled", "resumed", "step"}),
}


def standing_reason(view: OperationView, until: Until, *, resumed: bool) -> Reason | None:
    """Why a wait is over before it begins; `None`: it is not.

    Args:
        view: the operation as it stands.
        until: what is waited for.
        resumed: whether what stands was told before: then only an outcome counts.
    """
    if not view.live:
        return _outcome_word(view)
    if view.input_id is not None and until != "end" and not resumed:
        return "input"
    return None


def news_reason(event: FeedEvent, before: OperationView, until: Until, *, resumed: bool) -> Reason | None:
    """Why a wait is over with this event; `None`: it goes on.

    Args:
        event: what happened, or a snapshot.
        before: the operation before it.
        until: what is waited for.
        resumed: as for `standing_reason`.
    """
    if event.kind == "snapshot" and event.gap is None and event.revision <= before.revision:
        return standing_reason(event.operation, until, resumed=resumed)
    reason = _word(event, before)
    if not before.live and event.operation.live and until != "end":
        return reason  # an outcome that was told is taken back
    return reason if until == "change" or reason in _NEEDED[until] else None


def _word(event: FeedEvent, before: OperationView) -> Reason:
    after = event.operation
    if not after.live:
        return _outcome_word(after)
    if after.input_id is not None and after.input_id != before.input_id:
        return "input"
    if after.stalled != before.stalled:
        return "stalled" if after.stalled else "resumed"
    if not before.live or (after.state is State.RUNNING and before.state in (State.PAUSED, State.WAITING)):
        return "resumed"
    if event.level in ("warning", "error") or after.warnings > before.warnings:
        return "warning"
    if event.kind == "control.refused":
        return "warning"  # somebody believes that it will be applied
    if event.kind == "operation.started":
        return "started"
    if event.kind.startswith("step."):
        return "step"
    return "eta" if _later_or_earlier(before, after) else "changed"


def _later_or_earlier(before: OperationView, after: OperationView) -> bool:
    """Whether the end is now expected at another time than it was: the two intervals have nothing in common."""
    was, now = before.eta, after.eta
    if was is None or now is None:
        return False
    passed_s = (after.as_of_unix_ns - before.as_of_unix_ns) / 1e9
    return now.low_s + passed_s > was.high_s or now.high_s + passed_s < was.low_s


def _outcome_word(view: OperationView) -> Reason:
    if view.state is State.LOST:
        return "lost"
    return "failed" if view.state is State.FAILED else "ended"


def wants_attention(event: FeedEvent) -> bool:
    """Whether it cannot wait for the next digest that is due: a warning, a question, a stall, a failure, an end.

    Decided without what was before: a state that is said again wants attention again.
    """
    view = event.operation
    if not view.live or event.kind == "input.requested" or event.level in ("warning", "error"):
        return True
    if event.kind == "step.ended":
        return event.step is not None and event.step.state is StepState.FAILED
    return event.kind == "operation.state_changed" and view.stalled


def why(
    events: Iterable[FeedEvent],
    previously: Mapping[str, OperationView] | None,
    views: Iterable[OperationView] = (),
) -> Reason:
    """The loudest reason to speak: what happened, or where nothing is known to have, what stands.

    Args:
        events: since the reader was told last, oldest first.
        previously: the operations as the reader knows them, by id; `None`: it knows nothing.
        views: the operations as they stand.
    """
    known = dict(previously or {})
    reasons: set[Reason] = set()
    for event in events:
        view = event.operation
        before = known.get(view.id)
        if before is not None:
            reason = news_reason(event, before, "change", resumed=True)
        else:
            reason = standing_reason(view, "attention", resumed=False) or "started"
        if reason is not None:
            reasons.add(reason)
        known[view.id] = view
    for view in views:
        before = known.get(view.id)
        if before is None:
            reasons.add(standing_reason(view, "attention", resumed=False) or "started")
        elif view.revision > before.revision:
            tick = FeedEvent(kind="operation.progressed", operation=view, revision=view.revision)
            reasons.add(_word(tick, before))
    return next((reason for reason in LOUDEST_FIRST if reason in reasons), "changed")
