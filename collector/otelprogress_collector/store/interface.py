"""What a store is: one interface, so that the host does not know where things are kept.

One writer, the host, calls `append` once per commit cycle; everything in it becomes durable together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, Protocol

import msgspec

from otelprogress.model.estimate import Baseline

KEPT_CLOSED: Final = 100_000
"""Runs of which it is remembered that the collector closed their spans."""

Durability = Literal["memory", "disk", "fsync"]
"""`memory`: gone with the process; `disk`: survives SIGKILL, a power cut may cost the tail; `fsync`: survives that too."""


class StoreUnavailable(Exception):
    """Nothing was written: the disk is full or broken. The same call may succeed later."""


class StoreCorrupt(Exception):
    """What is on the disk is not what was written; the message says where and what was done about it."""


class JournalRow(msgspec.Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """One entry of the log of durable events, as `protocol.journal.Entry` holds it.

    Kept on the disk as the array of its fields: new ones go to the end and have a default.
    """

    offset: int
    """From 1, without holes."""
    run_id: str
    revision: int
    time_unix_ns: int
    """The host's clock when it was appended; retention by age goes by it."""
    encoded: bytes
    """The JSON of the feed event; empty for an eviction."""
    facts: bytes
    """msgpack of (after, before): before is `null` for a run that is new, `true` when the same as after."""
    terminal: bool = False
    evicted: bool = False


class RunRow(msgspec.Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """The state of one run, as `model.persistence` dumped it. Kept on the disk as `JournalRow` is."""

    run_id: str
    state: bytes
    live: bool
    ended_at_unix_ns: int | None
    """By the host's clock, for retention; `None` while it lives."""


class Duration(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How long an operation (empty step name) or one of its steps took once.

    Only those that succeeded are kept, the newest 100 of a name; a negative or infinite one is left out.
    """

    tenant: str
    name: str
    step_name: str
    duration_s: float
    outcome: str
    ended_at_unix_ns: int


class Batch(msgspec.Struct, gc=False, kw_only=True):
    """What one commit cycle makes durable, all or nothing."""

    journal: list[JournalRow] = []
    runs: list[RunRow] = []
    """Replace what is kept under the same id."""
    forgotten: list[str] = []
    """Ids of runs whose state is no longer wanted; one that is in `runs` as well is kept, as a new one."""
    durations: list[Duration] = []
    numbers: dict[str, int] = {}
    """The last handle number given, by slug, behind its tenant and a slash where there is one; 0: it is forgotten."""
    closed: list[str] = []
    """Ids of runs whose spans the collector closed: their true spans must not be sent under the same ids."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What a store knows when it was opened and its tail was verified."""

    epoch: str
    """Of the log. New after a restore, a truncated log, a recreated store, or (but for `fsync`) another boot id."""
    cursor_secret: bytes
    previous_cursor_secret: bytes | None
    head: int
    """The offset of the newest journal row; 0: none."""
    first: int
    """The offset of the oldest one; head + 1 when there is none."""
    notes: tuple[str, ...] = ()
    """What was found and done, for the log: a tail that was cut, a migration, a new epoch and why."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a slice of the journal found."""

    through: int
    """The offset up to which it was looked at: where the next slice begins."""
    first_bad: int | None
    """The first offset whose row is not what was written, or is missing; `None`: all of them are."""
    done: bool
    """Whether that was the last slice."""


class Store(Protocol):
    """See the module.

    The reading methods belong to one thread, the host's. `append`, `probe`, `trim`, `verify`, `backup` and
    `rotate_cursor_secret` may be called from worker threads, each of them by one at a time.
    """

    durability: Durability

    def open(self) -> Opened:
        """Make, migrate or verify what is there. A second call returns the same again.

        Raises:
            StoreUnavailable: it cannot be opened (permissions, a lock of another collector, a full disk).
        """

    def append(self, batch: Batch) -> None:
        """Make a batch durable, as `durability` says, before it returns.

        Raises:
            StoreUnavailable: nothing of it was written.
            ValueError: the journal's offsets do not follow the head, or a value cannot be kept; nothing of it
                was written.
        """

    def probe(self) -> bool:
        """Whether an `append` would have room again: writes as much as the last one that failed, 4 MiB at most.

        Call it now and then, not in a loop. Never raises.
        """

    def journal_from(self, offset: int) -> Iterator[JournalRow]:
        """Rows after `offset` (or after what was trimmed), oldest first, up to those that are there at the time.

        Raises:
            StoreCorrupt: the next row is not what was written; the ones before it were given.
        """

    def journal_tail(self, count: int) -> list[JournalRow]:
        """The newest `count` rows, oldest first; fewer where one of them is not what was written."""

    def runs(self) -> Iterator[RunRow]:
        """The state of every run that is kept, in the order in which they were first kept.

        Raises:
            StoreCorrupt: one is not what was written, though it was when the store was opened.
        """

    def numbers(self) -> dict[str, int]:
        """The last handle number given, by slug."""

    def closed(self) -> list[str]:
        """Ids of runs whose spans were closed, oldest first; the newest `KEPT_CLOSED`."""

    def baseline(self, tenant: str, name: str, step_name: str) -> Baseline | None:
        """Median and quartiles of the newest successful durations (at most 100); `None`: fewer than three."""

    def trim(self, *, older_than_unix_ns: int, max_bytes: int, keep_from: int) -> int:
        """Drop a bounded slice of the oldest journal rows beyond retention; how many went.

        Called on a worker thread beside `append` until it returns 0; one call takes at most some 50 ms. Rows that
        were appended together may stay until all of them may go.

        Args:
            older_than_unix_ns: rows with an earlier time go.
            max_bytes: while `size_bytes()` is more than that, the oldest go.
            keep_from: rows at or after this offset never go.

        Raises:
            StoreUnavailable: it could not be written.
        """

    def verify(self, after: int = 0) -> Verified:
        """Look at a slice of the journal after an offset, in the background: what `open` left out for its size.

        Raises:
            StoreUnavailable: it could not be read now.
        """

    def rotate_cursor_secret(self) -> tuple[bytes, bytes]:
        """Make a new cursor secret and keep the present one as the previous; returns both, the new one first.

        Raises:
            StoreUnavailable: it could not be written; the present one stands.
        """

    def size_bytes(self) -> int:
        """What it takes on the disk (or in memory), about, without room that will be used again."""

    def backup(self, path: str) -> None:
        """A consistent copy, while it is in use; what was at `path` is replaced. Whoever opens it gets a new epoch.

        Raises:
            StoreUnavailable: the copy could not be written; or nothing is on the disk (`memory`).
        """

    def close(self) -> None:
        """Give everything back. A second call does nothing."""


def rows_size(rows: Iterable[JournalRow] | Sequence[JournalRow]) -> int:
    """About how many bytes rows take."""
    return sum(len(row.encoded) + len(row.facts) + 64 for row in rows)


def check_offsets(batch: Batch, head: int) -> None:
    """Raise ValueError unless the batch's rows follow the head, without a hole."""
    for expected, row in enumerate(batch.journal, head + 1):
        if row.offset != expected:
            raise ValueError(f"the journal goes on at offset {expected}, not {row.offset}")
