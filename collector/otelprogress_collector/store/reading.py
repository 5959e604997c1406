"""What the database is asked.

What may be long is read in slices, and no view of the file is kept between two of them: the write-ahead log could
not begin anew meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from otelprogress_collector.store.database import TRIMMED_TO
from otelprogress_collector.store.durations import Key, Took
from otelprogress_collector.store.interface import JournalRow, StoreCorrupt
from otelprogress_collector.store.records import (
    CHUNK_COLUMNS,
    CLOSED_COLUMNS,
    DURATION_COLUMNS,
    NUMBER_COLUMNS,
    BadRecord,
    Chunk,
    closed_of,
    durations_of,
    meta_of,
    number_of,
)

_SLICE_BYTES: Final = 2**20

_CHUNKS: Final = f"SELECT {CHUNK_COLUMNS} FROM journal"  # noqa: S608  our own names
_CLOSED: Final = f"SELECT {CLOSED_COLUMNS} FROM closed ORDER BY place"  # noqa: S608
_NUMBERS: Final = f"SELECT {NUMBER_COLUMNS} FROM numbers"  # noqa: S608
_DURATIONS: Final = (
    f"SELECT {DURATION_COLUMNS} FROM durations WHERE tenant = ? AND name = ? AND step_name = ?"  # noqa: S608
)


def chunks_after(connection: sqlite3.Connection, offset: int) -> Iterator[Chunk]:
    """Rows of the journal with entries after `offset`, oldest first."""
    return map(
        Chunk._make, connection.execute(f"{_CHUNKS} WHERE last_offset > ? ORDER BY last_offset", (offset,))
    )


def newest_chunks(connection: sqlite3.Connection) -> Iterator[Chunk]:
    """Rows of the journal, newest first."""
    return map(Chunk._make, connection.execute(f"{_CHUNKS} ORDER BY last_offset DESC"))


def oldest_chunk(connection: sqlite3.Connection) -> Chunk | None:
    """The first row of the journal."""
    row = connection.execute(f"{_CHUNKS} ORDER BY last_offset LIMIT 1").fetchone()
    return None if row is None else Chunk._make(row)


def first_offset(connection: sqlite3.Connection) -> int:
    """Where the journal begins, as retention left it."""
    row = connection.execute("SELECT key, value, crc FROM meta WHERE key = ?", (TRIMMED_TO,)).fetchone()
    try:
        return 1 if row is None else int(meta_of(row)[1]) + 1
    except BadRecord:
        return 1


def journal_from(connection: sqlite3.Connection, offset: int, head: int) -> Iterator[JournalRow]:
    """Entries after `offset` (or after what was trimmed) up to `head`, oldest first.

    Raises:
        StoreCorrupt: the next one is not what was written.
    """
    position = offset
    while position < head:
        chunks = _slice(connection, position)
        if not chunks and first_offset(connection) <= head:
            raise StoreCorrupt(f"the journal's rows after offset {position} are missing")
        if not chunks:
            return
        for chunk in chunks:
            # What is not there was either trimmed, meanwhile perhaps, or lost.
            if chunk.first_offset > position + 1 and chunk.first_offset > first_offset(connection):
                raise StoreCorrupt(f"the journal's rows after offset {position} are missing")
            try:
                entries = chunk.rows()
            except BadRecord as error:
                raise StoreCorrupt(f"the journal's rows after offset {position}: {error}") from error
            for row in entries:
                if position < row.offset <= head:
                    yield row
            position = chunk.last_offset


def _slice(connection: sqlite3.Connection, offset: int) -> list[Chunk]:
    chunks: list[Chunk] = []
    size_bytes = 0
    rows = chunks_after(connection, offset)
    for chunk in rows:
        chunks.append(chunk)
        size_bytes += len(chunk.entries)
        if size_bytes >= _SLICE_BYTES:
            break
    return chunks


def journal_tail(connection: sqlite3.Connection, count: int) -> list[JournalRow]:
    """The newest `count` entries, oldest first; fewer where one is not what was written, or is missing."""
    parts: list[list[JournalRow]] = []
    found = 0
    for chunk in newest_chunks(connection):
        if found >= count or (parts and parts[-1][0].offset != chunk.last_offset + 1):
            break
        try:
            parts.append(chunk.rows())
        except BadRecord:
            break
        found += len(parts[-1])
    rows = [row for part in reversed(parts) for row in part]
    return rows[max(0, len(rows) - count) :]


def numbers(connection: sqlite3.Connection) -> dict[str, int]:
    """The last handle number given, by slug.

    Raises:
        StoreCorrupt: one is not what was written.
    """
    try:
        return dict(map(number_of, connection.execute(_NUMBERS)))
    except BadRecord as error:
        raise StoreCorrupt(f"the number of a handle is not what was written: {error}") from error


def closed(connection: sqlite3.Connection) -> list[str]:
    """Ids of runs whose spans were closed, oldest first.

    Raises:
        StoreCorrupt: one is not what was written.
    """
    try:
        return [closed_of(row) for row in connection.execute(_CLOSED)]
    except BadRecord as error:
        raise StoreCorrupt(f"a closed span is not what was written: {error}") from error


def durations(connection: sqlite3.Connection, key: Key) -> list[Took]:
    """What is kept of an operation or step; nothing where that is not what was written."""
    row = connection.execute(_DURATIONS, key).fetchone()
    if row is None:
        return []
    try:
        return durations_of(row)
    except BadRecord:
        return []
