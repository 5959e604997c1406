"""A copy of the database, made while it is in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from otelprogress_collector.store.database import EPOCH, RESTORED_FROM, read_meta, write_meta
from otelprogress_collector.store.interface import StoreUnavailable

_PARTIAL: Final = ".partial"


def copy_database(source: Path, destination: Path) -> None:
    """Copy a database as it is at one moment; needs no lock on the data directory.

    The copy is one file of mode 0600 and appears under its name whole or not at all. It bears a mark: as a store it
    begins a new epoch. Meanwhile the source's write-ahead log grows with what is appended.

    Raises:
        StoreUnavailable: there is no database, or the copy could not be written.
    """
    partial = destination.with_name(destination.name + _PARTIAL)
    try:
        if not source.is_file():
            raise StoreUnavailable(f"there is no database at {source}")
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        try:
            _copy(source, partial)
            _sync(partial)
            partial.replace(destination)
            _sync(destination.parent)
        except BaseException:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    partial.with_name(partial.name + suffix).unlink(missing_ok=True)
            raise
    except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
        raise StoreUnavailable(f"{source} cannot be copied to {destination}: {error}") from error


def _copy(source: Path, partial: Path) -> None:
    # Not by `connect` of database.py, which would make what is not there: the source is only read.
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as original,
        contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy,
    ):
        # All at once: in steps it would begin anew at each commit between them.
        original.backup(copy)
        copy.text_factory = bytes
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        meta, _ = read_meta(copy)
        write_meta(copy, {RESTORED_FROM: meta.get(EPOCH, b"unknown")})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
