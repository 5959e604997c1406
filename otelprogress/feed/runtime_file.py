"""Where a feed listens and how to get in: one small file per process, for this user's programs only.

The folder is `$OTELPROGRESS_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/otelprogress`, else `otelprogress-<uid>` among the
temporary files. It must be a real folder of this user's with mode 0700; the files have mode 0600, because the token
in them opens the feed. A file whose process is gone is *stale*: the first look renames it to `*.stale`, where it
stays readable for ten minutes, so that a reader can still say whose operations were lost.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from otelprogress.exceptions import InvalidRecord, InvalidValue
from otelprogress.feed.process_identity import is_gone, process_identity
from otelprogress.feed.runtime_folder import SUFFIX, ensure_private_folder, runtime_folder, take_announced
from otelprogress.model.text import clean

KEEP_STALE_S: Final = 600.0
MAX_FILE_BYTES: Final = 16_384
ANNOUNCED_WAITS_S: Final = 5.0
"""How long a child waits for the file that its parent has announced, and writes while the child starts."""
_LOOK_EVERY_S: Final = 0.02
STALE_SUFFIX: Final = ".stale"
_FILE_MODE: Final = 0o600
_OTHERS: Final = 0o077
_MAX_TEXT_CHARS: Final = 512


class RuntimeFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands in the file."""

    pid: int
    identity: str
    """`process_identity` of that pid; empty where the platform has none."""
    url: str
    """`ws://127.0.0.1:4327`, without a path."""
    token: str
    """The bearer token; empty: none is asked for."""
    service: str = ""
    kind: str = "process"
    """`process`: the feed of an application; `collector`: of a collector."""
    command: str = ""
    """The script's or module's file name, without its arguments (they may hold secrets)."""
    folder: str = ""
    """The working directory when the feed was opened."""
    written_at_unix_ns: int = 0

    @property
    def live(self) -> bool:
        """Whether its process may still run: `False` only when it is proven gone."""
        return not is_gone(self.pid, self.identity)

    def __repr__(self) -> str:
        """Without the token: it must not reach a log."""
        return f"RuntimeFile(pid={self.pid}, url={self.url!r}, service={self.service!r}, kind={self.kind!r})"


class Found(NamedTuple):
    """One answer of `scan`."""

    path: Path
    content: RuntimeFile
    live: bool
    """`False`: the process is gone; what it left open is lost."""


def write(
    url: str,
    token: str,
    *,
    service: str = "",
    kind: str = "process",
    folder: Path | None = None,
    now_unix_ns: int | None = None,
) -> Path:
    """Say where this process's feed is; the file appears whole or not at all.

    Returns:
        The file's path: what `remove` takes, and what `OTELPROGRESS_LINK` tells child processes.

    Raises:
        InvalidValue: the folder is not private (`ensure_private_folder`).
        OSError: the folder or the file cannot be written.
    """
    folder = ensure_private_folder(folder or runtime_folder())
    pid = os.getpid()
    content = RuntimeFile(
        pid=pid,
        identity=process_identity(pid) or "",
        url=url,
        token=token,
        service=clean(service, _MAX_TEXT_CHARS),
        kind=kind,
        command=clean(Path(sys.argv[0] if sys.argv else "").name, _MAX_TEXT_CHARS),
        folder=clean(_working_folder(), _MAX_TEXT_CHARS),
        written_at_unix_ns=time.time_ns() if now_unix_ns is None else now_unix_ns,
    )
    path = take_announced(folder) or folder / f"{pid}-{secrets.token_hex(4)}{SUFFIX}"
    unfinished = path.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(content))
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return path


def read(path: Path) -> RuntimeFile:
    """What a runtime file says.

    Raises:
        FileNotFoundError: there is none.
        InvalidValue: it is not a plain file of this user's with mode 0600.
        InvalidRecord: it does not hold what `write` writes.
    """
    # O_NONBLOCK: a named pipe put in its place must not make a reader wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
            raise InvalidValue(f"{path} must be a plain file of this user's with mode 0600")
        encoded = file.read(MAX_FILE_BYTES + 1)
    try:
        return msgspec.json.decode(encoded, type=RuntimeFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRecord(f"{path} is no runtime file: {error}") from error


def read_announced(path: Path, *, wait_s: float = ANNOUNCED_WAITS_S) -> RuntimeFile:
    """`read`; a file that was announced (`runtime_folder.announce`) is waited for, `wait_s` seconds at most.

    Raises:
        FileNotFoundError: there is none, or what was announced does not come.
        InvalidValue: it is not a plain file of this user's with mode 0600.
        InvalidRecord: it does not hold what `write` writes, or still holds nothing.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        # Asked before it is read: it may be written between the two.
        announced = not path.stat().st_size
        try:
            return read(path)
        except InvalidRecord:
            if not announced or time.monotonic() >= deadline_s:
                raise
        time.sleep(_LOOK_EVERY_S)


def scan(folder: Path | None = None, *, now_s: float | None = None) -> list[Found]:
    """Every feed of this user's on this machine, newest first, and those that died within the last ten minutes.

    Files that are not ours or not readable are passed over. Nothing is raised for a folder that does not exist.

    Raises:
        InvalidValue: the folder is not private, so that what stands in it may come from anyone; or it is closed to us.
        OSError: it cannot be read now (no descriptor is left, the disk fails).
    """
    folder = folder or runtime_folder()
    try:
        if not folder.exists():
            return []
        ensure_private_folder(folder)
        paths = list(folder.iterdir())
    except PermissionError as error:
        raise InvalidValue(
            f"{folder} cannot be read: {error.strerror}; set OTELPROGRESS_RUNTIME_DIR to another"
        ) from error
    except FileNotFoundError:  # it was removed a moment ago
        return []
    now_s = time.time() if now_s is None else now_s
    found = []
    for path in paths:
        if path.suffix not in {SUFFIX, STALE_SUFFIX}:
            continue
        try:
            content = read(path)
            if path.suffix == STALE_SUFFIX:
                if now_s - path.lstat().st_mtime > KEEP_STALE_S:
                    remove(path)
                else:
                    found.append(Found(path, content, live=False))
            elif content.live:
                found.append(Found(path, content, live=True))
            else:
                found.append(Found(_set_aside(path, now_s), content, live=False))
        except (OSError, InvalidValue, InvalidRecord):
            _drop_unfilled(path, now_s)
            continue
    found.sort(key=lambda one: one.content.written_at_unix_ns, reverse=True)
    return found


def remove(path: Path) -> None:
    """Take the file away; one that is not there, or cannot be removed, is no error (its process will be gone)."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _drop_unfilled(path: Path, now_s: float) -> None:
    """A file that was announced and never written: its process was killed before."""
    with contextlib.suppress(OSError):
        there = path.lstat()
        if not there.st_size and stat.S_ISREG(there.st_mode) and now_s - there.st_mtime > KEEP_STALE_S:
            remove(path)


def _set_aside(path: Path, now_s: float) -> Path:
    stale = path.with_suffix(STALE_SUFFIX)
    with contextlib.suppress(OSError):  # another reader was faster, or the disk is read-only
        os.utime(path, (now_s, now_s))
        path.replace(stale)
    return stale


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed under the process
        return ""
