"""Many rows in few statements."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from otelprogress_collector.store.statements import delete, put


def all_of(connection):
    return connection.execute("SELECT a, b, c FROM things ORDER BY a").fetchall()


@pytest.fixture
def connection():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE things (a INTEGER PRIMARY KEY, b TEXT, c TEXT)")
        yield connection


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_rows_are_put_replaced_and_deleted_whatever_their_number(connection, count):
    put(connection, "things", "a, b, c", "", [(number, "b", "c") for number in range(count)])
    assert all_of(connection) == [(number, "b", "c") for number in range(count)]
    put(
        connection,
        "things",
        "a, b, c",
        "a",
        [(number, "B", "C") for number in range(count + 1)],
        unchanged=("b",),
    )
    assert all_of(connection) == [(number, "b", "C") for number in range(count)] + [(count, "B", "C")]
    delete(connection, "things", "a", list(range(count)))
    assert all_of(connection) == [(count, "B", "C")]


def test_few_statements_do(connection):
    statements = []
    connection.set_trace_callback(statements.append)
    put(connection, "things", "a, b, c", "", [(number, "b", "c") for number in range(256)])
    assert len(statements) == 4
