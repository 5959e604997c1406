"""Damage that SQLite does not see: found in the newest part before the store serves, elsewhere in the background."""

from __future__ import annotations

import pytest

from otelprogress_collector.store.interface import Batch, StoreCorrupt, Verified
from tests.collector.store.rows import append_each, offsets, row, rows, run, took
from tests.collector.store.test_opening import change, opened

SPOIL = "UPDATE journal SET entries = zeroblob(length(entries)) WHERE last_offset = ?"


@pytest.fixture
def folder(tmp_path):
    """A store of fifty rows, each appended by itself."""
    with opened(tmp_path / "store") as (store, _):
        append_each(store, rows(1, 50))
        store.append(
            Batch(
                runs=[run("a"), run("b")],
                numbers={"a": 1, "b": 2},
                closed=["a", "b"],
                durations=[took(1.0, at) for at in range(3)],
            )
        )
    return tmp_path / "store"


def verify(store) -> list[Verified]:
    found = [store.verify()]
    while not found[-1].done:
        found.append(store.verify(found[-1].through))
    return found


def test_the_journal_is_cut_from_the_first_bad_row_on(folder):
    change(folder, SPOIL, 40)
    change(folder, SPOIL, 45)
    with opened(folder) as (store, found):
        assert (found.head, found.first) == (39, 1)
        assert "cut after offset 39, 50 was the newest" in found.notes[0]
        assert list(store.journal_from(0)) == rows(1, 39)
        store.append(Batch(journal=[row(40)]))
        epoch = found.epoch
    with opened(folder) as (store, found):
        assert (found.epoch, found.head, found.notes) == (epoch, 40, ())


def test_the_journal_is_cut_where_rows_are_missing(folder):
    change(folder, "DELETE FROM journal WHERE last_offset BETWEEN 30 AND 32")
    with opened(folder) as (store, found):
        assert found.head == 29
        assert "30 to 32 are missing" in found.notes[0]
        assert offsets(store.journal_tail(100)) == list(range(1, 30))


def test_what_is_missing_at_the_start_counts_as_trimmed_but_is_said(folder):
    change(folder, "DELETE FROM journal WHERE last_offset < 10")
    with opened(folder) as (store, found):
        assert (found.head, found.first) == (50, 10)
        assert "begins at offset 10, not at 1" in found.notes[0]
        assert offsets(store.journal_from(0)) == list(range(10, 51))


def test_rows_that_moved_are_not_taken_for_others(folder):
    change(folder, "UPDATE journal SET first_offset = 60, last_offset = 60 WHERE last_offset = 50")
    with opened(folder) as (_, found):
        assert found.head == 49


def test_only_the_tail_is_looked_at_before_serving_and_the_rest_is_found_later(folder):
    change(folder, SPOIL, 20)
    with opened(folder, tail_offsets=10) as (store, found):
        assert (found.head, found.notes) == (50, ())
        looked_at = verify(store)
        assert [one.first_bad for one in looked_at] == [20, None]
        assert looked_at[-1].through == 50
        reader = store.journal_from(0)
        assert offsets(next(reader) for _ in range(19)) == list(range(1, 20))
        with pytest.raises(StoreCorrupt, match="after offset 19"):
            next(reader)
        assert offsets(store.journal_from(20)) == list(range(21, 51))
        assert offsets(store.journal_tail(100)) == list(range(21, 51))


def test_a_hole_outside_the_tail_is_found_later(folder):
    change(folder, "DELETE FROM journal WHERE last_offset BETWEEN 20 AND 22")
    with opened(folder, tail_offsets=10) as (store, found):
        assert found.notes == ()
        assert [one.first_bad for one in verify(store)] == [20, None]
        with pytest.raises(StoreCorrupt, match="after offset 19 are missing"):
            list(store.journal_from(0))
        assert offsets(store.journal_tail(100)) == list(range(23, 51))


def test_a_bad_row_at_the_very_start_is_dropped_however_old_it_is(folder):
    change(folder, SPOIL, 1)
    with opened(folder, tail_offsets=10) as (_, found):
        assert (found.head, found.first) == (50, 2)
        assert "oldest rows of the journal, up to 1, were dropped" in found.notes[0]


def test_the_background_looks_at_a_large_journal_in_slices(tmp_path):
    with opened(tmp_path / "large") as (store, _):
        for first in range(1, 41, 2):
            store.append(Batch(journal=rows(first, first + 1, size=500_000)))
        looked_at = verify(store)
        assert len(looked_at) > 2
        assert {one.first_bad for one in looked_at} == {None}
        assert [one.through for one in looked_at] == sorted({one.through for one in looked_at})
        assert looked_at[-1].through == 40


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("UPDATE numbers SET number = 7 WHERE slug = 'a'", "1 rows of numbers"),
        ("UPDATE closed SET run_id = 'x' WHERE run_id = 'a'", "1 rows of closed"),
        ("UPDATE durations SET took = zeroblob(9)", "1 rows of durations"),
        ("UPDATE run_changes SET changes = zeroblob(9)", "1 rows of run_changes"),
    ],
)
def test_other_rows_that_are_not_what_was_written_are_dropped_and_that_is_said(folder, statement, lost):
    change(folder, statement)
    with opened(folder) as (store, found):
        assert f"{lost} were dropped" in found.notes[0]
        assert "a new epoch begins" in found.notes[0]
        assert store.numbers() == ({"b": 2} if "numbers" in lost else {"a": 1, "b": 2})
        assert store.closed() == (["b"] if "closed" in lost else ["a", "b"])
        assert list(store.runs()) == ([] if "run_changes" in lost else [run("a"), run("b")])
        assert (store.baseline("", "load", "") is None) == ("durations" in lost)
    with opened(folder) as (_, found):
        assert found.notes == ()


def test_damage_that_comes_while_it_serves_is_not_served(folder):
    with opened(folder) as (store, _):
        change(folder, SPOIL, 30)
        change(folder, "UPDATE run_changes SET changes = zeroblob(9)")
        change(folder, "UPDATE numbers SET number = 7")
        change(folder, "UPDATE durations SET took = zeroblob(9)")
        change(folder, "UPDATE closed SET run_id = run_id || '!'")
        with pytest.raises(StoreCorrupt):
            list(store.journal_from(0))
        with pytest.raises(StoreCorrupt):
            list(store.runs())
        with pytest.raises(StoreCorrupt):
            store.numbers()
        with pytest.raises(StoreCorrupt):
            store.closed()
        assert store.baseline("", "load", "") is None
        assert offsets(store.journal_tail(100)) == list(range(31, 51))
