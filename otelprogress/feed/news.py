"""When a wait is over: the words of the digest's first line, decided from one event."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from otelprogress.model.events import FeedEvent, OperationView, State

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
"""The `why` words of `feed.md`, and `changed` for what has no word of its own there (paused, a plain note)."""

_NEEDED: Final[dict[str, frozenset[str]]] = {
    "end": frozenset({"ended", "failed", "lost"}),
    "attention": frozenset({"ended", "failed", "lost", "warning", "input", "stalled", "resumed"}),
    "step": frozenset({"ended", "failed", "lost", "warning", "input", "stalled", "resumed", "step"}),
}


class News(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a wait."""

    reason: Reason
    operation: OperationView
    """As it stands."""
    event: FeedEvent | None = None
    """What ended the wait; `None`: it stood already, or nothing did."""
    cursor: str = ""
    """Give it to the next wait, so that nothing is missed between the two."""


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
    if event.kind == "operation.started":
        return "started"
    if event.kind.startswith("step."):
        return "step"
    return "changed"


def _outcome_word(view: OperationView) -> Reason:
    if view.state is State.LOST:
        return "lost"
    return "failed" if view.state is State.FAILED else "ended"
