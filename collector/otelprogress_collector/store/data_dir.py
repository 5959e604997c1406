"""The data directory: who has it, which files are in it, and what becomes of one that is damaged.

The directory is made with mode 0700 and the files with 0600; the mode of a directory that is there is not changed.
One that others may write is not used: they could replace the files. One that they may read is, with a warning.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import stat
from pathlib import Path
from typing import Final

from otelprogress_collector.store.interface import StoreUnavailable

DATABASE: Final = "collector.sqlite3"
SIDE_FILES: Final = ("-wal", "-shm")
_MARK: Final = "collector.mark"
_LOCK: Final = "collector.lock"
_OPEN_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_OTHERS_WRITE: Final = 0o022
_OTHERS_READ: Final = 0o055


def check_mode(path: Path) -> str | None:
    """What the operator should know of a directory that is there; `None`: nothing.

    Raises:
        StoreUnavailable: others may write to it; says what to do.
        OSError: it cannot be looked at.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS_WRITE:
        raise StoreUnavailable(
            f"the data directory {path} has mode {mode:04o}: other users may write to it and replace its files. "
            f"`chmod 700 {shlex.quote(str(path))}`, or give a directory inside it, which is made for this user alone"
        )
    if mode & _OTHERS_READ:
        return (
            f"the data directory {path} has mode {mode:04o}: other users see which files are in it, though not what "
            f"these hold. `chmod 700 {shlex.quote(str(path))}` keeps them out"
        )
    return None


class DataDir:
    """A directory that is this process's until `release`."""

    def __init__(self, path: Path) -> None:
        """Make it where there is none, and take it.

        Raises:
            StoreUnavailable: it cannot be made or written, others may write to it, or another process has it.
        """
        self.path = path
        self.database = path / DATABASE
        self.mark = path / _MARK
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700, parents=True)
            check_mode(path)
            self._lock = _lock(path)
        except OSError as error:
            raise StoreUnavailable(f"the data directory {path} cannot be used: {error.strerror}") from error
        try:
            self._refuse_files_of_others()
        except BaseException:
            self.release()
            raise

    def _refuse_files_of_others(self) -> None:
        for path in (self.database, *self._side_files(), self.mark):
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                if found.st_uid != os.geteuid() or path.is_symlink():
                    raise StoreUnavailable(
                        f"{path} is a link or belongs to user {found.st_uid}, not to {os.geteuid()}: remove it, or give "
                        "another data directory"
                    )

    def _side_files(self) -> tuple[Path, ...]:
        return tuple(self.database.with_name(DATABASE + suffix) for suffix in SIDE_FILES)

    def make_database(self) -> None:
        """Make an empty file with mode 0600 where there is none; SQLite gives its side files the same mode.

        Raises:
            StoreUnavailable: it cannot be made.
        """
        try:
            os.close(os.open(self.database, _OPEN_FLAGS, 0o600))
            self.sync()
        except OSError as error:
            raise StoreUnavailable(f"{self.database} cannot be opened: {error.strerror}") from error

    def sync(self) -> None:
        """Return once the names of the files are on the disk."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def set_aside(self) -> Path:
        """Give a damaged database another name; returns that. Nothing is ever deleted."""
        number = 1
        while (aside := self.path / f"{DATABASE}.malformed-{number}").exists():
            number += 1
        for suffix in ("", *SIDE_FILES):
            with contextlib.suppress(FileNotFoundError):
                self.database.with_name(DATABASE + suffix).rename(aside.with_name(aside.name + suffix))
        self.sync()
        return aside

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._lock)


def _lock(path: Path) -> int:
    descriptor = os.open(path / _LOCK, _OPEN_FLAGS, 0o600)
    try:
        try:
            # The kernel gives it back with the process, however that ends: no stale lock to judge.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreUnavailable(
                f"the data directory {path} is in use by another collector (process {holder}): stop that one, or give "
                "this one another data directory"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
