"""Whether what is on the disk is what was written: what is looked at before the store serves, and in slices after.

SQLite notices a tree that is broken, not a byte that is. So everything is checked against its crc32 as well, and
the journal for holes. Before serving that is the newest part of the journal and everything else; the older part is
left to `look_at_slice`, because ten million rows would take longer than a restart may.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from otelprogress_collector.store.faults import Malformed
from otelprogress_collector.store.interface import Verified
from otelprogress_collector.store.reading import chunks_after, first_offset, newest_chunks, oldest_chunk
from otelprogress_collector.store.records import (
    CHANGES_COLUMNS,
    CLOSED_COLUMNS,
    DURATION_COLUMNS,
    NUMBER_COLUMNS,
    RUN_COLUMNS,
    BadRecord,
    Chunk,
    Values,
    changes_of,
    closed_of,
    durations_of,
    is_sound_run,
    number_of,
)

TAIL_OFFSETS: Final = 10_000
"""So many of the newest rows are checked before the store serves."""
SMALL_BYTES: Final = 64 * 2**20
"""Up to this size SQLite's own check goes over the whole file: some 0.2 s."""
MANY_RUNS: Final = 250_000
"""Beyond that an index is not compared with its table, which takes a second by then; a wrong row is found by its crc."""
_SLICE_BYTES: Final = 8 * 2**20

_ALL_BUT_JOURNAL: Final = ("meta", "run_changes", "runs", "closed", "numbers", "durations")


def check_structure(connection: sqlite3.Connection, *, thorough: bool) -> str | None:
    """Let SQLite check its trees; returns what was mended.

    Args:
        connection: to the database.
        thorough: the journal's tree as well, which takes long where it is large.

    Raises:
        Malformed: they are broken.
    """
    problem = _problem(connection, thorough)
    if problem is None:
        return None
    try:
        connection.execute("REINDEX")
    except sqlite3.Error as error:
        raise Malformed(f"{problem}; {error}") from error
    if _problem(connection, thorough) is not None:
        raise Malformed(problem)
    return f"an index did not agree with its table and was made anew ({problem})"


def _problem(connection: sqlite3.Connection, thorough: bool) -> str | None:
    (runs,) = connection.execute("SELECT max(place) FROM runs").fetchone()
    # A quick check does not compare an index with its table.
    how = "quick_check" if (runs or 0) > MANY_RUNS else "integrity_check"
    for subject in ("1",) if thorough else _ALL_BUT_JOURNAL:
        (found,) = connection.execute(f"PRAGMA {how}({subject})").fetchone()
        if found != b"ok":
            return str(found.decode("utf-8", "replace")).replace("\n", " ")
    return None


def cut_journal(connection: sqlite3.Connection, tail_offsets: int = TAIL_OFFSETS) -> str | None:
    """Check the newest rows and cut the journal from the first bad one on; returns what was done."""
    cut_from: int | None = None
    newer: Chunk | None = None
    sound = newest = 0
    why = ""
    for chunk in newest_chunks(connection):
        newest = newest or chunk.last_offset
        if not chunk.is_sound():
            cut_from, newer, sound = chunk.last_offset, None, 0
            why = "what follows is not what was written"
            continue
        if newer is not None and newer.first_offset != chunk.last_offset + 1:
            cut_from, sound = newer.last_offset, 0
            why = f"{chunk.last_offset + 1} to {newer.first_offset - 1} are missing"
        newer = chunk
        sound += chunk.last_offset - chunk.first_offset + 1
        if sound >= tail_offsets:
            break
    if cut_from is None:
        return None
    connection.execute("DELETE FROM journal WHERE last_offset >= ?", (cut_from,))
    (head,) = connection.execute("SELECT max(last_offset) FROM journal").fetchone()
    return f"the journal was cut after offset {head or 0}, {newest} was the newest: {why}"


def trim_bad_start(connection: sqlite3.Connection, trimmed_to: int) -> tuple[int, list[str]]:
    """Let the journal begin with a row that is sound; returns the offset before it, and what was done."""
    done: list[str] = []
    while True:
        chunk = oldest_chunk(connection)
        if chunk is None:
            return trimmed_to, done
        if not chunk.is_sound():
            connection.execute("DELETE FROM journal WHERE last_offset = ?", (chunk.last_offset,))
            done.append(
                f"the oldest rows of the journal, up to {chunk.last_offset}, were dropped: they are not what was written"
            )
            continue
        if chunk.first_offset != trimmed_to + 1:
            done.append(f"the journal begins at offset {chunk.first_offset}, not at {trimmed_to + 1}")
        return chunk.first_offset - 1, done


def drop_bad_runs(connection: sqlite3.Connection) -> str | None:
    """Drop runs that are not what was written; returns what was done."""
    bad = [
        row[0]
        for row in connection.execute(f"SELECT place, {RUN_COLUMNS} FROM runs ORDER BY place")  # noqa: S608  our own names
        if not is_sound_run(row[1:])
    ]
    if not bad:
        return None
    connection.executemany("DELETE FROM runs WHERE place = ?", ((place,) for place in bad))
    return f"{len(bad)} of the runs were dropped: their state is not what was written"


def drop_bad_rows(connection: sqlite3.Connection) -> list[str]:
    """Drop what is not what was written of all that is neither journal nor runs; returns what was done."""
    found = (
        _drop_bad(connection, "run_changes", CHANGES_COLUMNS, 0, changes_of),
        _drop_bad(connection, "closed", CLOSED_COLUMNS, 1, closed_of),
        _drop_bad(connection, "numbers", NUMBER_COLUMNS, 1, number_of),
        _drop_bad(connection, "durations", DURATION_COLUMNS, 3, durations_of),
    )
    return [done for done in found if done is not None]


def _drop_bad(
    connection: sqlite3.Connection, table: str, columns: str, texts: int, check: Callable[[Values], object]
) -> str | None:
    good: list[Values] = []
    bad = 0
    for row in connection.execute(f"SELECT {columns} FROM {table}"):  # noqa: S608  our own names
        try:
            check(row)
        except BadRecord:
            bad += 1
        else:
            good.append((*(text.decode() for text in row[:texts]), *row[texts:]))
    if not bad:
        return None
    # A bad row's key cannot be relied upon to find it again: all go, the good ones come back.
    connection.execute(f"DELETE FROM {table}")  # noqa: S608
    marks = ", ".join("?" * len(columns.split(",")))
    connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", good)  # noqa: S608
    return f"{bad} rows of {table} were dropped: they are not what was written"


def look_at_slice(connection: sqlite3.Connection, after: int) -> Verified:
    """Check some MiB of the journal after an offset."""
    connection.execute("BEGIN")  # one view of it, whatever is trimmed meanwhile
    try:
        expected = max(after + 1, first_offset(connection))
        looked_at_bytes = 0
        for chunk in chunks_after(connection, after):
            if not chunk.is_sound() or chunk.first_offset > expected:
                return Verified(through=chunk.last_offset, first_bad=expected, done=False)
            expected = chunk.last_offset + 1
            looked_at_bytes += len(chunk.entries)
            if looked_at_bytes >= _SLICE_BYTES:
                return Verified(through=chunk.last_offset, first_bad=None, done=False)
        return Verified(through=expected - 1, first_bad=None, done=True)
    finally:
        connection.execute("COMMIT")
