"""What a start finds, and what it makes of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat

import pytest

from otelprogress_collector.store.interface import Batch, StoreUnavailable
from otelprogress_collector.store.opening import read_boot_id
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.rows import offsets, row, rows, run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@contextlib.contextmanager
def opened(folder, durability="disk", **how):
    store = SqliteStore(folder, durability, **how)
    try:
        yield store, store.open()
    finally:
        store.close()


def begin(folder, durability="disk", **how) -> str:
    """A store with five rows and a run; its epoch."""
    with opened(folder, durability, **how) as (store, found):
        store.append(Batch(journal=rows(1, 5), runs=[run("a")]))
        return found.epoch


def change(folder, statement: str, *values: object) -> None:
    """Behind the store's back, and without another file."""
    with contextlib.closing(sqlite3.connect(folder / "collector.sqlite3")) as connection:
        connection.execute(statement, values)
        connection.commit()


# --- the machine was started anew


def test_another_start_of_the_machine_begins_a_new_epoch_and_loses_nothing_that_is_there(folder):
    epoch = begin(folder, boot_id="first")
    with opened(folder, boot_id="second") as (store, found):
        assert found.epoch != epoch
        assert found.notes == (
            "a new epoch begins: the machine was started anew, which may cost the tail with durability `disk`",
        )
        assert offsets(store.journal_from(0)) == [1, 2, 3, 4, 5]
        epoch = found.epoch
    with opened(folder, boot_id="second") as (_, found):
        assert (found.epoch, found.notes) == (epoch, ())


def test_with_fsync_the_epoch_outlives_the_machine(folder):
    epoch = begin(folder, "fsync", boot_id="first")
    with opened(folder, "fsync", boot_id="second") as (_, found):
        assert (found.epoch, found.notes) == (epoch, ())


def test_what_counts_is_how_the_log_was_written(folder, tmp_path):
    epoch = begin(folder, "disk", boot_id="first")
    with opened(folder, "fsync", boot_id="second") as (_, found):
        assert found.epoch != epoch
        epoch = found.epoch
    with opened(folder, "disk", boot_id="third") as (_, found):
        assert found.epoch == epoch
    with opened(folder, "disk", boot_id="fourth") as (_, found):
        assert found.epoch != epoch


def test_the_machine_says_which_start_it_is():
    assert read_boot_id() == read_boot_id()


# --- something was put back or taken away


def test_an_older_database_in_the_place_of_the_newer_begins_a_new_epoch(folder, tmp_path):
    epoch = begin(folder)
    older = (folder / "collector.sqlite3").read_bytes()
    with opened(folder) as (store, _):
        store.append(Batch(journal=[row(6)]))
    (folder / "collector.sqlite3").write_bytes(older)
    with opened(folder) as (store, found):
        assert found.epoch != epoch
        assert "ends at 5, but rows up to 6 were acknowledged" in found.notes[0]
        assert found.head == 5
        store.append(Batch(journal=[row(6)]))


def test_a_copy_of_the_directory_begins_a_new_epoch(folder, tmp_path):
    epoch = begin(folder)
    shutil.copytree(folder, tmp_path / "copy")
    with opened(tmp_path / "copy") as (_, found):
        assert found.epoch != epoch
        assert "not the file that was last written here" in found.notes[0]
    with opened(folder) as (_, found):
        assert found.epoch == epoch


def test_a_directory_under_another_name_is_still_the_same(folder, tmp_path):
    epoch = begin(folder)
    folder.rename(tmp_path / "moved")
    with opened(tmp_path / "moved") as (_, found):
        assert (found.epoch, found.notes) == (epoch, ())


@pytest.mark.parametrize("content", [None, b"", b"not a mark"])
def test_without_its_mark_a_database_begins_a_new_epoch(folder, content):
    epoch = begin(folder)
    (folder / "collector.mark").unlink()
    if content is not None:
        (folder / "collector.mark").write_bytes(content)
    with opened(folder) as (_, found):
        assert found.epoch != epoch
        assert "mark beside the database is missing or damaged" in found.notes[0]
        epoch = found.epoch
    with opened(folder) as (_, found):
        assert (found.epoch, found.notes) == (epoch, ())


def test_a_database_that_is_gone_is_begun_anew_and_that_is_said(folder):
    epoch = begin(folder)
    (folder / "collector.sqlite3").unlink()
    with opened(folder) as (store, found):
        assert found.epoch != epoch
        assert found.notes == (
            "a new epoch begins: the store was made anew, though rows up to 5 were acknowledged here",
        )
        assert list(store.journal_from(0)) == []


# --- the database is damaged


@pytest.mark.parametrize("garbage", [b"garbage" * 1_000, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_what_is_no_database_is_set_aside_and_never_deleted(folder, garbage):
    begin(folder)
    for number in (1, 2):
        (folder / "collector.sqlite3").write_bytes(garbage)
        with opened(folder) as (store, found):
            assert f"set aside as collector.sqlite3.malformed-{number} and a new one begun" in found.notes[0]
            assert (found.head, found.first) == (0, 1)
            store.append(Batch(journal=rows(1, 3)))
        assert (folder / f"collector.sqlite3.malformed-{number}").read_bytes() == garbage
    assert stat.S_IMODE((folder / "collector.sqlite3").stat().st_mode) == 0o600


@pytest.mark.parametrize("quoted", [b"TABLE meta", b"meta", b"BLOB"])
def test_a_damaged_schema_that_sqlite_cannot_even_quote_is_told_as_damage(folder, quoted):
    begin(folder)
    path = folder / "collector.sqlite3"
    whole = path.read_bytes()
    at = whole.index(quoted, 100)
    path.write_bytes(whole[:at] + bytes([whole[at] | 0x80]) + whole[at + 1 :])
    with opened(folder) as (store, found):
        assert "malformed" in found.notes[0]
        store.append(Batch(journal=rows(found.head + 1, found.head + 3)))


def test_tables_of_somebody_else_are_set_aside(folder):
    begin(folder)
    change(folder, "CREATE TABLE theirs (column)")
    with opened(folder) as (_, found):
        assert "its tables are none that any release made" in found.notes[0]


def test_a_store_of_a_newer_release_is_left_as_it_is(folder):
    begin(folder)
    change(folder, "CREATE TABLE newer (column)")
    change(folder, "PRAGMA user_version = 99")
    before = (folder / "collector.sqlite3").read_bytes()
    with pytest.raises(StoreUnavailable, match="newer release wrote the store .format 99"):
        SqliteStore(folder, "disk").open()
    assert (folder / "collector.sqlite3").read_bytes() == before


def test_a_wrong_version_number_alone_does_not_matter(folder):
    epoch = begin(folder)
    change(folder, "PRAGMA user_version = 99")
    with opened(folder) as (_, found):
        assert (found.epoch, found.notes) == (epoch, ())


def test_a_damaged_cursor_secret_is_replaced_and_said(folder):
    epoch = begin(folder)
    with opened(folder) as (_, found):
        secret = found.cursor_secret
    change(folder, "UPDATE meta SET value = zeroblob(32) WHERE key = 'cursor_secret'")
    with opened(folder) as (_, found):
        assert found.cursor_secret not in (secret, bytes(32))
        assert found.epoch != epoch
        assert "'cursor_secret' is not what was written" in found.notes[0]
        secret = found.cursor_secret
    with opened(folder) as (_, found):
        assert (found.cursor_secret, found.notes) == (secret, ())


# --- the directory


def test_a_path_that_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        SqliteStore(tmp_path / "file", "disk").open()
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        SqliteStore(tmp_path / "file" / "below", "disk").open()


def test_a_directory_that_others_may_write_to_is_refused_and_left_as_it_is(folder):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StoreUnavailable, match="chmod 700"):
        SqliteStore(folder, "disk").open()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["collector.sqlite3", "collector.sqlite3-wal", "collector.mark", "collector.lock"]
)
def test_a_link_in_the_place_of_a_file_is_refused(folder, tmp_path, name):
    folder.mkdir(mode=0o700)
    (tmp_path / "theirs").write_bytes(b"precious")
    (folder / name).symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreUnavailable, match=r"is a link|cannot be used"):
        SqliteStore(folder, "disk").open()
    assert (tmp_path / "theirs").read_bytes() == b"precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(folder):
    begin(folder)
    os.chown(folder / "collector.sqlite3", 12345, -1)
    with pytest.raises(StoreUnavailable, match="belongs to user 12345"):
        SqliteStore(folder, "disk").open()
