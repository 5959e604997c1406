"""Files that hold secrets: read only when nobody else could have, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otelprogress.exceptions import InvalidValue

MODE: Final = 0o600
_OTHERS: Final = 0o077
_OTHERS_BUT_GROUP_MAY_READ: Final = 0o037
_MAY_WRITE: Final = 0o022


def read_private(path: Path, *, max_bytes: int, group_may_read: bool = False) -> bytes:
    """What a file of secrets holds.

    Args:
        path: links are followed: what counts is the file at their end.
        max_bytes: a longer file is refused.
        group_may_read: also takes a file of root's, and one that its group may read: how orchestrators and
            distributions hand keys to services.

    Raises:
        InvalidValue: others could read or write it, it is not ours, too long or no plain file; says what to do.
        OSError: it is not there or cannot be read.
    """
    forbidden = _OTHERS_BUT_GROUP_MAY_READ if group_may_read else _OTHERS
    encoded, found = _read(path, max_bytes)
    owners = {os.geteuid(), 0} if group_may_read else {os.geteuid()}
    if found.st_uid not in owners:
        raise InvalidValue(f"{path} belongs to user {found.st_uid}, it must belong to user {os.geteuid()}")
    if found.st_mode & forbidden:
        raise InvalidValue(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, others could get at the secrets in it: "
            f"`chmod 600 {path}`"
        )
    return encoded


def read_trusted(path: Path, *, max_bytes: int) -> bytes:
    """What a file says that is no secret, but that decides who is let in: others may read it, not write it.

    Raises:
        InvalidValue: others could have written it, it is too long or no plain file; says what to do.
        OSError: it is not there or cannot be read.
    """
    encoded, found = _read(path, max_bytes)
    if found.st_uid not in {os.geteuid(), 0}:
        raise InvalidValue(f"{path} belongs to user {found.st_uid}, it must belong to user {os.geteuid()}")
    if found.st_mode & _MAY_WRITE:
        raise InvalidValue(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, others could change it: `chmod go-w {path}`"
        )
    return encoded


def write_private(path: Path, content: bytes) -> None:
    """Replace the file with mode 0600; a reader sees the old content or the new one, also after a crash.

    Raises:
        OSError: it cannot be written; the old content stands.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes that do the same from changing files of this folder meanwhile.

    Raises:
        OSError: the folder is not there.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    # O_NONBLOCK: a named pipe put in its place must not make us wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        # Asked of the open file: what is judged is what is read.
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidValue(f"{path} must be a plain file")
        encoded = file.read(max_bytes + 1)
    if len(encoded) > max_bytes:
        raise InvalidValue(f"{path} is longer than {max_bytes} bytes")
    return encoded, found
