"""All runs that one host knows: takes events in, answers with what to publish.

`OperationTree` puts the parts together: what may count and in which order (`carriers`), what it does to a run
(`reduce`), what follows for its ancestors (`rollup`), what is published (`views`), and what the passing of time
causes. It reads no clock and holds no lock: its host calls it from one thread at a time. It is long because it
is the one owner of the state; what can be decided without the state stands in the modules named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from otelprogress.exceptions import IllegalTransition
from otelprogress.model import semconv
from otelprogress.model.applied import (
    DEFAULT_LIMITS,
    TICK,
    AnnouncedSpan,
    Applied,
    TreeLimits,
    TreeStats,
    publish,
)
from otelprogress.model.bounds import check_durable, check_run_id, refused_run_id, repaired
from otelprogress.model.carriers import Carrier, Lane, admit, give_up
from otelprogress.model.changes import Changes
from otelprogress.model.events import OUTCOMES, Event, OperationView, Source, State
from otelprogress.model.evicted import Evicted
from otelprogress.model.handles import Handles
from otelprogress.model.hearsay import Hearsay
from otelprogress.model.kinship import Kinship
from otelprogress.model.persistence import dump_run, restore_runs
from otelprogress.model.reduce import MOVED, reduce
from otelprogress.model.rollup import propagate
from otelprogress.model.stalls import StallWatch
from otelprogress.model.state import RunState, Writer
from otelprogress.model.timetable import Timetable
from otelprogress.model.views import BaselineLookup, identity_view, operation_view
from otelprogress.model.writers import Writers

__all__ = ["Applied", "OperationTree", "TreeLimits", "TreeStats"]

_SIGNS_OF_LIFE: Final = frozenset(
    {TICK, semconv.STEP_STARTED, semconv.STEP_ENDED, semconv.OPERATION_NOTED, semconv.INPUT_REQUESTED}
)
"""What only a process that lives says: it takes a verdict of `lost` back."""
_REVIVED_BY_ALIVE: Final = frozenset({"link", "keepalive", "lease", "pid"})
"""Detectors that judged from outside. The others are the writer's own last word."""
_OF_SPANS: Final = frozenset({Source.SPAN_END, Source.SPAN_EVENT})


class OperationTree:
    """The runs of one host.

    Args:
        next_number: n of the handle `slug-n`; `None` counts in memory.
        limits: what to keep, how long to wait.
        baselines: durations of earlier runs, for the ETA and for stalls; `None`: no history.
    """

    def __init__(
        self,
        *,
        next_number: Callable[[str], int] | None = None,
        limits: TreeLimits = DEFAULT_LIMITS,
        baselines: BaselineLookup | None = None,
    ) -> None:
        self.limits = limits
        self.stats = TreeStats()
        self._baselines = baselines
        self._handles = Handles(next_number)
        self._runs: dict[str, RunState] = {}
        self._spoken = 0
        self._kinship = Kinship(limits.max_depth, self.stats)
        self._writers = Writers()
        self._ended: dict[str, int] = {}
        self._evicted = Evicted()
        self._owed: set[str] = set()
        """Restored runs of which nobody knows what readers were shown last."""
        self._changes: Changes | None = None
        self._start = 0
        """Which start of its host this is, among those that share a store."""
        self._hearsay = Hearsay()
        self._windows = Timetable()
        self._stalls = StallWatch(baselines)
        self._window_ns = int(limits.reorder_window_s * 1e9)
        self._grace_ns = int(limits.span_end_grace_s * 1e9)
        self._flush_ns = int(limits.foreign_flush_s * 1e9)

    # --- taking events in ------------------------------------------------------------------------------------

    def apply(self, event: Event, now_unix_ns: int) -> list[Applied]:
        """Take one event in.

        Args:
            event: from a writer, by any carrier.
            now_unix_ns: the host's clock.

        Returns:
            What to publish, in order: nothing for a duplicate, a stale event or one that has to wait (`stats`
            counts them); several when it released others, revived its run or ended a stall, its own or an
            ancestor's.

        Raises:
            InvalidRecord: the event breaks the conventions; nothing was changed.
        """
        kind = event.kind
        if kind == semconv.WRITER_ALIVE:
            return self._alive(event, now_unix_ns)
        if kind == semconv.STEPS_FOLDED:
            return []
        if kind != TICK:
            check_durable(event)
        run = self._runs.get(event.run_id)
        if run is None:
            run = self._create(event, now_unix_ns)
            if run is None:
                self.stats.after_end += 1
                return []
        elif run.tenant != event.tenant:
            # Another tenant's: in the words of an id that cannot be, for nobody learns what others have.
            raise refused_run_id(run.id)
        source = event.source
        if source is Source.LOG:
            if run.carrier is not None and run.carrier.hearsay:
                self._overrule(run, run.carrier, start_too=run.spoken or kind == semconv.OPERATION_STARTED)
            if not run.log_seen:
                run.log_seen = True
                if self._changes is not None:
                    self._changes.mark(run.id, durably=True)
        elif run.log_seen and _is_overruled(run, event):
            self.stats.overruled += 1
            return []
        if event.writer_id or not run.writer.id:
            self._writers.hear(run, event, now_unix_ns)
        if source in _OF_SPANS and _waits(run, event):
            return self._hold_hearsay(run, event, now_unix_ns)
        if kind == TICK:
            if self._changes is not None and run.live:
                # Also where it says nothing new: the times of what it repeats move.
                self._changes.mark(run.id, durably=False)
            if not run.spoken:
                return self._hold(run, event, now_unix_ns)
            return self._commit(run, event, now_unix_ns, late=False)
        if self._changes is None:
            return self._apply_durable(run, event, now_unix_ns)
        duplicates = self.stats.duplicates
        applied = self._apply_durable(run, event, now_unix_ns)
        if applied or self.stats.duplicates == duplicates:
            # Also what publishes nothing: it waits, is folded, or only moves the high-water mark.
            self._changes.mark(run.id, durably=True)
        return applied

    def _apply_durable(self, run: RunState, event: Event, now_ns: int) -> list[Applied]:
        number = event.sequence
        if number is None:
            carrier = _carrier(run)
            if carrier.seen(event):
                self.stats.duplicates += 1
                return []
            if event.source is Source.FOREIGN and not self._within_rate(run, carrier, event, now_ns):
                return []
            if not run.spoken and event.name is None and event.kind != semconv.OPERATION_STARTED:
                return self._hold(run, event, now_ns)
            return self._commit_spoken(run, event, now_ns)
        return self._apply_sequenced(run, event, number, now_ns)

    def _apply_sequenced(self, run: RunState, event: Event, number: int, now_ns: int) -> list[Applied]:
        if (run.carrier is None or not run.carrier.lanes) and event.writer_id == run.writer.id:
            # The ordinary case: one writer, everything in order.
            if number == run.sequence + 1:
                run.sequence = number
                return self._commit_spoken(run, event, now_ns)
            if number <= run.sequence:
                self.stats.duplicates += 1
                return []
        carrier = _carrier(run)
        if not carrier.lanes:
            carrier.lanes.append(Lane(run.writer.id, run.sequence))
        lane = carrier.lane(event.writer_id)
        ready = admit(lane, event, number)
        if ready is None:
            self.stats.duplicates += 1
            return []
        if not ready:
            if len(lane.held) > self.limits.max_held:
                return self._end_window(run, carrier, now_ns)
            self._open_window(run, carrier, now_ns)
            return []
        return [
            applied
            for each, late in ready
            for applied in (
                self._commit(run, each, now_ns, late=True) if late else self._commit_spoken(run, each, now_ns)
            )
        ]

    def _commit_spoken(self, run: RunState, event: Event, now_ns: int) -> list[Applied]:
        applied = self._commit(run, event, now_ns, late=False)
        if run.carrier is not None and run.carrier.loose and run.spoken:
            applied += self._release_loose(run, run.carrier, now_ns)
        return applied

    def _create(self, event: Event, now_ns: int) -> RunState | None:
        check_run_id(event.run_id)
        if self._evicted.is_over(event.run_id):
            return None
        run = RunState(id=event.run_id, tenant=event.tenant, writer=self._writers.of(event), heard_ns=now_ns)
        run.revision = self._evicted.heard_again(run.id)
        self._runs[run.id] = run
        return run

    def _alive(self, event: Event, now_ns: int) -> list[Applied]:
        self.stats.alive += 1
        lease_s = self._writers.lease_s(event.writer_id, event.tenant)
        writer = self._writers.alive(event, now_ns)
        if self._changes is not None and writer is not None and writer.lease_s != lease_s:
            for run_id in writer.live:
                self._changes.mark(run_id, durably=True)
        applied: list[Applied] = []
        for run_id in () if writer is None else tuple(writer.lost):
            run = self._runs.get(run_id)
            if run is not None and run.extra is not None and run.extra.lost_detector in _REVIVED_BY_ALIVE:
                applied += self._revive(run, event, now_ns)
        return applied

    # --- one event that counts now ----------------------------------------------------------------------------

    def _commit(self, run: RunState, event: Event, now_ns: int, *, late: bool) -> list[Applied]:
        event = repaired(event, now_ns, self.stats.repairs)
        tick = event.kind == TICK
        applied: list[Applied] = []
        if not run.spoken and event.kind != semconv.OPERATION_STARTED:
            applied = self._start_by_span(run, now_ns)
        if not run.spoken:
            self._speak(run, event, now_ns)
        elif run.state in OUTCOMES:
            if run.state is State.LOST and not late and self._gainsays(run, event):
                applied += self._revive(run, event, now_ns)
            elif tick:
                self.stats.after_end += 1
                return []
            elif event.kind == semconv.OPERATION_STATE_CHANGED and run.state is State.LOST and not late:
                pass
            elif event.kind != semconv.OPERATION_ENDED or run.state is not State.LOST:
                late = True
        was_live = run.live
        was_stalled_ns = run.stalled_since_ns
        labelled = run.extra.label if run.extra is not None else None
        try:
            flags = reduce(run, event, late=late)
        except IllegalTransition:
            self.stats.illegal += 1
            if run.handle:
                return applied
            flags = 0  # its first word is nonsense, yet it is there
        if (
            not flags
            and run.handle
            and (tick or event.sequence is None or (late and event.kind == semconv.OPERATION_ENDED))
        ):
            self.stats.stale += 1
            return applied
        if run.extra is not None and run.extra.label is not labelled and run.handle:
            self._handles.label(run)
        if run.live is not was_live:
            self._settle(run, now_ns)
        moved = bool(flags & MOVED)
        if moved:
            run.moved_ns = now_ns
            if run.stalled_since_ns is not None and was_stalled_ns is not None:
                applied.append(self._stall(run, now_ns, stalled=False))
        if not run.handle:
            self._handles.give(run)
        unwatched: list[RunState] = []
        if run.parent is not None:
            touched, unwatched = propagate(run, now_ns, moved=moved)
            self.stats.ancestors_touched += touched
            if self._changes is not None:
                self._changes.mark_ancestors(run, touched, durably=not tick)
        self._stalls.watch(run, now_ns)
        if late:
            self.stats.late += 1
        applied.append(self._publish(run, event, now_ns, late=late))
        for ancestor in unwatched:
            if moved and ancestor.stalled_since_ns is not None:
                applied.append(self._stall(ancestor, now_ns, stalled=False))
            self._stalls.watch(ancestor, now_ns)
        return applied

    def _gainsays(self, run: RunState, event: Event) -> bool:
        if event.kind not in _SIGNS_OF_LIFE or event.source is not Source.LOG:
            return False
        evidence_ns = run.extra.lost_evidence_ns if run.extra is not None else None
        return event.time_unix_ns > (evidence_ns if evidence_ns is not None else run.ended_ns or 0)

    def _revive(self, run: RunState, cause: Event, now_ns: int) -> list[Applied]:
        """A lost run is heard again: the one way back into life, said by a durable event."""
        event = Event(
            kind=semconv.OPERATION_STATE_CHANGED,
            run_id=run.id,
            time_unix_ns=max(cause.time_unix_ns, run.ended_ns or 0),
            tenant=run.tenant,
            state=State.RUNNING,
        )
        self.stats.revived += 1
        return self._commit(run, event, now_ns, late=False)

    def _speak(self, run: RunState, event: Event, now_ns: int) -> None:
        """A run is heard of for the first time: it gets its place in the tree."""
        run.spoken = True
        self._spoken += 1
        if run.log_seen and run.carrier is not None and run.carrier.hearsay:
            self._overrule(run, run.carrier, start_too=True)
        run.state_ns = 0
        run.started_ns = event.start_unix_ns if event.start_unix_ns is not None else event.time_unix_ns
        run.moved_ns = now_ns
        self._writers.enlist(run)
        if event.weight is not None:
            run.weight = event.weight
        run.parent_span_id, run.sampled = event.parent_span_id or "", event.sampled
        self._kinship.place(run, event.parent_span_id or "", self._runs)
        self._kinship.adopt(run, self._runs, now_ns)
        if self._changes is not None:
            if run.family is None:
                self._changes.mark_ancestors(run, 1, durably=True)
            else:
                self._changes.mark_ancestors(run, self.limits.max_depth, durably=True)
                for child_id in run.family.ids:
                    self._changes.mark(child_id, durably=True)

    def _settle(self, run: RunState, now_ns: int) -> None:
        """A run ended, or came back from being lost."""
        self._ended.pop(run.id, None)
        if run.live:
            self._writers.enlist(run)
            return
        self._ended[run.id] = now_ns
        self._writers.discharge(run)
        carrier = run.carrier
        if carrier is not None and not (run.state is State.LOST and _knows_better(carrier.closing)):
            carrier.closing = carrier.closes_ns = None

    def _publish(self, run: RunState, event: Event, now_ns: int, *, late: bool) -> Applied:
        self.stats.applied += 1
        if self._changes is not None:
            self._changes.mark(run.id, durably=event.kind != TICK)
        return publish(run, event, now_ns, late=late, baselines=self._baselines)

    # --- waiting for order ------------------------------------------------------------------------------------

    def _hold(self, run: RunState, event: Event, now_ns: int) -> list[Applied]:
        """An event without sequence came before its run's start: wait for it, but not for long."""
        carrier = _carrier(run)
        if event.kind == TICK:
            carrier.loose = [
                held
                for held in carrier.loose
                if held.kind != TICK
                or held.step_name != event.step_name
                or held.time_unix_ns > event.time_unix_ns
            ]
        carrier.loose.append(event)
        if len(carrier.loose) > self.limits.max_held:
            return self._end_window(run, carrier, now_ns)
        self._open_window(run, carrier, now_ns)
        return []

    def _open_window(self, run: RunState, carrier: Carrier, now_ns: int) -> None:
        if carrier.window_ends_ns is None:
            carrier.window_ends_ns = now_ns + self._window_ns
            if carrier.closes_ns is not None and not run.log_seen:
                # A note that others wrote is no log event of the run: it does not make its span be told sooner.
                carrier.window_ends_ns = max(carrier.window_ends_ns, carrier.closes_ns)
            self._windows.add(carrier.window_ends_ns, run.id)

    def _end_window(self, run: RunState, carrier: Carrier, now_ns: int) -> list[Applied]:
        carrier.window_ends_ns = None
        if self._changes is not None:
            self._changes.mark(run.id, durably=True)
        applied: list[Applied] = []
        for lane in carrier.lanes:
            for event in give_up(lane):
                if not run.incomplete:
                    run.incomplete = True
                    self.stats.incomplete += 1
                applied += self._commit(run, event, now_ns, late=False)
        return applied + self._release_loose(run, carrier, now_ns)

    def _release_loose(self, run: RunState, carrier: Carrier, now_ns: int) -> list[Applied]:
        loose = sorted(carrier.loose, key=lambda event: event.time_unix_ns)
        carrier.loose = []
        return [applied for event in loose for applied in self._commit(run, event, now_ns, late=False)]

    def _within_rate(self, run: RunState, carrier: Carrier, event: Event, now_ns: int) -> bool:
        limits = self.limits
        if carrier.take_note(now_ns, limits.foreign_notes_per_s, limits.foreign_notes_burst):
            return True
        carrier.folded += 1 + (event.folded or 0)  # its process may have folded some already
        carrier.folded_last = event
        self.stats.foreign_folded += 1
        if carrier.flush_ns is None:
            carrier.flush_ns = now_ns + self._flush_ns
            self._windows.add(carrier.flush_ns, run.id)
        return False

    def _flush_notes(self, run: RunState, carrier: Carrier, now_ns: int) -> list[Applied]:
        last, count = carrier.folded_last, carrier.folded
        carrier.folded, carrier.folded_last, carrier.flush_ns = 0, None, None
        if last is None:
            return []
        return self._commit(run, msgspec.structs.replace(last, folded=count - 1), now_ns, late=False)

    # --- what only its span said --------------------------------------------------------------------------------

    def _hold_hearsay(self, run: RunState, event: Event, now_ns: int) -> list[Applied]:
        """The span of a run says something that a log event may say better: wait for that, but not for long."""
        carrier = _carrier(run)
        ends = event.kind == semconv.OPERATION_ENDED and event.source is Source.SPAN_END
        # An event on the span may say the very same as its end, and is no repetition of that.
        if (event == carrier.closing) if ends else carrier.seen(event):
            self.stats.duplicates += 1
            return []
        if ends:
            carrier.seen(event)
            carrier.closing = event
        else:
            carrier.hearsay.append(event)
            self._hearsay.holds(run.id, len(carrier.hearsay))
        if ends or carrier.closes_ns is None:
            carrier.closes_ns = now_ns + self._grace_ns
            self._windows.add(carrier.closes_ns, run.id)
        if self._changes is not None:
            self._changes.mark(run.id, durably=True)
        if len(carrier.hearsay) > self.limits.max_held:
            return self._believe_span(run, carrier, now_ns)
        applied: list[Applied] = []
        while (run_id := self._hearsay.excess()) is not None:
            longest = self._runs[run_id]
            applied += self._believe_span(longest, _carrier(longest), now_ns)
        return applied

    def _believe_span(self, run: RunState, carrier: Carrier, now_ns: int) -> list[Applied]:
        """Nobody said it better in time: what its span said counts, in order."""
        if self._changes is not None:
            self._changes.mark(run.id, durably=True)
        self._hearsay.holds(run.id, 0)
        applied: list[Applied] = []
        for event in carrier.take_hearsay():
            if event.sequence is None or event.kind == TICK:
                applied += self._commit(run, event, now_ns, late=False)
            else:
                applied += self._apply_sequenced(run, event, event.sequence, now_ns)
        return applied

    def _start_by_span(self, run: RunState, now_ns: int) -> list[Applied]:
        """A run has to appear by something else than its start: by what its span said of that, where it did."""
        carrier = run.carrier
        start = None if carrier is None else carrier.take_start()
        if carrier is None or start is None:
            return []
        self._hearsay.holds(run.id, len(carrier.hearsay))
        return self._commit(run, start, now_ns, late=False)

    def _overrule(self, run: RunState, carrier: Carrier, *, start_too: bool) -> None:
        """Log events of a run arrive: its span says nothing but its end, and its start until they say that too."""
        self.stats.overruled += carrier.overrule(start_too=start_too)
        self._hearsay.holds(run.id, len(carrier.hearsay))
        if self._changes is not None:
            self._changes.mark(run.id, durably=True)

    # --- the passing of time ----------------------------------------------------------------------------------

    def advance(self, now_unix_ns: int) -> list[Applied]:
        """What time alone causes: stalls, reorder windows that are over, what only spans said, folded notes."""
        applied: list[Applied] = []
        for run_id in self._windows.due(now_unix_ns):
            run = self._runs.get(run_id)
            if run is not None and run.carrier is not None:
                if self._changes is not None:
                    self._changes.mark(run_id, durably=True)
                applied += self._advance_carrier(run, run.carrier, now_unix_ns)
        for run in self._stalls.due(now_unix_ns, self._runs):
            applied.append(self._stall(run, now_unix_ns, stalled=True))
        return applied

    def _advance_carrier(self, run: RunState, carrier: Carrier, now_ns: int) -> list[Applied]:
        applied: list[Applied] = []
        if carrier.window_ends_ns is not None:
            if carrier.window_ends_ns <= now_ns:
                applied += self._end_window(run, carrier, now_ns)
            else:
                self._windows.add(carrier.window_ends_ns, run.id)
        if carrier.closes_ns is not None:
            if carrier.closes_ns <= now_ns:
                applied += self._believe_span(run, carrier, now_ns)
            else:
                self._windows.add(carrier.closes_ns, run.id)
        if carrier.flush_ns is not None:
            if carrier.flush_ns <= now_ns and run.spoken:
                applied += self._flush_notes(run, carrier, now_ns)
            else:
                if not run.spoken:
                    carrier.flush_ns = now_ns + self._flush_ns
                self._windows.add(carrier.flush_ns, run.id)
        return applied

    def next_deadline_unix_ns(self) -> int | None:
        """When `advance` should be called next, to 0.13 s; `None`: nothing waits."""
        first, second = self._windows.next_unix_ns(), self._stalls.next_unix_ns()
        if first is None or second is None:
            return first if second is None else second
        return min(first, second)

    def _stall(self, run: RunState, now_ns: int, *, stalled: bool) -> Applied:
        run.stalled_since_ns = run.moved_ns if stalled else None
        event = Event(
            kind=semconv.OPERATION_STATE_CHANGED,
            run_id=run.id,
            time_unix_ns=now_ns,
            tenant=run.tenant,
            state=run.state,
            stalled=stalled,
        )
        return self._publish(run, event, now_ns, late=False)

    # --- looking at runs --------------------------------------------------------------------------------------

    def view(self, run_id: str, now_unix_ns: int, *, steps: bool = False) -> OperationView | None:
        """A run as it stands, with all its steps where asked; `None`: not known. No side effects."""
        run = self._runs.get(run_id)
        if run is None or not run.spoken:
            return None
        return operation_view(run, now_unix_ns, steps=steps, baselines=self._baselines)

    def identity(self, run_id: str) -> OperationView | None:
        """Of a run only what filters look at (`views.identity_view`); `None`: not known. No side effects."""
        run = self._runs.get(run_id)
        return None if run is None or not run.spoken else identity_view(run)

    def touch(self, run_id: str, now_unix_ns: int) -> int:
        """Give a run that its children changed a revision of its own, before it is shown.

        Returns:
            The new revision; 0: not known.
        """
        run = self._runs.get(run_id)
        if run is None or not run.spoken:
            return 0
        run.revision += 1
        if self._changes is not None:
            self._changes.mark(run_id, durably=False)
        return run.revision

    def durable_revisions(self, run_id: str) -> tuple[int, int]:
        """The revisions of a run's last durable event and of its last `operation.ended`; 0: none."""
        run = self._runs.get(run_id)
        return (0, 0) if run is None else (run.durable_revision, run.terminal_revision)

    def resolve(self, text: str, tenant: str = "") -> str:
        """The id of the run of a tenant that a handle, an id, a label or a unique prefix means.

        Raises:
            UnknownOperation: nothing matches.
            AmbiguousOperation: several match; lists the candidates.
        """
        return self._handles.resolve(text, self._runs, tenant)

    def tenant_of(self, run_id: str) -> str | None:
        """Whose run it is, also of one of which only its span was heard so far; `None`: not known."""
        run = self._runs.get(run_id)
        if run is None or not (run.spoken or (run.carrier is not None and run.carrier.closes_ns is not None)):
            return None
        return run.tenant

    def children(self, run_id: str) -> Iterator[str]:
        """The direct children that are still kept, in order of arrival."""
        run = self._runs.get(run_id)
        return iter(()) if run is None or run.family is None else iter(tuple(run.family.ids))

    def ancestors(self, run_id: str) -> Iterator[str]:
        """Parent, its parent, and so on: those whose ratio a change of this run may have moved."""
        run = self._runs.get(run_id)
        while run is not None and (run := run.parent) is not None:
            yield run.id

    def roots(self) -> Iterator[str]:
        """Runs without a known parent, in order of arrival."""
        return (run.id for run in self._runs.values() if run.parent is None and run.spoken)

    def run_ids(self) -> Iterator[str]:
        """All runs, in order of arrival."""
        return (run.id for run in self._runs.values() if run.spoken)

    def runs_of_writer(self, writer_id: str, tenant: str = "") -> Iterator[str]:
        """The live runs of one process incarnation of a tenant."""
        return self._writers.live_runs(writer_id, tenant)

    def writers(self) -> Iterator[Writer]:
        """The processes that answer for a live run: when each was last heard, and what lease it gave."""
        return self._writers.answerable()

    def __len__(self) -> int:
        return self._spoken

    def __contains__(self, run_id: object) -> bool:
        run = self._runs.get(run_id) if isinstance(run_id, str) else None
        return run is not None and run.spoken

    def span_facts(self, run_id: str) -> AnnouncedSpan | None:
        """What a run's start announced of its span, for whoever has to end it; `None`: not known."""
        run = self._runs.get(run_id)
        if run is None or not run.spoken:
            return None
        extra = run.extra
        return AnnouncedSpan(
            parent_span_id=run.parent_span_id,
            kind=extra.span_kind if extra is not None else None,
            trace_state=extra.trace_state if extra is not None else None,
            sampled=run.sampled,
        )

    # --- forgetting -------------------------------------------------------------------------------------------

    def evict(self, now_unix_ns: int) -> list[str]:
        """Forget runs that ended long ago, and the oldest ended ones beyond the limit. Returns their ids.

        Live runs never go, nor does an ended one while it has live children.
        """
        horizon_ns = now_unix_ns - int(self.limits.keep_ended_s * 1e9)
        evicted: list[str] = []
        for run_id, ended_ns in list(self._ended_until(horizon_ns)):
            run = self._runs[run_id]
            if ended_ns > horizon_ns and len(self._runs) <= self.limits.max_runs:
                break
            if run.family is not None and run.family.live:
                continue
            self._forget(run)
            evicted.append(run_id)
        self.stats.evicted += len(evicted)
        return evicted

    def _ended_until(self, horizon_ns: int) -> Iterable[tuple[str, int]]:
        over = len(self._runs) - self.limits.max_runs
        for position, (run_id, ended_ns) in enumerate(self._ended.items()):
            if ended_ns > horizon_ns and position >= over:
                return
            yield run_id, ended_ns

    def _forget(self, run: RunState) -> None:
        del self._runs[run.id]
        self._ended.pop(run.id, None)
        self._spoken -= 1
        self._handles.forget(run)
        self._writers.forget(run)
        self._kinship.forget(run, self._runs)
        if self._changes is not None:
            self._changes.forget(run.id)
            for child_id in () if run.family is None else run.family.ids:
                self._changes.mark(child_id, durably=True)
        self.remember_evicted(run.id, run.revision if run.state is State.LOST else None)

    def remember_evicted(self, run_id: str, lost_revision: int | None) -> None:
        """Let late repetitions not bring a run back that was evicted, by this host or by one before it.

        Args:
            run_id: unless it is here again.
            lost_revision: the last one of a run that was lost: it may be heard again, and goes on from there.
        """
        if run_id not in self._runs:
            self._evicted.remember(run_id, lost_revision)

    def evicted_revision(self, run_id: str) -> int:
        """The last revision of an evicted run that was lost; 0: of any other."""
        return self._evicted.revision(run_id)

    # --- surviving the process --------------------------------------------------------------------------------

    def track_changes(self) -> None:
        """Remember from here on which runs changed, for a host that asks with `take_changed` again and again."""
        if self._changes is None:
            self._changes = Changes()

    def take_changed(self) -> tuple[list[str], list[str]]:
        """Runs that changed since the last call: those to be written down at once, and those that can wait.

        The second are runs that only ticks changed (or looks at them): what a crash takes of that, the next tick
        says again. Evicted runs are in neither. Empty unless `track_changes` was called.
        """
        return ([], []) if self._changes is None else self._changes.take()

    def dump(self, run_id: str) -> bytes | None:
        """A run as `restore` takes it; `None`: not known."""
        run = self._runs.get(run_id)
        if run is None:
            return None
        return dump_run(run, ended_at_unix_ns=self._ended.get(run_id), start=self._start)

    def ended_at_unix_ns(self, run_id: str) -> int | None:
        """When a run's end came, by the host's clock; `None`: it lives, or is not known."""
        return self._ended.get(run_id)

    def restore(
        self,
        dumps: Iterable[bytes],
        now_unix_ns: int,
        *,
        start: int | None = None,
        revision_stride: int = 1 << 20,
        quiet_s: float = 45.0,
    ) -> None:
        """Go on where another tree was when its runs were dumped. Changes are tracked from here on.

        Revisions of runs that ticks may have moved since are raised, so that those that readers were shown are
        given to nothing else. What a writer could not say while nobody listened is no silence: leases run from now.

        Args:
            dumps: of every run once, in order of arrival as far as it matters to anybody.
            now_unix_ns: the host's clock.
            start: a number that rises with every start of the host, written down before it is used. `None`: one
                above what the dumps say; all runs whose revision was raised are then in the next `take_changed`,
                and have to be written before anybody looks.
            revision_stride: how many revisions a run may have had since it was dumped, within one start.
            quiet_s: how long nothing is concluded from silence: no stall, no hole given up, no span believed.

        Raises:
            InvalidRecord: a dump that cannot be read; it names the run where that is known.
            ValueError: `start` is not above that of a dump, or this tree holds runs already.
        """
        if self._runs:
            raise ValueError("only an empty tree can be restored")
        restored = restore_runs(dumps, now_unix_ns, start=start, revision_stride=revision_stride)
        self._changes = Changes()
        self._runs, self._ended, self._owed = restored.runs, restored.ended, set(restored.raised)
        self._start = restored.start
        quiet_until_ns = now_unix_ns + int(quiet_s * 1e9)
        deadlines: list[tuple[int, str]] = []
        for run in self._runs.values():
            if run.carrier is not None:
                deadlines += ((deadline_ns, run.id) for deadline_ns in run.carrier.postpone(quiet_until_ns))
                if run.carrier.hearsay:
                    self._hearsay.holds(run.id, len(run.carrier.hearsay))
            if run.awaited_parent is not None:
                self._kinship.wait(run, run.awaited_parent)
            if not run.spoken:
                continue
            self._spoken += 1
            if run.handle:
                self._handles.take_over(run)
            if run.live:
                self._writers.enlist(run)
                self._stalls.watch(run, quiet_until_ns)
        for deadline_ns, run_id in sorted(deadlines):
            self._windows.add(deadline_ns, run_id)
        for run_id in self._ended:
            if self._runs[run_id].state is State.LOST:
                self._writers.discharge(self._runs[run_id])
        if start is None:
            for run_id in restored.raised:
                self._changes.mark(run_id, durably=True)

    def take_owed(self) -> set[str]:
        """Restored runs that readers may have been shown in another state than theirs, newer or older; told once."""
        owed, self._owed = self._owed, set()
        return owed


def _is_overruled(run: RunState, event: Event) -> bool:
    """Whether what a span says is said by log events, which arrive: all that is on it, and its start."""
    if event.source is Source.SPAN_END:
        return event.kind == semconv.OPERATION_STARTED and bool(run.name)
    return event.source is Source.SPAN_EVENT


def _waits(run: RunState, event: Event) -> bool:
    """Whether what a span says waits for a log event that says it better.

    All of it until the first one came, the start until the run has appeared, the end until the run has ended.
    """
    if not run.live:
        return False
    return not (run.log_seen and run.spoken) or event.kind == semconv.OPERATION_ENDED


def _knows_better(closing: Event | None) -> bool:
    """Whether the end of a span, which waits, has an outcome where others only saw that its process is gone."""
    return closing is not None and closing.state is not State.LOST


def _carrier(run: RunState) -> Carrier:
    if run.carrier is None:
        run.carrier = Carrier()
    return run.carrier
