"""What is done to the database beside commits, on a thread of its own, so that none of them has to wait for long.

- The states of runs are carried over from the log of changes into their table.
- The write-ahead log is carried over into the database. That goes beside commits, but the log can begin anew only
  at a moment when all of it was carried over, and under steady load such a moment never comes by itself. So the
  last, small part is done while nothing is committed.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from typing import Final

from otelprogress_collector.store.database import close_quietly
from otelprogress_collector.store.run_changes import fold
from otelprogress_collector.store.schema import transaction

_LOG = logging.getLogger("otelprogress_collector.store")

AFTER_BYTES: Final = 16 * 2**20
"""Appended since the last time, or waiting in the log of changes: then there is something to do."""
_COMMIT_BYTES: Final = 16_384
"""What a commit writes beside what it was given: the pages on the way to it."""
_SMALL_REST_PAGES: Final = 256
_MAX_ROUNDS: Final = 4
"""Of a checkpoint beside commits; afterwards the rest is done while they wait, however much it is."""
_PAUSE_S: Final = 0.001
"""Between two transactions: a lock that is taken again at once is never had by whoever waits for it."""


class Upkeep:
    """See the module.

    Args:
        connection: its own; closed in the end.
        writing: held by whoever commits.
        changes_bytes: what waits in the log of changes already.
        after_bytes: appended, or changed of runs, before there is something to do.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        writing: threading.Lock,
        *,
        changes_bytes: int,
        after_bytes: int,
    ) -> None:
        self._connection = connection
        self._writing = writing
        self._after_bytes = after_bytes
        self._appended_bytes = 0
        self._changes_bytes = changes_bytes
        self._wake = threading.Event()
        self._closing = False
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="otelprogress-store", daemon=True)
        self._thread.start()

    def appended(self, size_bytes: int, changes_bytes: int) -> None:
        """Say what was committed, and how much of it were changes of runs; by whoever holds `writing`."""
        self._appended_bytes += size_bytes + _COMMIT_BYTES
        self._changes_bytes += changes_bytes
        if self._appended_bytes >= self._after_bytes:
            self._appended_bytes = 0
            self._wake.set()

    def hurry(self) -> None:
        """Make room in the write-ahead log as soon as possible: the disk is full."""
        self._wake.set()

    def close(self) -> None:
        """End the thread; whoever closes the last connection carries the rest of the write-ahead log over."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        close_quietly(self._connection)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            try:
                if self._changes_bytes >= self._after_bytes:
                    self._fold()
                self._checkpoint()
                self._complained = False
            except Exception as error:
                # A full disk, mostly: the next commit that succeeds brings us back. What matters, `append` says.
                # Whatever it is, without this thread the write-ahead log would grow without end.
                if not self._complained:
                    _LOG.warning("upkeep of the store failed, it grows until it succeeds: %s", error)
                self._complained = True

    def _fold(self) -> None:
        with self._writing:
            before_bytes, self._changes_bytes = self._changes_bytes, 0
        try:
            steps = fold(self._connection)
            while not self._closing:
                with self._writing, transaction(self._connection):
                    if next(steps, self) is self:
                        return
                time.sleep(_PAUSE_S)
        except BaseException:
            with self._writing:
                self._changes_bytes += before_bytes
            raise

    def _checkpoint(self) -> None:
        for _ in range(_MAX_ROUNDS):
            if self._carry_over() <= _SMALL_REST_PAGES:
                break
        with self._writing:
            self._carry_over()

    def _carry_over(self) -> int:
        """Returns how many pages are left."""
        _, pages, carried_over = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(pages - carried_over)
