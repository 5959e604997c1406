"""The SQLite store keeps the contract in both durabilities, and what it kept is there after a restart."""

from __future__ import annotations

import stat

import pytest

from otelprogress.model.estimate import Baseline
from otelprogress_collector.store.interface import Batch, StoreUnavailable
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.contract import StoreContract
from tests.collector.store.rows import ALL, append_each, offsets, row, rows, run, took


@pytest.fixture(params=["disk", "fsync"])
def durability(request):
    return request.param


@pytest.fixture
def make(tmp_path, durability):
    made = []

    def make(*, elsewhere: bool = False, **how) -> SqliteStore:
        store = SqliteStore(tmp_path / ("there" if elsewhere else "here"), durability, **how)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


class TestSqliteStore(StoreContract):
    pass


def test_everything_is_there_again_after_a_restart_under_the_same_epoch(make):
    store = make()
    first = store.open()
    store.append(
        Batch(
            journal=rows(1, 300),
            runs=[run("b"), run("a", b"\0binary")],
            numbers={"load": 3},
            durations=[took(1.0, at) for at in range(3)],
            closed=["z", "y"],
        )
    )
    append_each(store, rows(301, 305))
    store.close()
    store = make()
    again = store.open()
    assert (again.epoch, again.cursor_secret) == (first.epoch, first.cursor_secret)
    assert (again.head, again.first, again.notes) == (305, 1, ())
    assert list(store.journal_from(0)) == rows(1, 305)
    assert list(store.runs()) == [run("b"), run("a", b"\0binary")]
    assert store.numbers() == {"load": 3}
    assert store.closed() == ["z", "y"]
    assert store.baseline("", "load", "") == Baseline(1.0, 1.0, 1.0, 3)
    store.append(Batch(journal=[row(306)]))
    assert store.journal_tail(1) == [row(306)]


def test_a_journal_that_was_trimmed_away_goes_on_after_a_restart(make):
    store = make()
    epoch = store.open().epoch
    append_each(store, rows(1, 5))
    assert store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=ALL) == 5
    store.close()
    store = make()
    opened = store.open()
    assert (opened.epoch, opened.head, opened.first) == (epoch, 5, 6)
    store.append(Batch(journal=[row(6)]))
    assert offsets(store.journal_from(0)) == [6]


def test_both_cursor_secrets_are_there_after_a_restart(make):
    store = make()
    store.open()
    secret, previous = store.rotate_cursor_secret()
    store.close()
    opened = make().open()
    assert (opened.cursor_secret, opened.previous_cursor_secret) == (secret, previous)


def test_directory_and_files_are_this_users_alone(make, tmp_path):
    store = make()
    store.open()
    store.append(Batch(journal=rows(1, 3)))
    assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "here").iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"collector.sqlite3", "collector.sqlite3-wal", "collector.mark", "collector.lock"} <= set(modes)


@pytest.mark.parametrize(
    "batch",
    [
        Batch(journal=[row(1, time_unix_ns=1 << 64)]),
        Batch(journal=[row(1)], runs=[run("a"), run("b", ended_at_unix_ns=1 << 64)]),
        Batch(journal=[row(1)], runs=[run("\ud800")]),
        Batch(journal=[row(1)], numbers={"load": 1 << 64}),
        Batch(journal=[row(1, run_id="\ud800")]),
        Batch(journal=[row(1)], durations=[took(1.0, 1 << 64)]),
        Batch(journal=[row(1)], closed=["\ud800"]),
    ],
    ids=["time", "ended at", "run id", "number", "journal's run id", "duration", "closed"],
)
def test_a_value_that_cannot_be_kept_is_refused_and_nothing_of_the_batch_is_written(make, batch):
    store = make()
    store.open()
    with pytest.raises(ValueError):
        store.append(batch)
    assert list(store.journal_from(0)) == []
    assert list(store.runs()) == []
    store.append(Batch(journal=[row(1)]))
    assert store.journal_tail(9) == [row(1)]


def test_a_second_collector_is_told_who_has_the_directory(make):
    import os

    make().open()
    with pytest.raises(StoreUnavailable, match=rf"in use by another collector \(process {os.getpid()}\)"):
        make().open()


def test_the_directory_is_free_again_after_close_and_after_an_open_that_failed(make, tmp_path):
    store = make()
    store.open()
    store.close()
    (tmp_path / "here" / "collector.mark").unlink()
    (tmp_path / "here" / "collector.mark").mkdir()
    with pytest.raises(StoreUnavailable, match="collector.mark"):
        make().open()
    (tmp_path / "here" / "collector.mark").rmdir()
    assert make().open().head == 0
