"""One run, several feeds that tell of it: whose word is given on. Pure.

A process tells of its runs at once; a collector tells of the same runs a moment later, and goes on when the process is
gone. Each is shown once:

- The collector's word counts, as soon as it has caught up with what the process has said: from then on the process is
  not heard about that run. So no verdict about a process that ended can contradict a collector that knows better.
- An outcome that the process has said itself is first hand: no `lost` of a collector, which has only judged from outside
  and may hear the truth late or never, follows it or is given instead of it.
- A verdict of the reader itself, that a process is gone, is a guess: it is given only of what is shown as running, and
  never after a collector's outcome. One that the collector comes to as well is not told a second time.
- Durable events come once, whoever says them first. They are told by run, kind, step and the writer's time: both have
  them from the same writer.
- What came before the state that a collector begins with after a gap it does not say any more: a process that was read
  to a cursor, and goes on from there, does.
- Where the collector cannot be reached, the process is heard again, from the first event on that the collector has not
  said.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from otelprogress.model import semconv
from otelprogress.model.events import NO_STEP_INDEX, FeedEvent, OperationView, State

DURABLE_KINDS: Final = frozenset(kind.removeprefix(semconv.PREFIX) for kind in semconv.DURABLE_EVENTS)
_ENDED: Final = semconv.OPERATION_ENDED.removeprefix(semconv.PREFIX)
_CONCLUDED: Final = frozenset({_ENDED, semconv.OPERATION_STATE_CHANGED.removeprefix(semconv.PREFIX)})
_SNAPSHOT: Final = "snapshot"
_GUESSED_BY: Final = "pid"
"""The detector of a reader's own verdicts."""
TRUE_OUTCOMES: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
"""Those that a writer says itself: `lost` is said by others."""
MAX_RUNS: Final = 20_000
"""Runs whose speaker is known; beyond it the ones that ended, or were heard of first, are forgotten."""
MAX_GIVEN: Final = 100_000
"""Durable events that are known to have been given."""
MAX_OWED: Final = 10_000
"""Durable events of processes that a collector is waited for to say."""
_SAID, _LOST = "said", "lost"
"""Ends that are remembered by run beyond a cursor: an outcome that a writer said, and a verdict of anybody."""
_BEFORE: Final = ""
"""Stands for whichever feed gave an event before a cursor was saved."""


class Patience(NamedTuple):
    """For how many of the last durable events, and how long after each, its other feed may still say it too."""

    events: int
    for_ns: int


FOR_COLLECTOR: Final = Patience(64, 60_000_000_000)
"""It may have been away; then what it says late comes twice to a reader that went on from a cursor meanwhile."""
FOR_PROCESS: Final = Patience(64, 5_000_000_000)
"""It is quick to say what it says at all. But a reader that goes on from cursor to cursor in short visits, each over
as soon as the collector has said enough, may not come to read what it says for several of them."""
_WRITTEN: Final = {"c": FOR_COLLECTOR, "p": FOR_PROCESS}
"""How a cursor says which."""


class Owed(NamedTuple):
    """A durable event that was not given, because the collector is to say it."""

    feed: str
    event: FeedEvent


class _Run:
    __slots__ = (
        "covered_unix_ns",
        "gap_covered_unix_ns",
        "last_key",
        "lost_before",
        "outcome_given",
        "owed_guess",
        "owed_outcome",
        "shown",
        "speaker",
        "speaks_for_all",
    )

    def __init__(self) -> None:
        self.speaker = ""
        self.speaks_for_all = False
        """Whether the speaker is a collector."""
        self.shown: OperationView | None = None
        """As last given."""
        self.last_key = b""
        """Of the last durable event that was given."""
        self.owed_guess = b""
        """Of the reader's own verdict that waits for the collector to say something."""
        self.owed_outcome = b""
        """Of the process's own word about its end that waits likewise."""
        self.outcome_given = False
        """Whether an outcome that the writer said was given, whoever passed it on."""
        self.lost_before = False
        """Whether a verdict was given before a cursor was saved, and nothing since."""
        self.covered_unix_ns = 0
        """What the writer had said by then was given: as the state that it came to."""
        self.gap_covered_unix_ns = 0
        """A collector that missed something began with its state as of then: what led there it does not say any more."""


class Merge:
    """Decides about each event of several feeds, in the order in which they arrive.

    Feeds are told apart by names that outlive this object.

    Args:
        awaited: what `awaited` said when a cursor was saved from which the feeds go on.
    """

    def __init__(self, awaited: Mapping[str, int] | None = None) -> None:
        self._runs: dict[str, _Run] = {}
        self._given: dict[bytes, str] = {}
        self._owed: dict[bytes, Owed] = {}
        self._instead: list[Owed] = []
        self._awaited: dict[Patience, dict[bytes, int]] = {FOR_COLLECTOR: {}, FOR_PROCESS: {}}
        """Durable events that were given and that the other kind of feed may still say, with their times."""
        self._newest_unix_ns = 0
        for text, at_unix_ns in (awaited or {}).items():
            patience = _WRITTEN.get(text[:1])
            with contextlib.suppress(ValueError):  # of a later version
                if patience is not None:
                    key = bytes.fromhex(text[1:])
                    self._given[key] = _BEFORE
                    self._awaited[patience][key] = at_unix_ns
                    self._newest_unix_ns = max(self._newest_unix_ns, at_unix_ns)

    def begin(self, feed: str, view: OperationView, *, collector: bool) -> None:
        """A run was asked for at this feed before, and given as it stood there."""
        run = self._of(view.id)
        run.speaker, run.speaks_for_all, run.shown = feed, collector, view

    def take(self, feed: str, event: FeedEvent, *, collector: bool) -> bool:
        """Whether this event is to be given on.

        Args:
            feed: the name of the feed that says it.
            event: what it says.
            collector: whether that feed is a collector's.
        """
        run = self._of(event.operation.id)
        key = _key(event) if event.kind in DURABLE_KINDS else b""
        self._newest_unix_ns = max(self._newest_unix_ns, event.time_unix_ns)
        # Two events of one feed are two, however much they are alike.
        repeats = bool(key) and (self._given.get(key, feed) != feed or (collector and _covers(run, event)))
        self._awaited[FOR_COLLECTOR if collector else FOR_PROCESS].pop(key, None)
        if collector and self._contradicts(run, event, key):
            give = False
        elif collector:
            self._owed.pop(key, None)
            give = self._takes_collector(run, feed, event, key, repeats=repeats)
            if run.speaker == feed and not event.operation.live:
                self._owed.pop(run.owed_guess, None)
        elif _is_guess(event) and (
            run.outcome_given or run.lost_before or (run.shown is not None and not run.shown.live)
        ):
            give = False
        elif key and not repeats and not _is_guess(event) and event.time_unix_ns <= run.gap_covered_unix_ns:
            give = True
        elif run.speaks_for_all and not (_is_outcome(event) and _is_lost(run.shown)):
            give = False
            if key and not repeats:
                if _is_guess(event):
                    run.owed_guess = key
                elif _is_outcome(event):
                    run.owed_outcome = key
                self._owe(key, Owed(feed, event))
        else:
            if not run.speaks_for_all:
                run.speaker = feed
            give = not repeats
        if give:
            self._note_given(run, feed, event, key, FOR_PROCESS if collector else FOR_COLLECTOR)
        return give

    def instead(self) -> list[Owed]:
        """What is to be given in the place of the event that was refused last: a process's own word up to its end."""
        instead, self._instead = self._instead, []
        return instead

    def away(self, collector: str) -> list[Owed]:
        """A collector cannot be reached: what others said of its runs and it did not, to be given now."""
        for run in self._runs.values():
            if run.speaker == collector:
                run.speaker, run.speaks_for_all = "", False
        due = []
        for key, owed in list(self._owed.items()):
            run = self._of(owed.event.operation.id)
            if not run.speaks_for_all:
                del self._owed[key]
                if _is_guess(owed.event) and run.shown is not None and not run.shown.live:
                    continue
                due.append(owed)
                run.speaker = owed.feed
                self._note_given(run, owed.feed, owed.event, key, FOR_COLLECTOR)
        return due

    def awaited(self) -> dict[str, int]:
        """Durable events that were given and that another feed may still say, with their times, for a cursor."""
        return {
            mark + key.hex(): at_unix_ns
            for mark, patience in _WRITTEN.items()
            for key, at_unix_ns in self._awaited[patience].items()
            if at_unix_ns > self._newest_unix_ns - patience.for_ns
        }

    def _contradicts(self, run: _Run, event: FeedEvent, key: bytes) -> bool:
        """Whether a collector takes a run for lost, or for going on, whose end the process itself has said."""
        view = event.operation
        if view.state in TRUE_OUTCOMES or (key and event.kind not in _CONCLUDED):
            return False
        if not run.outcome_given and view.state is State.LOST:
            self._tell_outcome(run)
        return run.outcome_given

    def _tell_outcome(self, run: _Run) -> None:
        """Give what the process has said up to its end, where that waits for the collector to say it."""
        outcome = self._owed.get(run.owed_outcome)
        if outcome is None:
            return
        for key, owed in list(self._owed.items()):
            if owed.feed == outcome.feed and owed.event.operation.id == outcome.event.operation.id:
                del self._owed[key]
                self._note_given(run, owed.feed, owed.event, key, FOR_COLLECTOR)
                self._instead.append(owed)
            if owed is outcome:
                return

    def _takes_collector(self, run: _Run, feed: str, event: FeedEvent, key: bytes, *, repeats: bool) -> bool:
        if run.speaks_for_all and run.speaker != feed:
            return False  # another collector was first
        shown = run.shown
        if run.lost_before and event.kind == _ENDED and _is_lost(event.operation):
            run.speaker, run.speaks_for_all = feed, True
            return False
        if run.speaks_for_all:
            # What it says again it has said since, unless an outcome takes back a verdict of its own.
            changes = event.kind == _ENDED and _is_lost(shown) and not _is_lost(event.operation)
            return not repeats or changes
        if (
            event.kind == _ENDED
            and shown is not None
            and not shown.live
            and event.operation.state == shown.state
        ):
            # It comes to the outcome that is shown, if by another way and at another time: that is no second one.
            run.speaker, run.speaks_for_all = feed, True
            return False
        if repeats:
            # A process has said it. With the last one of those the collector has caught up.
            caught_up = key == run.last_key or run.shown is None
        else:
            caught_up = bool(key) or shown is None or not _is_behind(event.operation, shown)
        if caught_up:
            run.speaker, run.speaks_for_all = feed, True
        return caught_up and not repeats

    def _of(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            if len(self._runs) >= MAX_RUNS:
                self._forget_some()
            run = self._runs[run_id] = _Run()
            run.outcome_given = _end_key(run_id, _SAID) in self._given
            run.lost_before = self._given.get(_end_key(run_id, _LOST)) == _BEFORE
        return run

    def _note_given(self, run: _Run, feed: str, event: FeedEvent, key: bytes, patience: Patience) -> None:
        self._note_end(run, feed, event)
        run.shown = event.operation
        if event.kind == _SNAPSHOT and patience is FOR_COLLECTOR:
            # A process makes its snapshots by its own clock, which its writers use too.
            run.covered_unix_ns = event.operation.as_of_unix_ns
        elif event.kind == _SNAPSHOT and event.gap is not None:
            run.gap_covered_unix_ns = event.operation.as_of_unix_ns
        if key:
            run.last_key = key
            self._remember(key, feed, event.time_unix_ns, patience)

    def _note_end(self, run: _Run, feed: str, event: FeedEvent) -> None:
        view = event.operation
        if view.state in TRUE_OUTCOMES and not run.outcome_given:
            run.outcome_given = True
            self._remember(_end_key(view.id, _SAID), feed, event.time_unix_ns, FOR_COLLECTOR)
        if _is_lost(view) and not _is_lost(run.shown):
            self._remember(_end_key(view.id, _LOST), feed, event.time_unix_ns, FOR_COLLECTOR)
        elif view.live and (run.lost_before or _is_lost(run.shown)):  # it was heard again
            key = _end_key(view.id, _LOST)
            self._given.pop(key, None)
            self._awaited[FOR_COLLECTOR].pop(key, None)
        run.lost_before = False

    def _remember(self, key: bytes, feed: str, at_unix_ns: int, patience: Patience) -> None:
        self._given[key] = feed
        _trim(self._given, MAX_GIVEN)
        self._awaited[patience][key] = at_unix_ns
        _trim(self._awaited[patience], patience.events)

    def _owe(self, key: bytes, owed: Owed) -> None:
        self._owed[key] = owed
        _trim(self._owed, MAX_OWED)

    def _forget_some(self) -> None:
        ended = [run_id for run_id, run in self._runs.items() if run.shown is None or not run.shown.live]
        for run_id in (ended or list(self._runs))[: MAX_RUNS // 4]:
            del self._runs[run_id]


def first_hand(of_process: OperationView, of_collector: OperationView) -> OperationView:
    """One run as it stands, where a process and a collector have both been asked: the collector's word counts.

    But for the end that the process has seen and the collector has not been told of: it says that the run goes on, or
    took the silence for a loss. The handle is the collector's.

    Args:
        of_process: what the process says itself, or has written down.
        of_collector: what the collector says.
    """
    if of_process.state in TRUE_OUTCOMES and of_collector.state not in TRUE_OUTCOMES:
        return msgspec.structs.replace(of_process, handle=of_collector.handle)
    return of_collector


def _is_guess(event: FeedEvent) -> bool:
    """Whether it is the reader's own verdict about a process that is gone."""
    return event.kind == _ENDED and event.operation.lost_detector == _GUESSED_BY


def _is_outcome(event: FeedEvent) -> bool:
    """Whether it is a writer's own word about its end."""
    return event.kind == _ENDED and event.operation.state in TRUE_OUTCOMES


def _is_lost(view: OperationView | None) -> bool:
    return view is not None and view.state is State.LOST


def _covers(run: _Run, event: FeedEvent) -> bool:
    """Whether what was shown of a process includes this event of a collector."""
    shown, view = run.shown, event.operation
    if run.speaks_for_all or shown is None or event.time_unix_ns > run.covered_unix_ns:
        return False
    # What a collector concludes by itself no process has said, whatever its time.
    return event.kind not in _CONCLUDED or (view.state, view.stalled) == (shown.state, shown.stalled)


def _is_behind(view: OperationView, shown: OperationView) -> bool:
    """Whether a view is of an earlier moment than the one shown, as far as the two can tell.

    The hosts' clocks say when each heard of it, not when it was: what counts is how far the run itself has come.
    """
    if not view.live or not shown.live:
        return False
    return _distance(view) < _distance(shown)


def _distance(view: OperationView) -> tuple[float, int, float]:
    step = view.step
    index = step.index if step is not None else NO_STEP_INDEX
    completed = step.completed if step is not None else None
    return view.ratio or 0.0, index, completed or 0.0


def _key(event: FeedEvent) -> bytes:
    index = NO_STEP_INDEX if event.step is None else event.step.index
    said = f"{event.operation.id} {event.kind} {event.time_unix_ns} {index}"
    return hashlib.blake2b(said.encode(), digest_size=8).digest()


def _end_key(run_id: str, end: str) -> bytes:
    return hashlib.blake2b(f"{run_id} {end}".encode(), digest_size=8).digest()


def _trim(entries: dict[bytes, Any], most: int) -> None:
    while len(entries) > most:
        del entries[next(iter(entries))]
