"""What a store is: one interface, so that the host does not know where things are kept.

One writer, the host, calls `append` once per commit cycle; everything in it becomes durable together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from otelprogress.model.estimate import Baseline

Durability = Literal["memory", "disk", "fsync"]
"""`memory`: gone with the process; `disk`: survives SIGKILL, a power cut may cost the tail; `fsync`: survives that too."""


class StoreUnavailable(Exception):
    """Nothing was written: the disk is full or broken. The same call may succeed later."""


class StoreCorrupt(Exception):
    """What is on the disk is not what was written; the message says where and what was done about it."""


class JournalRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One entry of the log of durable events, as `protocol.journal.Entry` holds it."""

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


class RunRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The state of one run, as `model.persistence` dumped it."""

    run_id: str
    state: bytes
    live: bool
    ended_at_unix_ns: int | None
    """By the host's clock, for retention; `None` while it lives."""


class Duration(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How long an operation (empty step name) or one of its steps took once."""

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
    """Ids of runs whose state is no longer wanted."""
    durations: list[Duration] = []
    numbers: dict[str, int] = {}
    """The last handle number given, by slug."""


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


class Store(Protocol):
    """See the module. Not thread-safe but for `append`, which the host may call from a worker thread, one at a time."""

    durability: Durability

    def open(self) -> Opened:
        """Make, migrate or verify what is there.

        Raises:
            StoreUnavailable: it cannot be opened (permissions, a lock of another collector, a full disk).
        """

    def append(self, batch: Batch) -> None:
        """Make a batch durable, as `durability` says, before it returns.

        Raises:
            StoreUnavailable: nothing of it was written.
        """

    def probe(self) -> bool:
        """Whether an `append` would have room again, without waiting long."""

    def journal_from(self, offset: int) -> Iterator[JournalRow]:
        """Rows after `offset`, oldest first."""

    def journal_tail(self, count: int) -> list[JournalRow]:
        """The newest `count` rows, oldest first."""

    def runs(self) -> Iterator[RunRow]:
        """The state of every run that is kept, in the order in which they were first kept."""

    def numbers(self) -> dict[str, int]:
        """The last handle number given, by slug."""

    def baseline(self, tenant: str, name: str, step_name: str) -> Baseline | None:
        """Median and quartiles of the newest successful durations (at most 100); `None`: fewer than three."""

    def trim(self, *, older_than_unix_ns: int, max_bytes: int, keep_from: int) -> int:
        """Drop a bounded slice of journal rows beyond retention; how many went. Never those at or after `keep_from`.

        Called now and then on a worker thread beside `append`: one call takes at most some 50 ms.
        """

    def size_bytes(self) -> int:
        """What it takes on the disk (or in memory), about."""

    def backup(self, path: str) -> None:
        """A consistent copy, while it is in use.

        Raises:
            StoreUnavailable: the copy could not be written.
        """

    def close(self) -> None:
        """Give everything back. A second call does nothing."""


def rows_size(rows: Iterable[JournalRow] | Sequence[JournalRow]) -> int:
    """About how many bytes rows take."""
    return sum(len(row.encoded) + len(row.facts) + 64 for row in rows)
