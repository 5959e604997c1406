"""What goes beyond retention goes in slices, and its room is used again or given back."""

from __future__ import annotations

import pytest

from otelprogress_collector.store.interface import Batch
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.rows import ALL, append_each, offsets, rows


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "store", "disk")
    store.open()
    yield store
    store.close()


def append(store, mib: int, *, first: int = 1) -> int:
    """Rows of 100 kB, ten in a batch; the head afterwards."""
    for offset in range(first, first + 10 * mib, 10):
        store.append(Batch(journal=rows(offset, offset + 9, size=100_000)))
    return first + 10 * mib - 1


def test_one_call_takes_a_bounded_slice(store):
    append(store, 30)
    dropped = []
    while now := store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=ALL):
        dropped.append(now)
    assert sum(dropped) == 300
    assert len(dropped) >= 3
    assert max(dropped) <= 90


def test_many_small_rows_are_a_slice_as_well(store):
    append_each(store, rows(1, 5_000))
    assert store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=ALL) == 4_096
    assert store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=ALL) == 904


def test_a_journal_that_is_trimmed_as_it_grows_does_not_make_the_file_longer(store, tmp_path):
    head = append(store, 10)
    database = tmp_path / "store" / "collector.sqlite3"
    for _ in range(8):
        head = append(store, 5, first=head + 1)
        while store.trim(older_than_unix_ns=0, max_bytes=10_000_000, keep_from=ALL):
            pass
    assert store.size_bytes() <= 10_000_000
    store.close()
    assert database.stat().st_size < 25_000_000


def test_a_retention_that_was_lowered_gives_room_back(store, tmp_path):
    head = append(store, 40)
    while store.trim(older_than_unix_ns=0, max_bytes=3_000_000, keep_from=ALL):
        pass
    for _ in range(200):
        store.trim(older_than_unix_ns=0, max_bytes=3_000_000, keep_from=ALL)
    left = offsets(store.journal_from(0))
    assert left == list(range(left[0], head + 1))
    store.close()
    assert (tmp_path / "store" / "collector.sqlite3").stat().st_size < 22_000_000


def test_a_clock_that_was_set_back_takes_nothing_away(store):
    append_each(store, rows(1, 5, time_unix_ns=10**18))
    append_each(store, rows(6, 9, time_unix_ns=5))
    assert store.trim(older_than_unix_ns=10**17, max_bytes=ALL, keep_from=ALL) == 0
    assert offsets(store.journal_from(0)) == list(range(1, 10))
