"""Carries the write-ahead log over into the database, on a thread of its own, so that commits need not.

A checkpoint goes beside commits, and the log can begin anew only at a moment when all of it was carried over. Under
steady load such a moment never comes by itself, so the last, small part is done while nothing is committed.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Final

from otelprogress_collector.store.database import close_quietly

_LOG = logging.getLogger("otelprogress_collector.store")

AFTER_BYTES: Final = 16 * 2**20
"""Appended since the last checkpoint: then comes the next."""
COMMIT_BYTES: Final = 16_384
"""What a commit writes beside what it was given: the pages on the way to it."""
_SMALL_REST_PAGES: Final = 512
_MAX_ROUNDS: Final = 4
"""Beside commits; afterwards the rest is done while they wait, however much it is."""


class Checkpointer:
    """See the module.

    Args:
        connect: makes the connection.
        writing: held by whoever commits.
        after_bytes: how much may be appended between two checkpoints.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        writing: threading.Lock,
        after_bytes: int = AFTER_BYTES,
    ) -> None:
        self._connection = connect()
        self._writing = writing
        self._after_bytes = after_bytes
        self._appended_bytes = 0
        self._wake = threading.Event()
        self._closing = False
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="otelprogress-checkpointer", daemon=True)
        self._thread.start()

    def appended(self, size_bytes: int) -> None:
        """Say that so much was committed; by whoever holds `writing`."""
        self._appended_bytes += size_bytes + COMMIT_BYTES
        if self._appended_bytes >= self._after_bytes:
            self._appended_bytes = 0
            self._wake.set()

    def hurry(self) -> None:
        """Make room in the write-ahead log as soon as possible: the disk is full."""
        self._wake.set()

    def close(self) -> None:
        """End the thread; the connection that is closed last carries the rest over."""
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
                self._checkpoint()
                self._complained = False
            except sqlite3.Error as error:
                # A full disk, mostly. The log grows until there is room; `append` says what matters.
                if not self._complained:
                    _LOG.warning("the write-ahead log cannot be carried over now: %s", error)
                self._complained = True

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
