"""Connections to the database, and the few values in it that stand alone."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from otelprogress_collector.store.interface import Durability
from otelprogress_collector.store.records import META_COLUMNS, BadRecord, meta_of, values_of_meta
from otelprogress_collector.store.statements import KEPT_STATEMENTS

PAGE_BYTES: Final = 4096
MAX_WAL_BYTES: Final = 64 * 2**20
"""What the write-ahead log is cut to whenever it begins anew."""
_BUSY_TIMEOUT_S: Final = 5.0
"""For a tool that looks into the file; the store's own connections do not wait for each other here."""

# Of the table `meta`.
EPOCH: Final = "epoch"
BOOT_ID: Final = "boot_id"
DURABILITY: Final = "durability"
CURSOR_SECRET: Final = "cursor_secret"  # noqa: S105  the name of a key
PREVIOUS_CURSOR_SECRET: Final = "previous_cursor_secret"  # noqa: S105
TRIMMED_TO: Final = "trimmed_to"
"""The offset of the newest row that retention took."""
RESTORED_FROM: Final = "restored_from"
"""Only in a backup: the epoch of the log it was made of."""


def connect(path: Path, durability: Durability, *, cache_kib: int = 2048) -> sqlite3.Connection:
    """A connection to a file that is there, for one thread at a time.

    Transactions are begun by hand; texts are read as bytes.

    Raises:
        sqlite3.Error: as the disk has it.
    """
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=KEPT_STATEMENTS,
    )
    try:
        connection.text_factory = bytes
        for pragma in (
            # Of a file that is empty; later they would have no effect, and the second would write.
            *((f"page_size = {PAGE_BYTES}", "auto_vacuum = INCREMENTAL") if path.stat().st_size == 0 else ()),
            "journal_mode = WAL",
            f"synchronous = {'FULL' if durability == 'fsync' else 'NORMAL'}",
            f"cache_size = -{cache_kib}",
            # Upkeep decides when: within a commit it would wait for the disk.
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {MAX_WAL_BYTES}",
            # Some builds overwrite with zeros what is deleted, at a price and to no end here.
            "secure_delete = OFF",
            "cell_size_check = ON",
            "trusted_schema = OFF",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def read_meta(connection: sqlite3.Connection) -> tuple[dict[str, bytes], list[str]]:
    """All values by key, and what is wrong with those that are not what was written."""
    values: dict[str, bytes] = {}
    bad: list[str] = []
    for row in connection.execute(f"SELECT {META_COLUMNS} FROM meta"):  # noqa: S608  our own names
        try:
            key, value = meta_of(row)
        except BadRecord:
            bad.append(f"the value of {row[0]!r} is not what was written")
        else:
            values[key] = value
    return values, bad


def write_meta(connection: sqlite3.Connection, values: dict[str, bytes | None]) -> None:
    """Set values by key; `None` deletes. Within the caller's transaction, if there is one."""
    for key, value in values.items():
        if value is None:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", values_of_meta(key, value))


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the pages that hold something take."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages - free) * PAGE_BYTES


def close_quietly(connection: sqlite3.Connection) -> None:
    """Close it, whatever the disk says."""
    with contextlib.suppress(sqlite3.Error):
        connection.close()
