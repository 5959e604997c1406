"""A copy is what the store was at one moment, and says that it is a copy."""

from __future__ import annotations

import stat
import threading

import pytest

from otelprogress_collector.store.backup import copy_database
from otelprogress_collector.store.interface import StoreUnavailable
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store import numbered
from tests.collector.store.test_opening import opened


def restore(copy, folder) -> None:
    folder.mkdir()
    copy.rename(folder / "collector.sqlite3")


def test_a_copy_made_while_batches_are_appended_holds_whole_batches(tmp_path):
    store = SqliteStore(tmp_path / "store", "disk", upkeep_after_bytes=100_000)
    store.open()
    done = threading.Event()
    number = 0

    def append_on() -> None:
        nonlocal number
        while not done.is_set():
            store.append(numbered.batch(number + 1))
            number += 1

    appender = threading.Thread(target=append_on)
    appender.start()
    copies = []
    try:
        for name in range(5):
            before = number
            store.backup(str(tmp_path / f"copy-{name}"))
            copies.append((before, number + 1))
    finally:
        done.set()
        appender.join()
        store.close()
    for name, (before, after) in enumerate(copies):
        restore(tmp_path / f"copy-{name}", tmp_path / f"restored-{name}")
        with opened(tmp_path / f"restored-{name}") as (copy, _):
            assert before <= numbered.check(copy) <= after


def test_a_copy_that_is_opened_begins_a_new_epoch_once(tmp_path):
    with opened(tmp_path / "store") as (store, found):
        store.append(numbered.batch(1))
        store.backup(str(tmp_path / "copy"))
    restore(tmp_path / "copy", tmp_path / "restored")
    with opened(tmp_path / "restored") as (store, restored):
        assert restored.epoch != found.epoch
        assert restored.cursor_secret == found.cursor_secret
        assert restored.notes == (
            f"a new epoch begins: it was restored from a backup of the log {found.epoch}",
        )
        store.append(numbered.batch(2))
    with opened(tmp_path / "restored") as (_, again):
        assert (again.epoch, again.notes) == (restored.epoch, ())


def test_a_copy_put_in_the_place_of_the_original_begins_a_new_epoch(tmp_path):
    with opened(tmp_path / "store", "fsync") as (store, found):
        store.append(numbered.batch(1))
        store.backup(str(tmp_path / "copy"))
    database = tmp_path / "store" / "collector.sqlite3"
    database.write_bytes((tmp_path / "copy").read_bytes())
    with opened(tmp_path / "store", "fsync") as (_, restored):
        assert restored.epoch != found.epoch
        assert "restored from a backup" in restored.notes[0]


def test_a_copy_is_one_file_of_this_user_and_replaces_an_older_one(tmp_path):
    with opened(tmp_path / "store") as (store, _):
        folder = tmp_path / "copies"
        folder.mkdir()
        (folder / "copy").write_bytes(b"older")
        (folder / "copy.partial").write_bytes(b"of a process that was killed")
        store.append(numbered.batch(1))
        store.backup(str(folder / "copy"))
        assert [path.name for path in folder.iterdir()] == ["copy"]
        assert stat.S_IMODE((folder / "copy").stat().st_mode) == 0o600


def test_a_store_in_use_can_be_copied_by_another_process_without_its_lock(tmp_path):
    with opened(tmp_path / "store") as (store, _):
        store.append(numbered.batch(1))
        copy_database(tmp_path / "store" / "collector.sqlite3", tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "restored")
    with opened(tmp_path / "restored") as (copy, _):
        assert numbered.check(copy) == 1


def test_a_copy_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    with opened(tmp_path / "store") as (store, _):
        with pytest.raises(StoreUnavailable, match="cannot be copied"):
            store.backup(str(tmp_path / "nowhere" / "copy"))
        (tmp_path / "folder").mkdir()
        with pytest.raises(StoreUnavailable, match="cannot be copied"):
            store.backup(str(tmp_path / "folder"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "store"]


def test_there_is_nothing_to_copy(tmp_path):
    with pytest.raises(StoreUnavailable, match="there is no database"):
        copy_database(tmp_path / "collector.sqlite3", tmp_path / "copy")
    assert not list(tmp_path.iterdir())
