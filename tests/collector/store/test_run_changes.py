"""States of runs go by a log into their table, and nobody who reads them sees a difference."""

from __future__ import annotations

import contextlib
import random
import sqlite3

import pytest

from otelprogress_collector.store import run_changes
from otelprogress_collector.store.interface import Batch
from otelprogress_collector.store.memory import MemoryStore
from otelprogress_collector.store.run_changes import Changes, fold, read_runs
from otelprogress_collector.store.schema import transaction
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.rows import run
from tests.collector.store.test_opening import change, opened
from tests.waiting import eventually


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "store", "disk")
    store.open()
    yield store
    store.close()


@pytest.fixture
def connection(store, tmp_path):
    with contextlib.closing(
        sqlite3.connect(tmp_path / "store" / "collector.sqlite3", isolation_level=None)
    ) as connection:
        connection.text_factory = bytes
        yield connection


def fold_all(connection) -> int:
    steps = fold(connection)
    number = 0
    while True:
        with transaction(connection):
            if next(steps, connection) is connection:
                return number
        number += 1


def in_table(connection) -> list[str]:
    return [run_id.decode() for (run_id,) in connection.execute("SELECT run_id FROM runs ORDER BY place")]


def test_the_newest_state_of_each_run_is_carried_over(store, connection):
    store.append(Batch(runs=[run("b", b"1"), run("a", b"1")]))
    store.append(Batch(runs=[run("b", b"2"), run("c", b"1")]))
    assert in_table(connection) == []
    fold_all(connection)
    assert in_table(connection) == ["b", "a", "c"]
    assert connection.execute("SELECT count(*) FROM run_changes").fetchone() == (0,)
    assert list(store.runs()) == [run("b", b"2"), run("a", b"1"), run("c", b"1")]


def test_what_is_carried_over_keeps_its_place_and_what_was_forgotten_comes_back_at_the_end(store, connection):
    store.append(Batch(runs=[run("a"), run("b"), run("c")]))
    fold_all(connection)
    store.append(Batch(forgotten=["a", "b"]))
    store.append(Batch(runs=[run("c", b"2"), run("a", b"2")]))
    before = list(store.runs())
    fold_all(connection)
    assert list(store.runs()) == before == [run("c", b"2"), run("a", b"2")]


def test_appending_goes_on_while_it_is_carried_over(store, connection, monkeypatch):
    monkeypatch.setattr(run_changes, "FOLD_SLICE_RUNS", 10)
    store.append(Batch(runs=[run(f"run-{number:03}") for number in range(100)]))
    steps = fold(connection)
    for number in range(11):
        with transaction(connection):
            next(steps)
        store.append(Batch(runs=[run(f"run-{number:03}", b"newer")], forgotten=[f"run-{number + 50:03}"]))
        kept = {one.run_id: one.state for one in store.runs()}
        assert [kept[f"run-{one:03}"] for one in range(number + 1)] == [b"newer"] * (number + 1)
        assert not {f"run-{one + 50:03}" for one in range(number + 1)} & set(kept)
    assert next(steps, None) is None


def test_carrying_over_that_ends_half_way_is_done_again(store, connection, monkeypatch):
    monkeypatch.setattr(run_changes, "FOLD_SLICE_RUNS", 2)
    store.append(Batch(runs=[run(name) for name in "abcdef"]))
    fold_all(connection)
    store.append(Batch(runs=[run("a", b"2"), run("e", b"2"), run("g")], forgotten=["b", "f", "c"]))
    expected = list(store.runs())
    for steps_done in (1, 2, 1, 2):
        steps = fold(connection)
        for _ in range(steps_done):
            with transaction(connection):
                next(steps)
        assert list(store.runs()) == expected
    fold_all(connection)
    assert list(store.runs()) == expected


def test_whatever_the_order_it_comes_to_what_memory_keeps(store, connection):
    chance = random.Random(7)
    memory = MemoryStore()
    memory.open()
    for number in range(200):
        names = [f"run-{chance.randint(0, 12)}" for _ in range(chance.randint(0, 4))]
        gone = [f"run-{chance.randint(0, 12)}" for _ in range(chance.randint(0, 2))]
        batch = Batch(runs=[run(name, b"%d" % number) for name in names], forgotten=gone)
        memory.append(batch)
        store.append(batch)
        if chance.random() < 0.1:
            fold_all(connection)
        assert list(store.runs()) == list(memory.runs())


def test_the_table_is_written_in_its_order(store, connection, monkeypatch):
    monkeypatch.setattr(run_changes, "FOLD_SLICE_RUNS", 4)
    names = [f"run-{number}" for number in range(16)]
    store.append(Batch(runs=[run(name) for name in names]))
    fold_all(connection)
    store.append(Batch(runs=[run(name, b"2") for name in random.Random(1).sample(names, 16)]))
    written = []
    connection.create_function("note", 1, written.append)
    connection.execute(
        "CREATE TEMP TRIGGER noted AFTER UPDATE ON main.runs BEGIN SELECT note(new.place); END"
    )
    fold_all(connection)
    assert written == sorted(written)
    assert len(written) == 16


def test_a_log_that_comes_to_nothing():
    changes = Changes()
    changes.apply(["a"], [])
    changes.apply([], [run("a"), run("b")])
    changes.apply(["a", "b"], [])
    assert changes.kept == {}
    assert changes.forgotten == {"a", "b"}


def test_upkeep_carries_over_by_itself(tmp_path):
    store = SqliteStore(tmp_path / "busy", "disk", upkeep_after_bytes=20_000)
    store.open()
    for number in range(300):
        store.append(Batch(runs=[run(f"run-{number % 7}", b"%03d" % number * 100)]))
    changes = "SELECT count(*) FROM run_changes"
    eventually(lambda: store._parts.reader.execute(changes).fetchone()[0] < 150)
    assert [one.state[:3] for one in store.runs()] == [b"%03d" % max(range(n, 300, 7)) for n in range(7)]
    store.close()


def test_a_state_in_the_table_that_is_not_what_was_written_is_dropped_at_the_next_start(tmp_path):
    folder = tmp_path / "store"
    with opened(folder) as (store, _):
        store.append(Batch(runs=[run("a"), run("b"), run("c")]))
    with contextlib.closing(
        sqlite3.connect(folder / "collector.sqlite3", isolation_level=None)
    ) as connection:
        connection.text_factory = bytes
        fold_all(connection)
        assert [one.run_id for one in read_runs(connection)] == ["a", "b", "c"]
    change(folder, "UPDATE runs SET live = 0 WHERE run_id = 'b'")
    with opened(folder) as (store, found):
        assert "1 of the runs were dropped" in found.notes[0]
        assert [one.run_id for one in store.runs()] == ["a", "c"]
