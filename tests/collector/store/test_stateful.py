"""Stores against a model in plain Python: whatever is done in whatever order, also after a restart."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otelprogress_collector.store.durations import Took, baseline_of
from otelprogress_collector.store.interface import Batch, RunRow
from otelprogress_collector.store.memory import MemoryStore
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.rows import ALL, row, run, took

NAMES = st.sampled_from("abcdef")
TIMES = st.integers(0, 50)


class Model:
    """What a store should hold."""

    def __init__(self) -> None:
        self.batches: list[list] = []
        self.head = 0
        self.runs: dict[str, RunRow] = {}
        self.numbers: dict[str, int] = {}
        self.closed: list[str] = []
        self.durations: dict[str, list[Took]] = {}

    @property
    def journal(self) -> list:
        return [one for batch in self.batches for one in batch]

    def append(self, batch: Batch) -> None:
        if batch.journal:
            self.batches.append(list(batch.journal))
            self.head = batch.journal[-1].offset
        for run_id in batch.forgotten:
            self.runs.pop(run_id, None)
        self.runs.update((one.run_id, one) for one in batch.runs)
        self.numbers.update(batch.numbers)
        self.closed += [one for one in dict.fromkeys(batch.closed) if one not in self.closed]
        for one in batch.durations:
            if one.outcome == "succeeded":
                kept = self.durations.setdefault(one.name, [])
                kept.append(Took(one.ended_at_unix_ns, one.duration_s))

    def trim(self, older_than_unix_ns: int, keep_from: int, *, whole_batches: bool) -> int:
        dropped = 0
        units = self.batches if whole_batches else [[one] for one in self.journal]
        while units:
            oldest = units[0]
            if (
                oldest[-1].offset >= keep_from
                or max(one.time_unix_ns for one in oldest) >= older_than_unix_ns
            ):
                break
            dropped += len(oldest)
            units = units[1:]
        self.batches = units
        return dropped

    def baseline(self, name: str):
        return baseline_of(sorted(self.durations.get(name, ()))[-100:])


class StoreMachine(RuleBasedStateMachine):
    durability = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.model = Model()

    def make(self):
        if self.durability == "memory":
            return MemoryStore()
        return SqliteStore(self.folder / "store", self.durability, upkeep_after_bytes=40_000, tail_offsets=5)

    @initialize()
    def begin(self) -> None:
        self.store = self.make()
        self.opened = self.store.open()
        assert self.opened.head == 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(
        times=st.lists(TIMES, max_size=6),
        states=st.dictionaries(NAMES, st.binary(max_size=300), max_size=3),
        forgotten=st.lists(NAMES, max_size=2),
        numbers=st.dictionaries(NAMES, st.integers(1, 99), max_size=2),
        closed=st.lists(NAMES, max_size=2),
        durations=st.lists(
            st.tuples(NAMES, st.floats(0, 10), TIMES, st.sampled_from(["succeeded", "failed"])), max_size=4
        ),
    )
    def append(self, times, states, forgotten, numbers, closed, durations) -> None:
        batch = Batch(
            journal=[
                row(self.model.head + 1 + number, time_unix_ns=time) for number, time in enumerate(times)
            ],
            runs=[run(name, state) for name, state in states.items()],
            forgotten=forgotten,
            numbers=numbers,
            closed=closed,
            durations=[took(took_s, at, name=name, outcome=how) for name, took_s, at, how in durations],
        )
        self.store.append(batch)
        self.model.append(batch)

    @rule(wrong=st.integers(-3, 3).filter(bool))
    def append_with_a_hole(self, wrong) -> None:
        batch = Batch(journal=[row(self.model.head + 1 + wrong)], runs=[run("a", b"wrong")], forgotten=["b"])
        with pytest.raises(ValueError):
            self.store.append(batch)

    @rule(older_than=st.integers(0, 60), keep_back=st.integers(0, 10))
    def trim(self, older_than, keep_back) -> None:
        keep_from = max(1, self.model.head - keep_back + 1)
        how = {"older_than_unix_ns": older_than, "max_bytes": ALL, "keep_from": keep_from}
        dropped = self.store.trim(**how)
        assert dropped == self.model.trim(older_than, keep_from, whole_batches=self.durability != "memory")
        assert self.store.trim(**how) == 0

    @rule()
    def restart(self) -> None:
        if self.durability == "memory":
            return
        self.store.close()
        self.store = self.make()
        opened = self.store.open()
        journal = self.model.journal
        assert opened.epoch == self.opened.epoch
        assert opened.notes == ()
        assert opened.head == self.model.head
        assert opened.first == (journal[0].offset if journal else self.model.head + 1)

    @rule(back=st.integers(0, 20))
    def read(self, back) -> None:
        journal = self.model.journal
        offset = max(0, self.model.head - back)
        assert list(self.store.journal_from(offset)) == [one for one in journal if one.offset > offset]
        assert self.store.journal_tail(back) == (journal[-back:] if back else [])

    @rule()
    def look_on(self) -> None:
        assert self.store.probe()
        assert self.store.verify().first_bad is None
        assert self.store.rotate_cursor_secret()[1]

    @invariant()
    def it_holds_what_it_should(self) -> None:
        assert list(self.store.journal_from(0)) == self.model.journal
        assert list(self.store.runs()) == list(self.model.runs.values())
        assert self.store.numbers() == self.model.numbers
        assert self.store.closed() == self.model.closed
        for name in "abcdef":
            assert self.store.baseline("", name, "") == self.model.baseline(name)


class DiskMachine(StoreMachine):
    durability = "disk"


class FsyncMachine(StoreMachine):
    durability = "fsync"


def case(machine: type[StoreMachine], examples: int):
    machine.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return machine.TestCase


TestMemory = case(StoreMachine, 60)
TestDisk = case(DiskMachine, 60)
TestFsync = case(FsyncMachine, 15)
