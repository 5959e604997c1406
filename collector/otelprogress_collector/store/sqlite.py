"""The store on the disk: one SQLite database with a write-ahead log, and a mark of what was acknowledged beside it.

A batch is one transaction. Commits, the trimming of the journal and the last part of a checkpoint take turns by a
lock; everything else has connections of its own and goes beside them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from otelprogress.model.estimate import Baseline
from otelprogress_collector.store import reading, retention
from otelprogress_collector.store.backup import copy_database
from otelprogress_collector.store.data_dir import DataDir
from otelprogress_collector.store.database import (
    CURSOR_SECRET,
    PREVIOUS_CURSOR_SECRET,
    close_quietly,
    connect,
    used_bytes,
    write_meta,
)
from otelprogress_collector.store.durations import baseline_of
from otelprogress_collector.store.epoch import CURSOR_SECRET_BYTES
from otelprogress_collector.store.faults import is_malformed
from otelprogress_collector.store.interface import (
    Batch,
    Durability,
    JournalRow,
    Opened,
    RunRow,
    StoreCorrupt,
    StoreUnavailable,
    Verified,
    check_offsets,
    rows_size,
)
from otelprogress_collector.store.mark import Mark, MarkFile
from otelprogress_collector.store.opening import How, open_database, read_boot_id
from otelprogress_collector.store.records import chunks_of
from otelprogress_collector.store.run_changes import read_runs
from otelprogress_collector.store.schema import MIGRATIONS, Migration, transaction
from otelprogress_collector.store.upkeep import AFTER_BYTES, Upkeep
from otelprogress_collector.store.verification import TAIL_OFFSETS, look_at_slice
from otelprogress_collector.store.writing import write_batch

TRIM_S: Final = 0.04
"""How long one call of `trim` goes on making the file shorter."""
RUN_BYTES: Final = 64
"""About what a state of a run takes beside the state."""
_PROBE_WAIT_S: Final = 0.1
_MIN_PROBE_BYTES: Final = 64 * 2**10
_MAX_PROBE_BYTES: Final = 4 * 2**20
_PROBE: Final = "probe"


class SqliteStore:
    """See the module.

    Args:
        data_dir: made with mode 0700 where it is missing; this process has it alone until `close`.
        durability: `disk`: a commit is in the kernel's hands when `append` returns; `fsync`: on the medium.
        boot_id: of this start of the machine; empty: ask it.
        migrations: the tables.
        tail_offsets: how many of the newest rows are checked before the store serves.
        upkeep_after_bytes: appended, or changed of runs, before upkeep has something to do.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        durability: Literal["disk", "fsync"],
        *,
        boot_id: str = "",
        migrations: Sequence[Migration] = MIGRATIONS,
        tail_offsets: int = TAIL_OFFSETS,
        upkeep_after_bytes: int = AFTER_BYTES,
    ) -> None:
        self.durability: Durability = durability
        self._path = Path(data_dir)
        self._how = How(
            durability=durability,
            boot_id=boot_id or read_boot_id(),
            migrations=migrations,
            tail_offsets=tail_offsets,
        )
        self._upkeep_after_bytes = upkeep_after_bytes
        self._parts: _Parts | None = None
        self._closed = False
        self._writing = threading.Lock()
        """Held while something is committed."""
        self._beside = threading.Lock()
        """Held while the connection for `trim` and `verify` is used."""
        self._head = 0
        self._failed_bytes = 0
        """Of the last batch that could not be written."""

    def open(self) -> Opened:
        """Make, migrate or verify what is there. See `Store.open`."""
        if self._parts is None:
            if self._closed:
                raise StoreUnavailable("the store was closed")
            self._parts = _open_all(self._path, self._how, self._writing, self._upkeep_after_bytes)
            self._head = self._parts.opened.head
        return self._parts.opened

    @property
    def _in_use(self) -> _Parts:
        if self._parts is None:
            raise StoreUnavailable("the store is not open")
        return self._parts

    # --- writing -------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> None:
        """Make a batch durable. See `Store.append`."""
        with self._writing:
            parts = self._in_use
            check_offsets(batch, self._head)
            runs_bytes = sum([len(run.state) + RUN_BYTES for run in batch.runs])
            size_bytes = rows_size(batch.journal) + runs_bytes
            try:
                chunks = list(chunks_of(batch.journal))
                with transaction(parts.writer):
                    write_batch(parts.writer, chunks, batch)
            except (OverflowError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:
                raise ValueError(f"this cannot be kept: {error}") from error
            except sqlite3.Error as error:
                self._failed_bytes = size_bytes
                parts.upkeep.hurry()
                raise self._unavailable("nothing was written", error) from error
            if chunks:
                self._head = chunks[-1].last_offset
                # It only tells the next start what to expect: the batch is safe without it.
                with contextlib.suppress(OSError):
                    parts.mark.write(Mark(parts.opened.epoch, self._head, parts.inode))
            parts.upkeep.appended(size_bytes, runs_bytes)

    def probe(self) -> bool:
        """Whether an `append` would have room again. See `Store.probe`."""
        if not self._writing.acquire(timeout=_PROBE_WAIT_S):
            return False
        try:
            writer = self._in_use.writer
            size_bytes = min(max(self._failed_bytes, _MIN_PROBE_BYTES), _MAX_PROBE_BYTES)
            # Two transactions: what is taken back before it is committed never reaches the disk.
            with transaction(writer):
                write_meta(writer, {_PROBE: os.urandom(size_bytes)})
            with transaction(writer):
                write_meta(writer, {_PROBE: None})
        except (StoreUnavailable, sqlite3.Error):
            return False
        else:
            return True
        finally:
            self._writing.release()

    def rotate_cursor_secret(self) -> tuple[bytes, bytes]:
        """Make a new cursor secret. See `Store.rotate_cursor_secret`."""
        with self._writing:
            parts = self._in_use
            previous, secret = parts.cursor_secret, secrets.token_bytes(CURSOR_SECRET_BYTES)
            try:
                with transaction(parts.writer):
                    write_meta(parts.writer, {CURSOR_SECRET: secret, PREVIOUS_CURSOR_SECRET: previous})
            except sqlite3.Error as error:
                raise self._unavailable("the cursor secret was not changed", error) from error
            parts.cursor_secret = secret
            return secret, previous

    def trim(self, *, older_than_unix_ns: int, max_bytes: int, keep_from: int) -> int:
        """Drop a slice of the journal beyond retention, and give room back. See `Store.trim`."""
        try:
            with self._beside:
                parts = self._in_use
                slice_ = retention.expired(
                    parts.side,
                    older_than_unix_ns=older_than_unix_ns,
                    max_bytes=max_bytes,
                    keep_from=keep_from,
                )
                if slice_ is not None:
                    with self._writing, transaction(parts.side):
                        retention.drop(parts.side, slice_)
                end_s = time.monotonic() + TRIM_S
                while retention.has_room_to_give_back(parts.side) and time.monotonic() < end_s:
                    with self._writing:
                        retention.give_room_back(parts.side)
        except sqlite3.Error as error:
            raise self._unavailable("the journal could not be trimmed", error) from error
        return slice_.entries if slice_ is not None else 0

    # --- reading -------------------------------------------------------------------------------------------

    def journal_from(self, offset: int) -> Iterator[JournalRow]:
        """Rows after `offset`, oldest first. See `Store.journal_from`."""
        with self._reading():
            yield from reading.journal_from(self._in_use.reader, offset, self._head)

    def journal_tail(self, count: int) -> list[JournalRow]:
        """The newest `count` rows, oldest first. See `Store.journal_tail`."""
        with self._reading():
            return reading.journal_tail(self._in_use.reader, count)

    def runs(self) -> Iterator[RunRow]:
        """The state of every run that is kept. See `Store.runs`."""
        path = self._in_use.folder.database
        # A view of its own: states wander from one table to the other meanwhile.
        with self._reading(), contextlib.closing(connect(path, self.durability)) as connection:
            connection.execute("BEGIN")
            yield from read_runs(connection)

    def numbers(self) -> dict[str, int]:
        """The last handle number given, by slug."""
        with self._reading():
            return reading.numbers(self._in_use.reader)

    def closed(self) -> list[str]:
        """Ids of runs whose spans were closed, oldest first. See `Store.closed`."""
        with self._reading():
            return reading.closed(self._in_use.reader)

    def baseline(self, tenant: str, name: str, step_name: str) -> Baseline | None:
        """Median and quartiles of the newest successful durations. See `Store.baseline`."""
        with self._reading():
            return baseline_of(reading.durations(self._in_use.reader, (tenant, name, step_name)))

    def verify(self, after: int = 0) -> Verified:
        """Look at a slice of the journal. See `Store.verify`."""
        with self._beside:
            side = self._in_use.side
            try:
                return look_at_slice(side, after)
            except sqlite3.Error as error:
                if is_malformed(error, self._database):
                    return Verified(through=after, first_bad=after + 1, done=True)
                raise self._unavailable("the journal could not be read", error) from error

    def size_bytes(self) -> int:
        """What it takes on the disk, about. See `Store.size_bytes`."""
        with self._reading():
            return used_bytes(self._in_use.reader)

    def backup(self, path: str) -> None:
        """A consistent copy, while it is in use. See `Store.backup`."""
        copy_database(self._in_use.folder.database, Path(path))

    def close(self) -> None:
        """Carry the write-ahead log over and give everything back. A second call does nothing."""
        self._closed = True
        parts = self._parts
        if parts is None:
            return
        parts.upkeep.close()
        with self._beside, self._writing:
            self._parts = None
            parts.close()

    @property
    def _database(self) -> Path:
        return self._in_use.folder.database

    def _unavailable(self, what: str, error: sqlite3.Error) -> StoreUnavailable:
        advice = (
            ": the database is malformed; the next start sets it aside"
            if is_malformed(error, self._database)
            else ""
        )
        return StoreUnavailable(f"{what}: {error}{advice}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_malformed(error, self._database):
                raise StoreCorrupt(
                    f"{self._database} is malformed: {error}; the next start sets it aside"
                ) from error
            raise self._unavailable("the store could not be read", error) from error


class _Parts(msgspec.Struct, kw_only=True):
    """Everything that is open."""

    folder: DataDir
    mark: MarkFile
    inode: int
    opened: Opened
    cursor_secret: bytes
    writer: sqlite3.Connection
    """Used by whoever holds `writing`."""
    reader: sqlite3.Connection
    """The host's."""
    side: sqlite3.Connection
    """Used by whoever holds `beside`."""
    upkeep: Upkeep

    def close(self) -> None:
        """Give it back; upkeep is closed by then."""
        for connection in (self.side, self.reader, self.writer):
            close_quietly(connection)
        self.mark.close()
        self.folder.release()


def _open_all(path: Path, how: How, writing: threading.Lock, upkeep_after_bytes: int) -> _Parts:
    with contextlib.ExitStack() as undo:
        folder = DataDir(path)
        undo.callback(folder.release)
        try:
            mark = MarkFile(folder.mark)
        except OSError as error:
            raise StoreUnavailable(f"{folder.mark} cannot be opened: {error.strerror}") from error
        undo.callback(mark.close)
        writer, opened = open_database(folder, mark, how)
        undo.callback(close_quietly, writer)
        try:
            reader, side, upkeeper = (
                undo.enter_context(
                    contextlib.closing(connect(folder.database, how.durability, cache_kib=kib))
                )
                for kib in (2_048, 4_096, 16_384)
            )
            (changes_bytes,) = reader.execute("SELECT sum(length(changes)) FROM run_changes").fetchone()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{folder.database} cannot be opened: {error}") from error
        undo.pop_all()
        return _Parts(
            folder=folder,
            mark=mark,
            inode=folder.database.stat().st_ino,
            opened=opened,
            cursor_secret=opened.cursor_secret,
            writer=writer,
            reader=reader,
            side=side,
            upkeep=Upkeep(
                upkeeper, writing, changes_bytes=int(changes_bytes or 0), after_bytes=upkeep_after_bytes
            ),
        )
