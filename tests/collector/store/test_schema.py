"""Every form of the tables that a release made leads to the present one."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from otelprogress_collector.store import schema
from otelprogress_collector.store.database import connect, write_meta
from otelprogress_collector.store.durations import Took
from otelprogress_collector.store.faults import Malformed
from otelprogress_collector.store.interface import StoreUnavailable
from otelprogress_collector.store.records import (
    CHANGES_COLUMNS,
    CHUNK_COLUMNS,
    CLOSED_COLUMNS,
    DURATION_COLUMNS,
    NUMBER_COLUMNS,
    RUN_COLUMNS,
    chunks_of,
    values_of_changes,
    values_of_closed,
    values_of_durations,
    values_of_number,
    values_of_run,
)
from otelprogress_collector.store.schema import MIGRATIONS, prepare
from otelprogress_collector.store.sqlite import SqliteStore
from otelprogress_collector.store.statements import put
from tests.collector.store.rows import rows, run
from tests.collector.store.test_opening import opened

NEXT = "ALTER TABLE numbers ADD COLUMN note TEXT; CREATE TABLE later (a INTEGER PRIMARY KEY);"
BROKEN = "CREATE TABLE later (a INTEGER PRIMARY KEY); INSERT INTO nowhere VALUES (1);"


@pytest.fixture
def connection():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.text_factory = bytes
        yield connection


@pytest.fixture
def version_1(tmp_path):
    """A store as the first release left it."""
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    path = folder / "collector.sqlite3"
    path.touch(mode=0o600)
    with contextlib.closing(connect(path, "disk")) as connection:
        assert prepare(connection, MIGRATIONS[:1]) == (0, 1)
        put(connection, "journal", CHUNK_COLUMNS, "", list(chunks_of(rows(1, 300))))
        put(connection, "runs", RUN_COLUMNS, "", [values_of_run(run("a")), values_of_run(run("b"))])
        put(connection, "run_changes", CHANGES_COLUMNS, "", list(values_of_changes(0, ["a"], [run("c")])))
        put(connection, "numbers", NUMBER_COLUMNS, "", [values_of_number("load", 3)])
        put(connection, "closed", CLOSED_COLUMNS, "", [values_of_closed("z")])
        took = values_of_durations(("", "load", ""), [Took(at, 1.0) for at in range(3)])
        put(connection, "durations", DURATION_COLUMNS, "", [took])
        write_meta(
            connection, {"epoch": b"0123456789abcdef", "durability": b"disk", "cursor_secret": b"s" * 32}
        )
    return folder


def check_version_1(store) -> None:
    assert list(store.journal_from(0)) == rows(1, 300)
    assert list(store.runs()) == [run("b"), run("c")]
    assert store.numbers() == {"load": 3}
    assert store.closed() == ["z"]
    assert store.baseline("", "load", "").median_s == 1.0


def test_a_store_of_the_first_release_is_read(version_1):
    with opened(version_1) as (store, found):
        check_version_1(store)
        assert found.cursor_secret == b"s" * 32


def test_an_old_store_is_brought_forward_and_keeps_everything(version_1):
    store = SqliteStore(version_1, "disk", migrations=(*MIGRATIONS, NEXT))
    found = store.open()
    assert found.notes[0] == f"the store was brought from format {len(MIGRATIONS)} to {len(MIGRATIONS) + 1}"
    check_version_1(store)
    store.close()
    store = SqliteStore(version_1, "disk", migrations=(*MIGRATIONS, NEXT))
    assert store.open().notes == ()
    store.close()
    with pytest.raises(StoreUnavailable, match="newer release"):
        SqliteStore(version_1, "disk").open()


def test_a_new_store_and_one_that_was_brought_forward_have_the_same_tables(connection):
    assert prepare(connection, MIGRATIONS) == (0, len(MIGRATIONS))
    assert prepare(connection, (*MIGRATIONS, NEXT)) == (len(MIGRATIONS), len(MIGRATIONS) + 1)
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as other:
        other.text_factory = bytes
        prepare(other, (*MIGRATIONS, NEXT))
        assert schema._catalogue(connection) == schema._catalogue(other)


def test_the_present_tables_need_nothing(connection):
    prepare(connection)
    assert prepare(connection) == (len(MIGRATIONS), len(MIGRATIONS))


def test_a_migration_is_done_as_a_whole_or_not_at_all(connection):
    prepare(connection)
    with pytest.raises(sqlite3.OperationalError), pytest.MonkeyPatch.context() as patch:
        # What the tables should look like cannot be said of a migration that fails.
        patch.setattr(schema, "_version", lambda *_: len(MIGRATIONS))
        prepare(connection, (*MIGRATIONS, BROKEN))
    assert prepare(connection) == (len(MIGRATIONS), len(MIGRATIONS))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_tables_that_no_release_made_are_not_touched(connection):
    connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(Malformed):
        prepare(connection)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [(b"theirs",)]
