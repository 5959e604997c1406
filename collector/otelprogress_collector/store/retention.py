"""What goes beyond retention, and giving the room back. In slices that end soon: `append` waits for them."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from otelprogress_collector.store.database import TRIMMED_TO, used_bytes, write_meta

_SLICE_CHUNKS: Final = 4096
_SLICE_BYTES: Final = 8 * 2**20
VACUUM_PAGES: Final = 512
"""Pages given back at once: 2 MiB."""
_MIN_FREE_PAGES: Final = 4096
_FREE_SHARE: Final = 0.25


class Expired(NamedTuple):
    """The oldest rows of the journal, which may go."""

    through: int
    """The offset of the newest of them."""
    entries: int


def expired(
    connection: sqlite3.Connection, *, older_than_unix_ns: int, max_bytes: int, keep_from: int
) -> Expired | None:
    """The next slice of what is beyond retention; `None`: nothing is. See `Store.trim`."""
    left_bytes = used_bytes(connection)
    slice_bytes = entries = through = 0
    for last_offset, first_offset, newest_unix_ns, size_bytes in connection.execute(
        "SELECT last_offset, first_offset, newest_unix_ns, length(entries) FROM journal ORDER BY last_offset LIMIT ?",
        (_SLICE_CHUNKS,),
    ):
        if last_offset >= keep_from or not (newest_unix_ns < older_than_unix_ns or left_bytes > max_bytes):
            break
        through = last_offset
        entries += last_offset - first_offset + 1
        left_bytes -= size_bytes
        slice_bytes += size_bytes
        if slice_bytes >= _SLICE_BYTES:
            break
    return Expired(through, entries) if entries else None


def drop(connection: sqlite3.Connection, slice_: Expired) -> None:
    """Delete a slice; within the caller's transaction."""
    connection.execute("DELETE FROM journal WHERE last_offset <= ?", (slice_.through,))
    write_meta(connection, {TRIMMED_TO: str(slice_.through).encode()})


def has_room_to_give_back(connection: sqlite3.Connection) -> bool:
    """Whether so much of the file is empty that it is worth moving pages to make it shorter.

    A journal that is trimmed as fast as it grows uses its room again; this is for a retention that was lowered.
    """
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return bool(free > max(_MIN_FREE_PAGES, _FREE_SHARE * pages))


def give_room_back(connection: sqlite3.Connection) -> None:
    """Make the file shorter by some pages; the next checkpoint carries it out."""
    connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
