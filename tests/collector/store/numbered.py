"""Batches of which each follows from its number, so that whoever finds a store can tell what must be in it.

As a program it appends them to a store until it is killed; see `main`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from otelprogress_collector.store import opening, sqlite
from otelprogress_collector.store.interface import Batch, Store
from otelprogress_collector.store.mark import MarkFile
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.rows import ALL, row, rows, run, took
from tests.waiting import eventually

RUNS = 10
"""A batch changes the state of one of them, and every tenth forgets one."""


def size_of(number: int) -> int:
    """How many rows of the journal a batch has; batches are numbered from 1."""
    return 1 + number * 7 % 13


_CYCLE = list(accumulate((size_of(number) for number in range(1, 14)), initial=0))


def head_after(number: int) -> int:
    """The offset of the last row of a batch."""
    cycles, rest = divmod(number, 13)
    return cycles * _CYCLE[-1] + _CYCLE[rest]


def batch(number: int) -> Batch:
    head = head_after(number)
    forgotten = [] if number % 10 else [f"run-{(number + 5) % RUNS}"]
    return Batch(
        journal=rows(head - size_of(number) + 1, head, size=300),
        runs=[run(f"run-{number % RUNS}", b"%d" % number)],
        forgotten=forgotten,
        numbers={"batch": number},
        durations=[took(1.0, number)],
        closed=[f"closed-{number}"],
    )


def check(store: Store) -> int:
    """Everything in the store is what a number of whole batches left there; returns that number."""
    number = store.numbers().get("batch", 0)
    head = head_after(number)
    journal = list(store.journal_from(0))
    first = journal[0].offset if journal else head + 1
    assert journal == [row(offset, size=300) for offset in range(first, head + 1)]
    expected: dict[str, bytes] = {}
    for one in range(1, number + 1):
        for run_id in batch(one).forgotten:
            expected.pop(run_id, None)
        expected.update((kept.run_id, kept.state) for kept in batch(one).runs)
    found = list(store.runs())
    assert {one.run_id: one.state for one in found} == expected
    assert len(found) == len(expected)
    assert store.closed() == [f"closed-{one}" for one in range(1, number + 1)]
    assert (store.baseline("", "load", "") is not None) == (number >= 3)
    return number


def append_until_killed(folder: Path, durability: str) -> None:
    store = SqliteStore(folder, durability, upkeep_after_bytes=100_000)
    store.open()
    number = store.numbers().get("batch", 0)

    def trim() -> None:
        while True:
            store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=head_after(number) - 200)

    threading.Thread(target=trim, daemon=True).start()
    while True:
        number += 1
        store.append(batch(number))
        os.write(1, b"ack %d\n" % number)


class Countdown:
    """Kills this process before the nth statement, or write to the mark."""

    def __init__(self, points: int) -> None:
        self._left = points

    def __call__(self, statement: object = None) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def die_before(points: int, folder: Path) -> None:
    """All that a store does, once; what was acknowledged stands in a file beside it."""
    countdown = Countdown(points)
    connect = sqlite.connect

    def traced(*args, **how):
        connection = connect(*args, **how)
        connection.set_trace_callback(countdown)
        return connection

    class Mark(MarkFile):
        def write(self, mark) -> None:
            countdown()
            super().write(mark)
            countdown()

    opening.connect = sqlite.connect = traced
    sqlite.MarkFile = Mark
    acknowledged = os.open(folder.with_suffix(".acknowledged"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for start in (1, 6):
        store = SqliteStore(folder, "disk", upkeep_after_bytes=200)
        store.open()
        for number in range(start, start + 5):
            store.append(batch(number))
            os.write(acknowledged, b"%d\n" % number)
        store.rotate_cursor_secret()
        store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=head_after(start))
        store.probe()
        eventually(lambda: changes_in(folder) < 5)
        store.close()


def changes_in(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "collector.sqlite3")) as connection:
        return connection.execute("SELECT count(*) FROM run_changes").fetchone()[0]


def in_a_child(work: Callable[[], None]) -> tuple[int, int]:
    """Its process id and how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    return child, os.waitpid(child, 0)[1]


def die_at_every_point(folder: Path) -> None:
    """In a process for each; says the name of each store, the last of which was closed."""
    points = 0
    status: int = signal.SIGKILL
    while status == signal.SIGKILL:
        points += 1
        store = folder / f"{points:04}"
        _, status = in_a_child(lambda: die_before(points, store))  # noqa: B023  done when it returns
        print(store.name)
    if status:
        raise SystemExit(f"a child ended with status {status}")


def main(folder: str, what: str) -> None:
    """One program for many processes: they are forked, which is faster than a start.

    `disk`, `fsync`: for each line of input a process that says its id, then `ack N` for each batch it appended, until
    it is killed; then `dead`. `points`: a process for each point where it can be killed.
    """
    if what == "points":
        die_at_every_point(Path(folder))
        return

    def append() -> None:
        os.write(1, b"pid %d\n" % os.getpid())
        append_until_killed(Path(folder), what)

    for _ in sys.stdin:
        in_a_child(append)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
