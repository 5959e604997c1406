"""How a batch becomes rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from otelprogress_collector.store.durations import FORGOTTEN_AT_ONCE, KEPT_NAMES, by_key, merged
from otelprogress_collector.store.interface import KEPT_CLOSED, Batch
from otelprogress_collector.store.reading import durations
from otelprogress_collector.store.records import (
    CHANGES_COLUMNS,
    CHUNK_COLUMNS,
    CLOSED_COLUMNS,
    DURATION_COLUMNS,
    NUMBER_COLUMNS,
    Chunk,
    values_of_changes,
    values_of_closed,
    values_of_durations,
    values_of_number,
)
from otelprogress_collector.store.run_changes import newest_place
from otelprogress_collector.store.statements import put


def write_batch(connection: sqlite3.Connection, chunks: Sequence[Chunk], batch: Batch) -> None:
    """Put everything of a batch; within the caller's transaction.

    Raises:
        sqlite3.Error: as the disk has it.
        OverflowError: a number has more than 63 bits.
    """
    put(connection, "journal", CHUNK_COLUMNS, "", chunks)
    if batch.runs or batch.forgotten:
        changes = list(values_of_changes(newest_place(connection), batch.forgotten, batch.runs))
        put(connection, "run_changes", CHANGES_COLUMNS, "", changes)
    numbers = [values_of_number(slug, number) for slug, number in batch.numbers.items() if number]
    put(connection, "numbers", NUMBER_COLUMNS, "slug", numbers)
    forgotten = [(slug,) for slug, number in batch.numbers.items() if not number]
    if forgotten:
        connection.executemany("DELETE FROM numbers WHERE slug = ?", forgotten)
    if batch.closed:
        _put_closed(connection, batch.closed)
    if batch.durations:
        _put_durations(connection, batch)


def _put_closed(connection: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    put(connection, "closed", CLOSED_COLUMNS, "run_id", [values_of_closed(run_id) for run_id in run_ids])
    connection.execute(
        "DELETE FROM closed WHERE place <= (SELECT max(place) FROM closed) - ?", (KEPT_CLOSED,)
    )


def _put_durations(connection: sqlite3.Connection, batch: Batch) -> None:
    rows = []
    more_names = False
    for key, new in by_key(batch.durations).items():
        kept = durations(connection, key)
        more_names = more_names or not kept
        rows.append(values_of_durations(key, merged(kept, new)))
    put(connection, "durations", DURATION_COLUMNS, "tenant, name, step_name", rows)
    if more_names:
        (names,) = connection.execute("SELECT count(*) FROM durations").fetchone()
        if names > KEPT_NAMES:
            connection.execute(
                "DELETE FROM durations WHERE (tenant, name, step_name) IN (SELECT tenant, name, step_name "
                "FROM durations ORDER BY last_ended_unix_ns, tenant, name, step_name LIMIT ?)",
                (FORGOTTEN_AT_ONCE,),
            )
