"""From the hub to the store and back: what a commit cycle writes, and what a start reads. No clock, no event loop."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from otelprogress.model import semconv
from otelprogress.model.applied import TreeLimits
from otelprogress.model.events import FeedEvent, State, StepState
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.filters import Facts
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.journal import Entry, decode_facts, encode_facts
from otelprogress.protocol.messages import Limits
from otelprogress_collector.store.interface import Batch, Duration, JournalRow, Opened, RunRow, Store

if TYPE_CHECKING:
    from otelprogress.model.estimate import Baseline
    from otelprogress.model.tree import Applied

TICKED_EVERY_NS: Final = 10_000_000_000
"""How often the states of runs that only ticks moved are written: ticks themselves are never stored."""
TICKED_PER_CYCLE: Final = 2_000
BASELINE_KEPT_NS: Final = 60_000_000_000
BASELINES_PER_CYCLE: Final = 16
MAX_BASELINES: Final = 10_000
MAX_NUMBERS: Final = 100_000
"""Slugs whose last number is known; the longest unused begins again at 1 once it was forgotten."""
_START: Final = "/start"
"""Among the numbers of handles (no slug has a slash): how often this store was started with."""
_STEP_ENDED: Final = semconv.STEP_ENDED.removeprefix(semconv.PREFIX)
_ENDED: Final = semconv.OPERATION_ENDED.removeprefix(semconv.PREFIX)


class Baselines:
    """How long things usually take, as the store knows it; read between cycles, never while a view is made.

    The first who asks for a name gets `None`; from the next cycle on it is known, for a minute.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[int, Baseline | None]] = {}
        self._wanted: dict[tuple[str, str, str], None] = {}
        self._now_unix_ns = 0

    def __call__(self, tenant: str, name: str, step_name: str) -> Baseline | None:
        """What is known; what is not, or has grown old, is read with the next cycle."""
        key = (tenant, name, step_name)
        read_at, found = self._known.get(key, (0, None))
        if self._now_unix_ns - read_at >= BASELINE_KEPT_NS and len(self._wanted) < MAX_BASELINES:
            self._wanted[key] = None
        return found

    def learned(self, durations: Sequence[Duration]) -> None:
        """More is known of these names: they are read again when somebody asks, and what is known stands until then."""
        for one in durations:
            key = (one.tenant, one.name, one.step_name)
            if key in self._known:
                self._known[key] = (0, self._known[key][1])

    def refresh(self, store: Store, now_unix_ns: int) -> None:
        """Read some of what was asked for."""
        self._now_unix_ns = now_unix_ns
        if len(self._known) > MAX_BASELINES:
            self._known.clear()
        for _ in range(min(BASELINES_PER_CYCLE, len(self._wanted))):
            key = next(iter(self._wanted))
            del self._wanted[key]
            self._known[key] = (now_unix_ns, store.baseline(*key))


class Numbers:
    """The numbers of handles, by slug; what was given since the last batch is written with the next."""

    def __init__(self, given: dict[str, int]) -> None:
        self.changed: dict[str, int] = dict.fromkeys(list(given)[:-MAX_NUMBERS], 0)
        """What the store has to be told; 0: to forget it."""
        self._given = {slug: number for slug, number in given.items() if slug not in self.changed}

    def __call__(self, front: str) -> int:
        """The next number of a slug."""
        number = self._given.pop(front, 0) + 1
        if len(self._given) >= MAX_NUMBERS:
            oldest = next(iter(self._given))
            del self._given[oldest]
            self.changed[oldest] = 0
        self._given[front] = self.changed[front] = number
        return number


class Recorder:
    """Makes the batches of one store.

    Args:
        store: open.
        numbers: what the tree gives handles by.
        baselines: what the tree estimates by.
    """

    def __init__(self, store: Store, numbers: Numbers, baselines: Baselines) -> None:
        self._store = store
        self._numbers = numbers
        self._baselines = baselines
        self.closed: list[str] = []
        """Runs whose spans were closed since the last batch."""
        self._ticked: dict[str, None] = {}
        self._ticked_due_ns: int | None = None

    def next_deadline_unix_ns(self) -> int | None:
        """When states that only ticks moved are to be written; `None`: there are none."""
        return self._ticked_due_ns

    def begin(self, now_unix_ns: int) -> None:
        """A cycle begins: read what estimates will need."""
        self._baselines.refresh(self._store, now_unix_ns)

    def batch(
        self, hub: Hub, applied: Sequence[Applied], now_unix_ns: int, *, everything: bool = False
    ) -> Batch | None:
        """What has to be written for what the hub did since the last one; `None`: nothing.

        Args:
            hub: not touched until the batch is written.
            applied: of this cycle, in order.
            now_unix_ns: when the rows are appended.
            everything: also every state that only ticks moved: the last one before the end.
        """
        journal: list[JournalRow] = []
        forgotten: list[str] = []
        for offset, entry in hub.ring.take_unwritten():
            journal.append(_row(offset, entry, now_unix_ns))
            # One that was lost may have been heard again within the same cycle: then its state is wanted.
            if entry.evicted and entry.after.id not in hub.tree:
                forgotten.append(entry.after.id)
        changed, ticked = hub.tree.take_changed()
        for run_id in ticked:
            self._ticked[run_id] = None
        if self._ticked and self._ticked_due_ns is None:
            self._ticked_due_ns = now_unix_ns + TICKED_EVERY_NS
        due: list[str] = []
        if self._ticked_due_ns is not None and (everything or now_unix_ns >= self._ticked_due_ns):
            due = list(self._ticked) if everything else list(self._ticked)[:TICKED_PER_CYCLE]
            for run_id in due:
                del self._ticked[run_id]
            self._ticked_due_ns = now_unix_ns if self._ticked else None
        gone = set(forgotten)
        runs = [
            row for run_id in dict.fromkeys((*changed, *due)) if (row := self._run(hub, run_id)) is not None
        ]
        numbers, self._numbers.changed = self._numbers.changed, {}
        closed, self.closed = self.closed, []
        if not (journal or runs or forgotten or numbers or closed):
            return None
        durations = [one for each in applied for one in _durations(each.event)]
        self._baselines.learned(durations)
        return Batch(
            journal=journal,
            runs=[row for row in runs if row.run_id not in gone],
            forgotten=forgotten,
            durations=durations,
            numbers=numbers,
            closed=closed,
        )

    def _run(self, hub: Hub, run_id: str) -> RunRow | None:
        self._ticked.pop(run_id, None)
        state = hub.tree.dump(run_id)
        if state is None:  # evicted within the cycle
            return None
        ended = hub.tree.ended_at_unix_ns(run_id)
        return RunRow(run_id=run_id, state=state, live=ended is None, ended_at_unix_ns=ended)


def open_hub(
    store: Store,
    opened: Opened,
    now_unix_ns: int,
    *,
    ring_events: int = 65_536,
    limits: Limits | None = None,
    tree_limits: TreeLimits | None = None,
) -> tuple[Hub, Recorder]:
    """The hub as it stood when the store was last written, and what records it from here on.

    The ring is warmed from the journal, so that cursors survive a restart.

    Args:
        store: open, with `opened` as its answer.
        opened: epoch, keys and positions.
        now_unix_ns: of this start: leases run from here.
        ring_events: how many durable events are kept in memory.
        limits: of frames and sessions.
        tree_limits: of runs.

    Raises:
        StoreUnavailable: this start cannot be written down.
        InvalidRecord: a run or an entry that was kept cannot be read.
    """
    collecting = gc.isenabled()
    gc.disable()  # all that is made here is kept: looking for garbage among it is a sixth of the time
    try:
        return _open_hub(
            store, opened, now_unix_ns, ring_events=ring_events, limits=limits, tree_limits=tree_limits
        )
    finally:
        if collecting:
            gc.enable()


def _open_hub(
    store: Store,
    opened: Opened,
    now_unix_ns: int,
    *,
    ring_events: int,
    limits: Limits | None,
    tree_limits: TreeLimits | None,
) -> tuple[Hub, Recorder]:
    given = store.numbers()
    start = given.pop(_START, 0) + 1
    store.append(Batch(numbers={_START: start}))
    numbers, baselines = Numbers(given), Baselines()
    tree = OperationTree(
        next_number=numbers,
        limits=tree_limits if tree_limits is not None else TreeLimits(),
        baselines=baselines,
    )
    tree.restore((row.state for row in store.runs()), now_unix_ns, start=start)
    hub = Hub(
        tree,
        epoch=opened.epoch,
        cursor_key=CursorKey(opened.cursor_secret, opened.previous_cursor_secret),
        ring_events=ring_events,
        limits=limits,
    )
    entries: list[Entry] = []
    newest: dict[str, Facts] = {}
    for row in store.journal_tail(ring_events):
        after, before = decode_facts(row.facts, newest)
        entries.append(
            Entry(row.encoded, row.revision, after, before, terminal=row.terminal, evicted=row.evicted)
        )
    hub.restore_ring(opened.head, entries)
    hub.ring.keep_unwritten()
    return hub, Recorder(store, numbers, baselines)


def _row(offset: int, entry: Entry, now_unix_ns: int) -> JournalRow:
    return JournalRow(
        offset=offset,
        run_id=entry.after.id,
        revision=entry.revision,
        time_unix_ns=now_unix_ns,
        encoded=entry.encoded,
        facts=encode_facts(entry),
        terminal=entry.terminal,
        evicted=entry.evicted,
    )


def _durations(event: FeedEvent) -> list[Duration]:
    """What the history learns of one event: only of what succeeded, once."""
    view = event.operation
    if event.late:
        return []
    if event.kind == _ENDED:
        if view.state is not State.SUCCEEDED or view.ended_at_unix_ns is None:
            return []
        started, ended, step_name = view.started_at_unix_ns, view.ended_at_unix_ns, ""
    elif event.kind == _STEP_ENDED:
        step = event.step
        if (
            step is None
            or step.state is not StepState.SUCCEEDED
            or step.started_at_unix_ns is None
            or step.ended_at_unix_ns is None
        ):
            return []
        started, ended, step_name = step.started_at_unix_ns, step.ended_at_unix_ns, step.name
    else:
        return []
    return [
        Duration(
            tenant=view.tenant,
            name=view.name,
            step_name=step_name,
            duration_s=max(0, ended - started) / 1e9,
            outcome=State.SUCCEEDED.value,
            ended_at_unix_ns=ended,
        )
    ]
