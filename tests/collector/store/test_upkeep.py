"""What goes on beside commits: the write-ahead log stays short, whatever else happens."""

from __future__ import annotations

import logging
import sqlite3
import threading

import pytest

from otelprogress_collector.store.interface import Batch
from otelprogress_collector.store.sqlite import SqliteStore
from otelprogress_collector.store.upkeep import Upkeep
from tests.collector.store.rows import ALL, offsets, row, rows, run
from tests.waiting import eventually

AFTER = 200_000


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "store", "disk", upkeep_after_bytes=AFTER)
    store.open()
    yield store
    store.close()


@pytest.fixture
def wal(tmp_path):
    return tmp_path / "store" / "collector.sqlite3-wal"


def append_some(store, mib: int) -> None:
    head = store.journal_tail(1)[-1].offset if store.journal_tail(1) else 0
    for offset in range(head + 1, head + 1 + mib * 20, 2):
        store.append(
            Batch(
                journal=rows(offset, offset + 1, size=50_000), runs=[run(f"run-{offset % 9}", b"x" * 2_000)]
            )
        )


def test_under_steady_load_the_write_ahead_log_begins_anew(store, wal):
    append_some(store, 20)
    eventually(lambda: store._parts.upkeep._appended_bytes < AFTER)
    assert wal.stat().st_size < 12_000_000
    assert offsets(store.journal_from(0)) == list(range(1, 401))


def test_a_reader_that_pauses_does_not_hold_it_up(store, wal):
    append_some(store, 4)
    reader = store.journal_from(0)
    first = next(reader)
    append_some(store, 20)
    assert wal.stat().st_size < 12_000_000
    assert offsets([first, *reader])[:80] == list(range(1, 81))


def test_closing_leaves_nothing_but_the_database(store, wal, tmp_path):
    append_some(store, 2)
    store.close()
    assert not wal.exists()
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        "collector.lock",
        "collector.mark",
        "collector.sqlite3",
    ]


def test_trouble_is_said_once_and_over_when_it_is_over(store, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    upkeep = store._parts.upkeep
    tried = []

    def checkpoint() -> None:
        tried.append(len(tried))
        if len(tried) < 4:
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(upkeep, "_checkpoint", checkpoint)
    for number in range(1, 6):
        upkeep.hurry()
        eventually(lambda: len(tried) >= number)
    assert [one.getMessage() for one in caplog.records] == [
        "upkeep of the store failed, it grows until it succeeds: database or disk is full"
    ]


def test_the_rest_is_carried_over_while_nothing_is_committed():
    """The last round, after which the log can begin anew, holds the lock that commits need."""
    writing = threading.Lock()
    rounds = []

    class Connection:
        left = [2_000, 900, 100, 0]

        def execute(self, statement):
            rounds.append(writing.locked())
            self.pages = (0, self.left[len(rounds) - 1], 0)
            return self

        def fetchone(self):
            return self.pages

        def close(self):
            pass

    upkeep = Upkeep(Connection(), writing, changes_bytes=0, after_bytes=1)
    upkeep.hurry()
    eventually(lambda: len(rounds) == 4)
    upkeep.close()
    assert rounds == [False, False, False, True]


def test_a_commit_between_two_steps_of_carrying_over_gets_its_turn(store):
    """While thousands of states are carried over, appends go on and are not put off to the end."""
    store.append(Batch(runs=[run(f"run-{number}", b"x" * 400) for number in range(20_000)]))
    changes = "SELECT count(*) FROM run_changes"
    appended_meanwhile = 0
    for offset in range(1, 10_000):
        store.append(Batch(journal=[row(offset)]))
        if store._parts.reader.execute(changes).fetchone()[0] == 0:
            break
        appended_meanwhile += 1
    assert appended_meanwhile > 5
    assert len(list(store.runs())) == 20_000
    assert store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=ALL) == offset
