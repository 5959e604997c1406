"""What changed since a position, as a digest: read from the log and the state of a hub.

Pure: it keeps nothing, neither of readers nor of positions. What a reader knew is what the log says of the time up to its position.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import msgspec

from otelprogress.model import digest, news
from otelprogress.model.digest_budget import DEFAULT_MAX_TOKENS, LeftOut
from otelprogress.model.events import FeedEvent, OperationView, State
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.journal import Entry
from otelprogress.protocol.messages import Level
from otelprogress.protocol.position import read_position, short_position

MAX_OPERATIONS: Final = 1000
"""Of one digest, before its budget."""
MAX_EVENTS: Final = 500
"""Entries of the log that one digest reads in full; of older ones it only says how many."""
MAX_LOOKED_AT: Final = 8192
"""Entries of the log that one digest looks at: the state itself is told sooner than what so many of them come to."""
_LEAST_TOKENS: Final = 8
"""No operation takes less: `a-1 DONE in 2s`. More operations than fit need not be looked at."""
_BAD: Final = frozenset({State.FAILED, State.LOST})
_EVENT: Final = msgspec.json.Decoder(FeedEvent)


class Digest(NamedTuple):
    """One digest, and where the next one goes on."""

    text: str
    position: str
    """The short one that the text begins with, without its `@`."""
    offset: int
    """The same in the log of the hub."""
    why: digest.Why
    full: bool
    """It is the full state: there was no position, or none that can be gone on from."""
    operations: tuple[OperationView, ...]
    """What it is about; the budget may have left some out."""


def digest_since(
    hub: Hub,
    matcher: Matcher,
    since: str | None,
    now_unix_ns: int,
    *,
    run_ids: Sequence[str] | None = None,
    why: digest.Why | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    elapsed_s: float | None = None,
    unchanged_since: int | None = None,
    detail: bool = False,
) -> Digest:
    """The digest of what changed after a short position; of the full state where it is unknown, too old or too far back.

    Args:
        hub: its log and its state.
        matcher: whose rights count, and what is shown; asked before `run_ids`.
        since: `kq58` as a digest gave it, with or without `@`; `None`: the reader knows nothing. A reader with a position
            counts as knowing everything that matches as it was then.
        now_unix_ns: the host's clock.
        run_ids: these, in this order, whether they changed or not; ids that do not match are passed over. `None`: what
            the matcher matches, and after a position only what changed.
        why: what made it speak; `None`: the loudest of what happened.
        max_tokens: the budget.
        elapsed_s: since the last digest; `None`: unknown.
        unchanged_since: of `run_ids` leave out what neither changed since this change (`hub.changes`) nor has news: for
            a wait that is over because of its time. `None`: show them.
        detail: also the trace id of each operation.
    """
    offset = None if since is None else read_position(since, hub.epoch)
    shown = run_ids
    if run_ids is not None:
        shown = [run_id for run_id in dict.fromkeys(run_ids) if hub.matches(matcher, run_id)]
    return digest_from(
        hub,
        matcher,
        offset,
        now_unix_ns,
        only=shown,
        also=()
        if shown is None
        else [
            run_id for run_id in shown if unchanged_since is None or hub.change_of(run_id) > unchanged_since
        ],
        why=why,
        max_tokens=max_tokens,
        elapsed_s=elapsed_s,
        detail=detail,
    )


def digest_from(
    hub: Hub,
    matcher: Matcher,
    offset: int | None,
    now_unix_ns: int,
    *,
    only: Collection[str] | None = None,
    also: Sequence[str] = (),
    level: Level = "milestones",
    why: digest.Why | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    elapsed_s: float | None = None,
    detail: bool = False,
) -> Digest:
    """The same from an offset in the log.

    Args:
        hub: its log and its state.
        matcher: what is shown.
        offset: up to which everything was told; `None`, or one that is not within retention, or has more than
            `MAX_LOOKED_AT` entries after it: the full state.
        now_unix_ns: the host's clock.
        only: of what matches only these runs; `None`: all.
        also: runs to show although the log has nothing new of them, first and in this order.
        level: `terminal`: only ends are news.
        why: as for `digest_since`.
        max_tokens: the budget.
        elapsed_s: since the last digest.
        detail: also trace ids.
    """
    how = _How(why, max_tokens, elapsed_s, detail)
    if offset is None or not hub.ring.can_resume(offset) or hub.head - offset > MAX_LOOKED_AT:
        return _full(hub, matcher, now_unix_ns, only, how)
    changed = _Changed(hub, matcher, offset, only, level)
    events, untold = changed.events(min(MAX_EVENTS, max_tokens))
    known = changed.known()
    chosen, left_out = _choose(hub, dict.fromkeys([*also, *changed.run_ids()]), max_tokens)
    last = {event.operation.id: event.operation for event in events}
    views = []
    for run_id in chosen:
        is_changed = run_id in changed.first
        view = hub.view(run_id, now_unix_ns, steps=is_changed and run_id not in known)
        # The host forgot it meanwhile: the log still has its last word.
        view = view if view is not None else last.get(run_id)
        if view is not None:
            views.append(view)
            if not is_changed:
                known[run_id] = view
    return _rendered(hub, views, events, known, how, left_out._replace(changes=untold))


def changes_since(
    hub: Hub, matcher: Matcher, offset: int, now_unix_ns: int, run_ids: Collection[str]
) -> tuple[list[FeedEvent], dict[str, OperationView], int]:
    """What happened to these runs after an offset, oldest first; the runs as they were there, as far as they existed.

    For who goes on from a position and renders later. Of very many events the oldest are passed over; the third is how
    many.

    Raises:
        LookupError: something after the offset was forgotten.
    """
    seen = [run_id for run_id in run_ids if hub.matches(matcher, run_id)]
    changed = _Changed(hub, matcher, offset, seen, "milestones")
    known = changed.known()
    for run_id in seen:
        if run_id not in changed.first and (view := hub.view(run_id, now_unix_ns)) is not None:
            known[run_id] = view
    events, untold = changed.events(MAX_EVENTS)
    return events, known, untold


class _How(NamedTuple):
    why: digest.Why | None
    max_tokens: int
    elapsed_s: float | None
    detail: bool


def _full(hub: Hub, matcher: Matcher, now_unix_ns: int, only: Collection[str] | None, how: _How) -> Digest:
    more = 0
    if only is not None:
        found = [run_id for run_id in only if hub.matches(matcher, run_id)]
    else:
        found, more = hub.matching(matcher, now_unix_ns, MAX_OPERATIONS)
    chosen, left_out = _choose(hub, found, how.max_tokens)
    views = [view for run_id in chosen if (view := hub.view(run_id, now_unix_ns, steps=True)) is not None]
    return _rendered(hub, views, (), None, how, left_out._replace(operations=left_out.operations + more))


def _rendered(  # noqa: PLR0917 - the parts of one call
    hub: Hub,
    views: Sequence[OperationView],
    events: Sequence[FeedEvent],
    known: dict[str, OperationView] | None,
    how: _How,
    left_out: LeftOut,
) -> Digest:
    why = how.why if how.why is not None else news.why(events, known, views if known is None else ())
    position = short_position(hub.epoch, hub.head)
    text = digest.render(
        views,
        events,
        position=position,
        why=why,
        elapsed_s=how.elapsed_s,
        max_tokens=how.max_tokens,
        previously=known,
        left_out=left_out,
        detail=how.detail,
    )
    return Digest(text, position, hub.head, why, known is None, tuple(views))


def _choose(hub: Hub, run_ids: Collection[str], max_tokens: int) -> tuple[list[str], LeftOut]:
    """The runs that could fit, in their order, failures first where not all do; and what that leaves out."""
    room = max(1, max_tokens // _LEAST_TOKENS)
    if len(run_ids) <= room:
        return [*run_ids], LeftOut()
    bad = {run_id for run_id in run_ids if (facts := hub.facts(run_id)) is not None and facts.state in _BAD}
    kept = set(sorted(run_ids, key=lambda run_id: run_id not in bad)[:room])
    return (
        [run_id for run_id in run_ids if run_id in kept],
        LeftOut(operations=len(run_ids) - room, failed=len(bad - kept)),
    )


class _Changed:
    """The entries after a position that a reader is told of."""

    def __init__(
        self, hub: Hub, matcher: Matcher, offset: int, only: Collection[str] | None, level: Level
    ) -> None:
        self._hub = hub
        self._matcher = matcher
        self._offset = offset
        self.first: dict[str, Entry] = {}
        """The first entry after the position, of each run that has one, whatever the level."""
        self._told: list[tuple[int, Entry]] = []
        wanted = None if only is None else frozenset(only)
        for at, entry in hub.ring.read(offset):
            run_id = entry.after.id
            if entry.evicted or (wanted is not None and run_id not in wanted):
                continue
            before = entry.before
            if not matcher(entry.after) and (before is None or before is entry.after or not matcher(before)):
                continue
            self.first.setdefault(run_id, entry)
            if level != "terminal" or entry.terminal:
                self._told.append((at, entry))

    def run_ids(self) -> list[str]:
        """The runs that there is something to tell of: those that want attention first, then as they changed."""
        runs: dict[str, bool] = {}
        for _, entry in self._told:
            runs[entry.after.id] = runs.get(entry.after.id, False) or entry.attention
        return sorted(runs, key=lambda run_id: not runs[run_id])

    def events(self, limit: int) -> tuple[list[FeedEvent], int]:
        """The events, in order, and how many older ones were passed over; what wants attention is passed over last."""
        told = self._told
        if len(told) > limit:
            told = sorted(
                sorted(told, key=lambda item: (item[1].attention, item[0]))[-limit:], key=lambda item: item[0]
            )
        return [_EVENT.decode(entry.encoded) for _, entry in told], len(self._told) - len(told)

    def known(self) -> dict[str, OperationView]:
        """The runs as they were at the position, of those that the reader could know then."""
        missing = {
            run_id
            for run_id, entry in self.first.items()
            if entry.before is not None and self._matcher(entry.before)
        }
        known: dict[str, OperationView] = {}
        if missing:
            for _, entry in self._hub.ring.read_back(self._offset):
                run_id = entry.after.id
                if run_id in missing and not entry.evicted:
                    known[run_id] = _EVENT.decode(entry.encoded).operation
                    missing.discard(run_id)
                    if not missing:
                        break
        for run_id in missing:
            known[run_id] = _as_it_was(self.first[run_id])
        return known


def _as_it_was(first: Entry) -> OperationView:
    """A run before an entry where the one before it is past retention: what filters look at, and what follows from the event."""
    assert first.before is not None
    event = _EVENT.decode(first.encoded)
    state = first.before.state
    return msgspec.structs.replace(
        event.operation,
        state=state,
        ended_at_unix_ns=first.before.ended_at_unix_ns,
        revision=0,
        input_id=None,
        # A state that is said again without a stall says that it moves again.
        stalled=event.kind == "operation.state_changed"
        and event.operation.state is state
        and not event.operation.stalled,
        stalled_since_unix_ns=None,
    )
