"""Statements that take many rows at once.

`sqlite3` gives the interpreter lock up at each statement, and next to a busy main thread takes up to 5 ms to have it
back: so many rows are one statement, not one each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

KEPT_STATEMENTS: Final = 256
"""Statements that a writing connection keeps compiled: one for each number of rows that occurs."""
_ROWS_A_STATEMENT: Final = 64

_T = TypeVar("_T")


def put(
    connection: sqlite3.Connection,
    table: str,
    columns: str,
    key: str,
    rows: Sequence[tuple[Any, ...]],
    *,
    unchanged: tuple[str, ...] = (),
) -> None:
    """Insert rows, or replace those that have the same key.

    Args:
        connection: in a transaction.
        table: its name.
        columns: of the rows, with commas between.
        key: columns that name a row; empty: none is there yet.
        rows: values.
        unchanged: columns that are the same in the row that is replaced.
    """
    for part in _parts(rows):
        statement = _statement(table, columns, key, unchanged, len(part))
        connection.execute(statement, [value for row in part for value in row])


def delete(connection: sqlite3.Connection, table: str, key: str, values: Sequence[Any]) -> None:
    """Delete the rows with these keys, as far as there are any."""
    for part in _parts(values):
        marks = ", ".join("?" * len(part))
        connection.execute(f"DELETE FROM {table} WHERE {key} IN ({marks})", part)  # noqa: S608  our own names


@lru_cache(maxsize=KEPT_STATEMENTS)
def _statement(table: str, columns: str, key: str, unchanged: tuple[str, ...], count: int) -> str:
    names = columns.split(", ")
    row = f"({', '.join('?' * len(names))})"
    statement = f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * count)}"  # noqa: S608  our own names
    if not key:
        return statement
    replaced = [name for name in names if name not in key.split(", ") and name not in unchanged]
    # Replaced in place: what is read in the order of its places stays where it was.
    return f"{statement} ON CONFLICT ({key}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in replaced)}"


def _parts(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        yield rows[start : start + _ROWS_A_STATEMENT]
