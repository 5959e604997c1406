"""What an error of SQLite means: try again later, or the file is no longer what was written."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

_LATER: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_INTERRUPT,
    }
)


class Malformed(Exception):
    """SQLite, or the check of the tables, does not take the file for a database of ours any more."""


def is_malformed(error: sqlite3.Error, path: Path) -> bool:
    """Whether the file is damaged, rather than the disk full, busy or out of reach."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_READONLY:
        # SQLite says that also of a header with a format it does not know.
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return primary not in _LATER
