"""The folder of spools: one subfolder for each process, and how a later process takes over what a dead one left.

A subfolder's name says whose it is: `<application>.<pid>.<identity>.<random>`. It is claimed by renaming it into one's
own, which only one process can do. It is claimed only where its owner is proven dead: the pid is gone or started at
another time. Where that cannot be judged from here (another container, the same volume) the owner's lock decides, which
the kernel gives back when the owner ends, however it ends.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from otelprogress.otel.spool_segment import SUFFIX

_LOCK: Final = "lock"
_MAX_NAME_CHARS: Final = 32


class SpoolOwner(NamedTuple):
    """Whose spool it is, and how a process is told from another one with the same pid."""

    application: str
    """What makes a later process the same application: its service, else its command."""
    identity_of: Callable[[int], str | None]
    """As `feed.process_identity.process_identity`; `None`: there is no such process."""
    is_gone: Callable[[int, str], bool]
    """As `feed.process_identity.is_gone`."""


class SpoolFolder:
    """The subfolder of this process, made when it is first needed.

    Args:
        root: the folder of all spools.
        owner: whose.
        destination: where the entries are to go: nobody delivers them elsewhere.
    """

    def __init__(self, root: Path, owner: SpoolOwner, destination: str) -> None:
        self.root = root
        self._owner = owner
        digest = hashlib.blake2b(f"{owner.application}\0{destination}".encode(), digest_size=6).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9_-]+", "_", owner.application)[:_MAX_NAME_CHARS] or "application"
        self._prefix = f"{slug}-{digest}."
        self._lock = -1

    @functools.cached_property
    def path(self) -> Path:
        """Of this process alone."""
        pid = os.getpid()
        identity = base64.urlsafe_b64encode((self._owner.identity_of(pid) or "").encode()).decode()
        return self.root / f"{self._prefix}{pid}.{identity.rstrip('=')}.{secrets.token_hex(4)}"

    def make(self) -> None:
        """Make it, for this user alone. Nothing happens where it is there.

        Raises:
            OSError: it cannot be made.
        """
        if self._lock >= 0:
            return
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        unlocked = self.path / f"{_LOCK}.new"
        self._lock = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.rename(self.path / _LOCK)  # seen only once it is held
        except OSError:
            # A file system without locks: what is no proof shall not be there to be taken for one.
            unlocked.unlink(missing_ok=True)

    def adopt(self) -> list[Path]:
        """Take over what dead processes of this application left for this destination; the files, oldest first.

        Raises:
            OSError: the folder cannot be read, or ours not be made.
        """
        try:
            names = sorted(os.listdir(self.root))  # noqa: PTH208 - names are what is looked at
        except FileNotFoundError:
            return []
        for name in names:
            path = self.root / name
            if name.startswith(self._prefix) and path != self.path and self._is_dead(path):
                self.make()
                with contextlib.suppress(OSError):  # somebody else was faster
                    path.rename(self.path / name)
        # A process that died while it adopted left folders within its own.
        for found in sorted(self._segments_within(self.path), key=lambda each: each.name):
            if found.parent != self.path:
                with contextlib.suppress(OSError):
                    found.rename(self.path / found.name)
        for folder, _, _ in os.walk(self.path, topdown=False):
            if folder != str(self.path):
                with contextlib.suppress(OSError):
                    (Path(folder) / _LOCK).unlink(missing_ok=True)
                    Path(folder).rmdir()
        return sorted(self._segments_within(self.path), key=lambda each: each.name)

    def release(self) -> None:
        """Let go of it, and take it away where no spool's file is left in it."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            if not any(self._segments_within(self.path)):
                (self.path / _LOCK).unlink(missing_ok=True)
                self.path.rmdir()
        os.close(self._lock)
        self._lock = -1

    def _is_dead(self, path: Path) -> bool:
        try:
            pid_text, identity_text, _ = path.name.removeprefix(self._prefix).split(".")
            identity = base64.urlsafe_b64decode(identity_text + "=" * (-len(identity_text) % 4)).decode()
            pid = int(pid_text)
            found = path.lstat()
        except (ValueError, binascii.Error, OSError):
            return False
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        return self._owner.is_gone(pid, identity) or _is_unlocked(path / _LOCK)

    @staticmethod
    def _segments_within(path: Path) -> Iterator[Path]:
        for folder, _, names in os.walk(path):
            yield from (Path(folder) / name for name in names if name.endswith(SUFFIX))


def _is_unlocked(path: Path) -> bool:
    """Whether the owner of that lock is proven dead: it held the lock for as long as it lived."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
