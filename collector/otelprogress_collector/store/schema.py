"""The tables of the database, and the way from each earlier form of them to the present one.

A new database goes the same way as an old one, through all migrations, so both end with the same tables to the
letter. That is how a version is recognised: the text of the tables is compared, so that a damaged catalogue is seen
before anything is read by it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from otelprogress_collector.store.faults import Malformed
from otelprogress_collector.store.interface import StoreUnavailable

Migration = str
"""Statements that lead from one version to the next, in one transaction; a semicolon ends each, and is nowhere else."""

_VERSION_1: Final = """\
-- Every row carries a crc32 of the rest of it (records.py): a tree that is sound can hold other bytes than were written.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    crc INTEGER NOT NULL
) WITHOUT ROWID;
-- A row is what one commit appended, 256 entries at most: it takes half the time that a row for each would take.
CREATE TABLE journal (
    last_offset INTEGER PRIMARY KEY,
    first_offset INTEGER NOT NULL,
    newest_unix_ns INTEGER NOT NULL,
    entries BLOB NOT NULL,
    crc INTEGER NOT NULL
);
-- States of runs as they came, a row for each commit, until upkeep carries them over into `runs` (run_changes.py).
CREATE TABLE run_changes (
    place INTEGER PRIMARY KEY,
    changes BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE runs (
    place INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    state BLOB NOT NULL,
    live INTEGER NOT NULL,
    ended_at_unix_ns INTEGER,
    crc INTEGER NOT NULL
);
CREATE TABLE closed (
    place INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    crc INTEGER NOT NULL
);
CREATE TABLE numbers (
    slug TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    crc INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE durations (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    step_name TEXT NOT NULL,
    took BLOB NOT NULL,
    last_ended_unix_ns INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, step_name)
) WITHOUT ROWID;
CREATE INDEX durations_by_end ON durations (last_ended_unix_ns);
"""

MIGRATIONS: Final[tuple[Migration, ...]] = (_VERSION_1,)


def prepare(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> tuple[int, int]:
    """Bring the tables to the present version; returns the version found (0: none) and the present one.

    Raises:
        StoreUnavailable: a newer release wrote it.
        Malformed: these are no tables of any version.
        sqlite3.Error: as the disk has it.
    """
    found = _version(connection, tuple(migrations))
    for version, migration in enumerate(migrations[found:], found + 1):
        with transaction(connection):
            for statement in _statements(migration):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
    return found, len(migrations)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    # IMMEDIATE: the lock is waited for here, where nothing was read yet, and not refused half-way.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors (a full disk) roll back by themselves.
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, migrations: tuple[Migration, ...]) -> int:
    tables = _catalogue(connection)
    for version in range(len(migrations), -1, -1):
        if tables == _catalogue_of(migrations[:version]):
            return version
    (claimed,) = connection.execute("PRAGMA user_version").fetchone()
    if claimed > len(migrations):
        raise StoreUnavailable(
            f"a newer release wrote the store (format {claimed}, this one knows {len(migrations)}): start that release"
        )
    raise Malformed("its tables are none that any release made")


def _statements(migration: Migration) -> list[str]:
    # Not `executescript`, which commits what is open.
    return [statement.strip() for statement in migration.split(";") if statement.strip()]


@lru_cache(maxsize=8)
def _catalogue_of(migrations: tuple[Migration, ...]) -> frozenset[tuple[bytes, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.text_factory = bytes
        for migration in migrations:
            for statement in _statements(migration):
                connection.execute(statement)
        return _catalogue(connection)


def _catalogue(connection: sqlite3.Connection) -> frozenset[tuple[bytes, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return frozenset(tuple(rows))
