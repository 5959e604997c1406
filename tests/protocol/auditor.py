"""Judges histories of hosts and clients by the guarantees of the feed, from outside.

It knows what hosts accepted and what callbacks saw, and shares no code with the filters, positions and
deduplication that it judges. `Violation` says what was broken and for whom.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.protocol.messages import Filter

Position = tuple[int, int]
"""(number of the epoch, offset)"""


class Violation(AssertionError):
    """A guarantee was broken."""


@dataclass(frozen=True)
class Accepted:
    """A durable event that a host accepted, and the run before and after it."""

    position: Position
    event: FeedEvent
    before: OperationView | None
    path: tuple[str, ...]
    """Its ancestors then."""


@dataclass
class Join:
    position: Position
    gap: str | None
    whole: bool


@dataclass
class History:
    """What one callback saw, in order, and how it was told."""

    name: str
    filter: Filter
    level: str
    start: Position | None
    """Where its cursor stood; `None`: it began with a snapshot."""
    seen: list[FeedEvent] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


def matches(view: OperationView, path: tuple[str, ...], wanted: Filter) -> bool:
    """The meaning of a filter, written a second time and plainly."""
    narrowed = (
        wanted.run or wanted.label or wanted.trace_id or wanted.name is not None or wanted.subtree is not None
    )
    roots = wanted.roots if wanted.roots is not None else not narrowed
    if roots and view.parent_id is not None:
        return False
    if wanted.run and view.id not in wanted.run and view.handle not in wanted.run:
        return False
    if wanted.label and view.label not in wanted.label:
        return False
    if wanted.state and view.state.value not in wanted.state:
        return False
    if wanted.subtree is not None and wanted.subtree not in (view.id, *path):
        return False
    if wanted.name is not None:
        assert wanted.name.endswith("*"), "the simulation only uses prefixes"
        if not view.name.startswith(wanted.name[:-1]):
            return False
    return all(view.attributes.get(key) == value for key, value in wanted.attributes.items())


def audit(history: History, accepted: list[Accepted], *, end: Position) -> None:
    """Check G1 and G2 for one callback, once everything up to `end` has been offered to it."""
    _strictly_rising(history)
    _exactly_once(history, accepted, end)
    _no_silent_join(history)


def _strictly_rising(history: History) -> None:
    newest: dict[str, int] = {}
    for event in history.seen:
        if event.kind == "left":
            continue
        run = event.operation.id
        if event.revision <= newest.get(run, 0):
            raise Violation(f"G1: {history.name} saw revision {event.revision} of {run} after {newest[run]}")
        if event.revision != event.operation.revision:
            raise Violation(
                f"{history.name}: event {event.revision} is owed a view of its own, not of {event.operation.revision}"
            )
        newest[run] = event.revision


def _exactly_once(history: History, accepted: list[Accepted], end: Position) -> None:
    delivered = Counter(
        (event.operation.id, event.revision)
        for event in history.seen
        if event.kind not in ("left", "snapshot")
    )
    shown: dict[str, int] = {}
    for event in history.seen:
        if event.kind == "snapshot":
            shown[event.operation.id] = max(shown.get(event.operation.id, 0), event.revision)
    covered = max((join.position for join in history.joins), default=(-1, 0))
    for item in accepted:
        run, revision = item.event.operation.id, item.event.revision
        if item.position > end or (history.start is not None and item.position <= history.start):
            continue
        wanted = matches(item.event.operation, item.path, history.filter) or (
            item.before is not None and matches(item.before, item.path, history.filter)
        )
        if not wanted or (history.level == "terminal" and item.event.kind != "operation.ended"):
            continue
        count = delivered[run, revision]
        if count > 1:
            raise Violation(f"G2: {history.name} got revision {revision} of {run} {count} times")
        if count == 0 and item.position > covered and shown.get(run, 0) < revision:
            raise Violation(
                f"G2: {history.name} never got {item.event.kind} {revision} of {run} at {item.position}"
            )


def _no_silent_join(history: History) -> None:
    for number, join in enumerate(history.joins):
        if join.gap is None and (number > 0 or history.start is not None):
            raise Violation(f"G2: {history.name} was given a snapshot in place of events, without a gap")
