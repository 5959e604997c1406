"""How a batch becomes rows.

Many rows are one statement: `sqlite3` gives the interpreter lock up at each statement, and next to a busy main
thread takes up to 5 ms to have it back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from otelprogress_collector.store.durations import FORGOTTEN_AT_ONCE, KEPT_NAMES, by_key, merged
from otelprogress_collector.store.interface import KEPT_CLOSED, Batch
from otelprogress_collector.store.reading import durations
from otelprogress_collector.store.records import (
    CHUNK_COLUMNS,
    CLOSED_COLUMNS,
    DURATION_COLUMNS,
    NUMBER_COLUMNS,
    RUN_COLUMNS,
    Chunk,
    Values,
    values_of_closed,
    values_of_durations,
    values_of_number,
    values_of_run,
)

STATEMENTS: Final = 256
"""Statements that a writing connection keeps compiled: one for each number of rows that occurs."""
_ROWS_A_STATEMENT: Final = 64

_T = TypeVar("_T")


def write_batch(connection: sqlite3.Connection, chunks: Sequence[Chunk], batch: Batch) -> None:
    """Put everything of a batch; within the caller's transaction.

    Raises:
        sqlite3.Error: as the disk has it.
        OverflowError: a number has more than 63 bits.
    """
    _put(connection, "journal", CHUNK_COLUMNS, "", chunks)
    for part in _parts(batch.forgotten):
        marks = ", ".join("?" * len(part))
        connection.execute(f"DELETE FROM runs WHERE run_id IN ({marks})", part)  # noqa: S608  question marks only
    _put(connection, "runs", RUN_COLUMNS, "run_id", [values_of_run(run) for run in batch.runs])
    _put(
        connection,
        "numbers",
        NUMBER_COLUMNS,
        "slug",
        [values_of_number(*one) for one in batch.numbers.items()],
    )
    _put_closed(connection, batch.closed)
    _put_durations(connection, batch)


def _put_closed(connection: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    if not run_ids:
        return
    _put(connection, "closed", CLOSED_COLUMNS, "run_id", [values_of_closed(run_id) for run_id in run_ids])
    connection.execute(
        "DELETE FROM closed WHERE place <= (SELECT max(place) FROM closed) - ?", (KEPT_CLOSED,)
    )


def _put_durations(connection: sqlite3.Connection, batch: Batch) -> None:
    rows = [
        values_of_durations(key, merged(durations(connection, key), new))
        for key, new in by_key(batch.durations).items()
    ]
    if not rows:
        return
    _put(connection, "durations", DURATION_COLUMNS, "tenant, name, step_name", rows)
    (names,) = connection.execute("SELECT count(*) FROM durations").fetchone()
    if names > KEPT_NAMES:
        connection.execute(
            "DELETE FROM durations WHERE (tenant, name, step_name) IN (SELECT tenant, name, step_name FROM durations "
            "ORDER BY last_ended_unix_ns, tenant, name, step_name LIMIT ?)",
            (FORGOTTEN_AT_ONCE,),
        )


def _put(connection: sqlite3.Connection, table: str, columns: str, key: str, rows: Sequence[Values]) -> None:
    for part in _parts(rows):
        connection.execute(
            _statement(table, columns, key, len(part)), [value for row in part for value in row]
        )


@lru_cache(maxsize=STATEMENTS)
def _statement(table: str, columns: str, key: str, count: int) -> str:
    names = columns.split(", ")
    row = f"({', '.join('?' * len(names))})"
    statement = f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * count)}"  # noqa: S608  our own names
    if not key:
        return statement
    # Replaced in place: a run stays where it was first kept.
    replaced = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key.split(", "))
    return f"{statement} ON CONFLICT ({key}) DO UPDATE SET {replaced}"


def _parts(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        yield rows[start : start + _ROWS_A_STATEMENT]
