"""The store that keeps nothing: everything is gone with the process, and each start has a new epoch."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice
from typing import Final

from otelprogress.model.estimate import Baseline
from otelprogress_collector.store.durations import (
    FORGOTTEN_AT_ONCE,
    KEPT_NAMES,
    Key,
    Took,
    baseline_of,
    by_key,
    merged,
)
from otelprogress_collector.store.epoch import CURSOR_SECRET_BYTES, new_epoch
from otelprogress_collector.store.interface import (
    KEPT_CLOSED,
    Batch,
    Durability,
    JournalRow,
    Opened,
    RunRow,
    StoreUnavailable,
    Verified,
    check_offsets,
    rows_size,
)

TRIM_SLICE_ROWS: Final = 10_000
_RUN_BYTES: Final = 200
"""What a run takes beside its state: the row, its id, a place in a dict."""


class MemoryStore:
    """See the module."""

    durability: Durability = "memory"

    def __init__(self) -> None:
        self._opened: Opened | None = None
        self._closed = False
        # `append` and `trim` come from worker threads.
        self._lock = threading.Lock()
        self._journal: deque[JournalRow] = deque()
        self._head = 0
        self._journal_bytes = 0
        self._runs: dict[str, RunRow] = {}
        self._run_bytes = 0
        self._numbers: dict[str, int] = {}
        self._closed_runs: dict[str, None] = {}
        self._durations: dict[Key, list[Took]] = {}
        self._secret = secrets.token_bytes(CURSOR_SECRET_BYTES)

    def open(self) -> Opened:
        """Begin."""
        if self._closed:
            raise StoreUnavailable("the store was closed")
        if self._opened is None:
            self._opened = Opened(
                epoch=new_epoch(),
                cursor_secret=self._secret,
                previous_cursor_secret=None,
                head=0,
                first=1,
            )
        return self._opened

    def append(self, batch: Batch) -> None:
        """Keep a batch."""
        self._check_open()
        check_offsets(batch, self._head)
        with self._lock:
            self._journal.extend(batch.journal)
            self._head += len(batch.journal)
            self._journal_bytes += rows_size(batch.journal)
            for run_id in batch.forgotten:
                self._forget(run_id)
            for run in batch.runs:
                before = self._runs.get(run.run_id)
                self._run_bytes += len(run.state) - (len(before.state) if before else -_RUN_BYTES)
                self._runs[run.run_id] = run
            self._numbers.update(batch.numbers)
            for slug in [slug for slug, number in batch.numbers.items() if not number]:
                del self._numbers[slug]
            self._closed_runs.update(dict.fromkeys(batch.closed))
            for run_id in list(islice(self._closed_runs, max(0, len(self._closed_runs) - KEPT_CLOSED))):
                del self._closed_runs[run_id]
            for key, new in by_key(batch.durations).items():
                self._durations[key] = merged(self._durations.get(key, ()), new)
            if len(self._durations) > KEPT_NAMES:
                for key in nsmallest(FORGOTTEN_AT_ONCE, self._durations, key=self._last_ended):
                    del self._durations[key]

    def _last_ended(self, key: Key) -> tuple[int, Key]:
        return (self._durations[key][-1].ended_at_unix_ns, key)

    def _forget(self, run_id: str) -> None:
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._run_bytes -= len(run.state) + _RUN_BYTES

    def _check_open(self) -> None:
        if self._opened is None or self._closed:
            raise StoreUnavailable("the store is not open")

    def probe(self) -> bool:
        """Memory always has room, until it is closed."""
        return self._opened is not None and not self._closed

    def journal_from(self, offset: int) -> Iterator[JournalRow]:
        """Rows after `offset`, oldest first."""
        self._check_open()
        with self._lock:
            skipped = max(0, offset - (self._head - len(self._journal)))
            return iter(list(islice(self._journal, skipped, None)))

    def journal_tail(self, count: int) -> list[JournalRow]:
        """The newest `count` rows, oldest first."""
        self._check_open()
        with self._lock:
            return list(islice(self._journal, max(0, len(self._journal) - count), None))

    def runs(self) -> Iterator[RunRow]:
        """Every run that is kept."""
        self._check_open()
        with self._lock:
            return iter(list(self._runs.values()))

    def numbers(self) -> dict[str, int]:
        """The last handle number given, by slug."""
        self._check_open()
        with self._lock:
            return dict(self._numbers)

    def closed(self) -> list[str]:
        """Ids of runs whose spans were closed, oldest first."""
        self._check_open()
        with self._lock:
            return list(self._closed_runs)

    def baseline(self, tenant: str, name: str, step_name: str) -> Baseline | None:
        """Median and quartiles; `None`: fewer than three."""
        self._check_open()
        return baseline_of(self._durations.get((tenant, name, step_name), ()))

    def trim(self, *, older_than_unix_ns: int, max_bytes: int, keep_from: int) -> int:
        """Drop the oldest rows beyond retention; how many went."""
        self._check_open()
        journal = self._journal
        dropped = 0
        with self._lock:
            while journal and dropped < TRIM_SLICE_ROWS:
                oldest = journal[0]
                expired = oldest.time_unix_ns < older_than_unix_ns or self.size_bytes() > max_bytes
                if not expired or oldest.offset >= keep_from:
                    break
                journal.popleft()
                self._journal_bytes -= rows_size((oldest,))
                dropped += 1
        return dropped

    def verify(self, after: int = 0) -> Verified:
        """Memory is what was written to it."""
        self._check_open()
        return Verified(through=self._head, first_bad=None, done=True)

    def rotate_cursor_secret(self) -> tuple[bytes, bytes]:
        """Make a new cursor secret; returns it and the one before."""
        self._check_open()
        previous, self._secret = self._secret, secrets.token_bytes(CURSOR_SECRET_BYTES)
        return self._secret, previous

    def size_bytes(self) -> int:
        """What journal and runs take, about."""
        return self._journal_bytes + self._run_bytes

    def backup(self, path: str) -> None:
        """Not possible."""
        raise StoreUnavailable(
            "nothing is on the disk that could be copied: durability is `memory`; start with `disk` or `fsync`"
        )

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            self._journal.clear()
            self._runs.clear()
            self._durations.clear()
            self._numbers.clear()
            self._closed_runs.clear()
            self._journal_bytes = self._run_bytes = 0
