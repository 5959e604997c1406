"""Bits flip and files end early: whatever happened to them, the store opens, serves only what was once written to it,
and says what it did.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelprogress_collector.store.interface import Batch
from otelprogress_collector.store.mark import MarkFile
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store import numbered
from tests.collector.store.rows import row, run, took

BATCHES = 14
BUDGET_S = 2.0
"""For each kind of damage to each file: what is not reached by then is reached by `make test-long`."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two copies of one store: closed, and as a kill leaves it, with half of it in the write-ahead log."""
    folder = tmp_path_factory.mktemp("written")
    store = SqliteStore(folder / "open", "disk")
    store.open()
    for number in range(1, BATCHES // 2):
        store.append(numbered.batch(number))
    store.close()
    store = SqliteStore(folder / "open", "disk")
    store.open()
    for number in range(BATCHES // 2, BATCHES + 1):
        store.append(numbered.batch(number))
    shutil.copytree(folder / "open", folder / "killed")
    store.close()
    (folder / "open").rename(folder / "closed")
    return folder


class Served:
    """What a store serves, each thing of it compared with what was once written."""

    def __init__(self, store: SqliteStore) -> None:
        self.opened = store.open()
        journal = list(store.journal_from(0))
        self.head = journal[-1].offset if journal else self.opened.head
        first = journal[0].offset if journal else self.head + 1
        assert journal == [row(offset, size=300) for offset in range(first, self.head + 1)]
        assert (self.opened.head, self.opened.first) == (self.head, first)
        assert store.journal_tail(1_000) == journal
        self.is_all = first == 1 and self.head == numbered.head_after(BATCHES)
        states = {(f"run-{number % numbered.RUNS}", b"%d" % number) for number in range(1, BATCHES + 1)}
        self.runs = {one.run_id: one.state for one in store.runs()}
        assert states >= set(self.runs.items())
        self.numbers = store.numbers()
        assert set(self.numbers) <= {"batch"}
        assert self.numbers.get("batch", 1) in range(1, BATCHES + 1)
        self.closed = store.closed()
        assert set(self.closed) <= {f"closed-{number}" for number in range(1, BATCHES + 1)}
        self.baseline = store.baseline("", "load", "")
        assert self.baseline is None or self.baseline.median_s == 1.0
        self.is_all = self.is_all and self.everything_else == (
            {
                f"run-{number % numbered.RUNS}": b"%d" % number
                for number in range(1, BATCHES + 1)
                if number != 5
            },
            {"batch": BATCHES},
            [f"closed-{number}" for number in range(1, BATCHES + 1)],
        )

    @property
    def everything_else(self) -> tuple:
        return (self.runs, self.numbers, self.closed)


def check_damaged(folder: Path, epoch: str, secret: bytes) -> None:
    store = SqliteStore(folder, "disk")
    try:
        served = Served(store)
        if not served.is_all or served.baseline is None:
            assert served.opened.epoch != epoch, served.opened
        if served.opened.epoch != epoch:
            assert any("a new epoch" in note for note in served.opened.notes)
        if served.opened.cursor_secret != secret:
            assert served.opened.notes
        assert len(served.opened.cursor_secret) == 32
        store.append(Batch(journal=[row(served.head + 1)], runs=[run("later")], durations=[took(1.0, 99)]))
    finally:
        store.close()
    again = SqliteStore(folder, "disk")
    try:
        opened = again.open()
        assert opened.notes == ()
        assert (opened.epoch, opened.head) == (served.opened.epoch, served.head + 1)
        assert again.journal_tail(1) == [row(served.head + 1)]
    finally:
        again.close()


def put_in_place(written: Path, folder: Path) -> None:
    """A copy of a store that takes itself for the original."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(written, folder, ignore=shutil.ignore_patterns("*-shm"))
    mark = MarkFile(folder / "collector.mark")
    said = mark.read()
    assert said is not None
    mark.write(said._replace(inode=(folder / "collector.sqlite3").stat().st_ino))
    mark.close()


def flip_a_bit(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ (1 << place % 8)]) + raw[place + 1 :]


def end_early(raw: bytes, place: int) -> bytes:
    return raw[:place]


def fill_a_page_with_zeros(raw: bytes, place: int) -> bytes:
    start = place // 4096 * 4096
    return raw[:start] + bytes(len(raw[start : start + 4096])) + raw[start + 4096 :]


def places(size: int, stride: int) -> Iterator[int]:
    """Each place once, far from each other first."""
    for start in range(stride):
        yield from range(start * 389 % stride, size, stride)


def damage_each(written: Path, name: str, scratch: Path, damage, *, budget_s: float) -> int:
    """Damage a file at one place after another until the time is over; how many."""
    put_in_place(written, scratch)
    store = SqliteStore(scratch, "disk")
    opened = Served(store).opened
    store.close()
    assert opened.notes == ()
    size = (written / name).stat().st_size
    end_s = time.monotonic() + budget_s
    for done, place in enumerate(places(size, stride=997)):
        if time.monotonic() > end_s:
            return done
        put_in_place(written, scratch)
        path = scratch / name
        path.write_bytes(damage(path.read_bytes(), place))
        try:
            check_damaged(scratch, opened.epoch, opened.cursor_secret)
        except BaseException:
            print(f"{written.name}/{name}: {damage.__name__} at {place} of {size}")
            raise
    return size


CASES = [
    ("closed", "collector.sqlite3"),
    ("killed", "collector.sqlite3"),
    ("killed", "collector.sqlite3-wal"),
    ("killed", "collector.mark"),
]


@pytest.mark.parametrize(("which", "name"), CASES)
@pytest.mark.parametrize("damage", [flip_a_bit, end_early, fill_a_page_with_zeros])
def test_damage_anywhere_is_survived_and_told(written, ram_path, which, name, damage):
    assert damage_each(written / which, name, ram_path / "store", damage, budget_s=BUDGET_S) > 10


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("which", "name"), CASES)
@pytest.mark.parametrize("damage", [flip_a_bit, end_early])
def test_damage_at_every_byte_is_survived_and_told(written, ram_path, which, name, damage):
    size = (written / which / name).stat().st_size
    assert damage_each(written / which, name, ram_path / "store", damage, budget_s=3_600) == size
