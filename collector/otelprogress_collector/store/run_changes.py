"""States of runs on their way into the table of runs.

A run has a row of its own there, somewhere in the file, and a busy run changes many times a second. So a commit only
adds what changed to the end of a log; now and then `fold` carries the newest state of each run over. Whoever reads
runs takes the table and the log together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import count, islice
from operator import itemgetter
from typing import Final

from otelprogress_collector.store.interface import RunRow, StoreCorrupt
from otelprogress_collector.store.records import (
    CHANGES_COLUMNS,
    RUN_COLUMNS,
    BadRecord,
    changes_of,
    run_of,
    values_of_run,
)
from otelprogress_collector.store.statements import delete, put

FOLD_SLICE_RUNS: Final = 512
"""Rows in one transaction: commits wait for some 10 ms."""

_CHANGES: Final = f"SELECT {CHANGES_COLUMNS} FROM run_changes WHERE place <= ? ORDER BY place"  # noqa: S608
_RUNS: Final = f"SELECT {RUN_COLUMNS} FROM runs ORDER BY place"  # noqa: S608  our own names
_ALL: Final = (1 << 63) - 1


class Changes:
    """What a log of changes comes to."""

    def __init__(self) -> None:
        self.forgotten: set[str] = set()
        """Their rows in the table are out of date, also where a new state stands in `kept`."""
        self.kept: dict[str, RunRow] = {}
        """The newest state, in the order in which they were first kept."""

    def apply(self, forgotten: Sequence[str], runs: Sequence[RunRow]) -> None:
        """Add what one commit said."""
        for run_id in forgotten:
            self.kept.pop(run_id, None)
            self.forgotten.add(run_id)
        for run in runs:
            self.kept[run.run_id] = run


def read_changes(connection: sqlite3.Connection, through: int = _ALL) -> Changes:
    """What the log comes to, up to a place.

    Raises:
        StoreCorrupt: some of it is not what was written.
    """
    changes = Changes()
    for row in connection.execute(_CHANGES, (through,)):
        try:
            changes.apply(*changes_of(row))
        except BadRecord as error:
            raise StoreCorrupt(f"states of runs are not what was written: {error}") from error
    return changes


def read_runs(connection: sqlite3.Connection) -> Iterator[RunRow]:
    """Every run, in the order in which they were first kept; within the caller's transaction.

    Raises:
        StoreCorrupt: one is not what was written.
    """
    changes = read_changes(connection)
    for row in connection.execute(_RUNS):
        try:
            run = run_of(row)
        except BadRecord as error:
            raise StoreCorrupt(f"the state of a run is not what was written: {error}") from error
        if run.run_id not in changes.forgotten:
            yield changes.kept.pop(run.run_id, run)
    yield from changes.kept.values()


def newest_place(connection: sqlite3.Connection) -> int:
    """The place of the newest row of the log; 0: there is none."""
    (place,) = connection.execute("SELECT max(place) FROM run_changes").fetchone()
    return int(place or 0)


def fold(connection: sqlite3.Connection) -> Iterator[None]:
    """Carry the log over, as it is now. It is read at once; each step of what is returned is to be one transaction.

    It may end after any step and begin anew: what was carried over is then carried over again.

    Raises:
        StoreCorrupt: some of the log is not what was written.
    """
    through = newest_place(connection)
    changes = read_changes(connection, through)
    places = _places(connection, [*changes.forgotten, *changes.kept])
    return _steps(connection, through, changes, places)


def _places(connection: sqlite3.Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """Where runs stand in the table, as far as they do."""
    places: dict[str, int] = {}
    for start in range(0, len(run_ids), FOLD_SLICE_RUNS):
        part = run_ids[start : start + FOLD_SLICE_RUNS]
        marks = ", ".join("?" * len(part))
        found = connection.execute(
            f"SELECT run_id, place FROM runs WHERE run_id IN ({marks})",  # noqa: S608  question marks only
            part,
        )
        places.update((run_id.decode(), place) for run_id, place in found)
    return places


def _steps(
    connection: sqlite3.Connection, through: int, changes: Changes, places: dict[str, int]
) -> Iterator[None]:
    gone = iter(sorted(places.pop(run_id) for run_id in changes.forgotten if run_id in places))
    while part := list(islice(gone, FOLD_SLICE_RUNS)):
        delete(connection, "runs", "place", part)
        yield
    (end,) = connection.execute("SELECT max(place) FROM runs").fetchone()
    fresh = count((end or 0) + 1)
    # By place: neighbours share a page, and each page is written once for all of them.
    placed = sorted(
        ((places.get(run_id) or next(fresh), run) for run_id, run in changes.kept.items()),
        key=itemgetter(0),
    )
    for start in range(0, len(placed), FOLD_SLICE_RUNS):
        rows = [(place, *values_of_run(run)) for place, run in placed[start : start + FOLD_SLICE_RUNS]]
        put(connection, "runs", f"place, {RUN_COLUMNS}", "place", rows, unchanged=("run_id",))
        yield
    connection.execute("DELETE FROM run_changes WHERE place <= ?", (through,))
    yield
