"""What happens before a database serves.

It is made or migrated, verified, mended where it can be, and its log gets a new name where it is no longer the one
that cursors were made for.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from otelprogress_collector.store import database
from otelprogress_collector.store.data_dir import DataDir
from otelprogress_collector.store.database import close_quietly, connect, read_meta, write_meta
from otelprogress_collector.store.epoch import CURSOR_SECRET_BYTES, Found, new_epoch, reasons_for_new_epoch
from otelprogress_collector.store.faults import Malformed, is_malformed
from otelprogress_collector.store.interface import Durability, Opened, StoreUnavailable
from otelprogress_collector.store.mark import Mark, MarkFile
from otelprogress_collector.store.schema import MIGRATIONS, Migration, prepare, transaction
from otelprogress_collector.store.verification import (
    SMALL_BYTES,
    TAIL_OFFSETS,
    check_structure,
    cut_journal,
    drop_bad_rows,
    drop_bad_runs,
    trim_bad_start,
)

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_CACHE_KIB: Final = 4_096


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How to open."""

    durability: Durability
    boot_id: str | None
    """Of this start of the machine; `None`: unknown, as where there is no /proc."""
    migrations: Sequence[Migration] = MIGRATIONS
    tail_offsets: int = TAIL_OFFSETS


def read_boot_id() -> str | None:
    """Names this start of the machine; `None`: it does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip() or None
    except OSError:
        return None


def open_database(folder: DataDir, mark: MarkFile, how: How) -> tuple[sqlite3.Connection, Opened]:
    """The connection for writing, and what is known now.

    Raises:
        StoreUnavailable: not now, or not by this release.
    """
    try:
        try:
            # A damaged schema is quoted in SQLite's message, which is then no UTF-8: the module cannot even say it.
            return _open(folder, mark, how, ())
        except (Malformed, sqlite3.Error, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.Error) and not is_malformed(error, folder.database):
                raise
            aside = folder.set_aside()
            lost = (
                f"the database is malformed ({error}): it was set aside as {aside.name} and a new one begun"
            )
            return _open(folder, mark, how, (lost,))
    except (Malformed, sqlite3.Error, UnicodeDecodeError, OSError) as error:
        raise StoreUnavailable(f"{folder.database} cannot be opened: {error}") from error


def _open(
    folder: DataDir, mark_file: MarkFile, how: How, damage: tuple[str, ...]
) -> tuple[sqlite3.Connection, Opened]:
    folder.make_database()
    connection = connect(folder.database, how.durability, cache_kib=_CACHE_KIB)
    try:
        before, now = prepare(connection, how.migrations)
        mark = mark_file.read()
        # One transaction: what a crash interrupts here is found and done again.
        with transaction(connection):
            mended = _mend(connection, folder, mark, how, damage)
            opened, changed = _name(connection, folder, mark, how, mended, is_new=before == 0)
        if changed:
            # On the disk before anything is built on it.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        mark_file.begin(Mark(opened.epoch, opened.head, _inode(folder)))
    except BaseException:
        close_quietly(connection)
        raise
    if 0 < before < now:
        notes = (f"the store was brought from format {before} to {now}", *opened.notes)
        opened = msgspec.structs.replace(opened, notes=notes)
    return connection, opened


class _Mended(msgspec.Struct, frozen=True, kw_only=True):
    """A database of which everything that was looked at is as it was written."""

    meta: dict[str, bytes]
    head: int
    trimmed_to: int
    damage: tuple[str, ...]
    """What was not, and was dropped."""


def _mend(
    connection: sqlite3.Connection, folder: DataDir, mark: Mark | None, how: How, damage: Sequence[str]
) -> _Mended:
    small = folder.database.stat().st_size <= SMALL_BYTES
    ends_early = mark is not None and _newest(connection) < mark.head
    mended = check_structure(connection, thorough=small or ends_early)
    meta, bad_values = read_meta(connection)
    cut = cut_journal(connection, how.tail_offsets)
    trimmed_to, dropped = trim_bad_start(connection, int(meta.get(database.TRIMMED_TO, b"0")))
    found = (
        *damage,
        mended,
        *bad_values,
        cut,
        *dropped,
        drop_bad_runs(connection),
        *drop_bad_rows(connection),
    )
    if bad_values:
        connection.execute("DELETE FROM meta")
        write_meta(connection, dict(meta))
    return _Mended(
        meta=meta,
        head=max(_newest(connection), trimmed_to),
        trimmed_to=trimmed_to,
        damage=tuple(one for one in found if one is not None),
    )


def _name(
    connection: sqlite3.Connection,
    folder: DataDir,
    mark: Mark | None,
    how: How,
    mended: _Mended,
    *,
    is_new: bool,
) -> tuple[Opened, bool]:
    """What the log is called now, and whether anything of that had to be written."""
    meta = mended.meta
    reasons = reasons_for_new_epoch(
        Found(
            is_new=is_new,
            epoch=_text(meta, database.EPOCH),
            head=mended.head,
            inode=_inode(folder),
            mark=mark,
            restored_from=_text(meta, database.RESTORED_FROM),
            boot_id=_text(meta, database.BOOT_ID),
            boot_id_now=how.boot_id,
            written_as="fsync" if meta.get(database.DURABILITY) == b"fsync" else "disk",
            damage=mended.damage,
        )
    )
    wanted: dict[str, bytes | None] = {
        database.EPOCH: new_epoch().encode() if reasons else meta.get(database.EPOCH, new_epoch().encode()),
        database.CURSOR_SECRET: meta.get(database.CURSOR_SECRET, secrets.token_bytes(CURSOR_SECRET_BYTES)),
        database.BOOT_ID: how.boot_id.encode() if how.boot_id else None,
        database.DURABILITY: how.durability.encode(),
        database.TRIMMED_TO: str(mended.trimmed_to).encode(),
        database.RESTORED_FROM: None,
    }
    changes = {key: value for key, value in wanted.items() if value != meta.get(key)}
    write_meta(connection, changes)
    epoch, secret = wanted[database.EPOCH], wanted[database.CURSOR_SECRET]
    assert epoch is not None
    assert secret is not None
    opened = Opened(
        epoch=epoch.decode(),
        cursor_secret=secret,
        previous_cursor_secret=meta.get(database.PREVIOUS_CURSOR_SECRET),
        head=mended.head,
        first=mended.trimmed_to + 1,
        notes=("a new epoch begins: " + "; ".join(reasons),) if reasons else (),
    )
    return opened, bool(changes or mended.damage)


def _newest(connection: sqlite3.Connection) -> int:
    (newest,) = connection.execute("SELECT max(last_offset) FROM journal").fetchone()
    return int(newest or 0)


def _inode(folder: DataDir) -> int:
    return folder.database.stat().st_ino


def _text(meta: dict[str, bytes], key: str) -> str | None:
    value = meta.get(key)
    return None if value is None else value.decode()
