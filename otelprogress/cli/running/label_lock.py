"""One run at a time for each `--id`: a second one would make the label mean two operations."""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import Final

from otelprogress.exceptions import InvalidValue
from otelprogress.feed.runtime_folder import ensure_private_folder, runtime_folder

_MODE: Final = 0o600
_MAX_PID_DIGITS: Final = 20


class LabelTaken(Exception):
    """Another run of this user on this machine has the label and goes on."""


class LabelLock:
    """Holds a label until `release`, or until the process and those forked from it are gone.

    Args:
        label: what was given as `--id`.

    Raises:
        LabelTaken: names the process that holds it.
        OSError, InvalidValue: the runtime folder cannot be written, so that nobody can tell.
    """

    def __init__(self, label: str) -> None:
        folder = ensure_private_folder(runtime_folder())
        digest = hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._path = folder / f"run-{digest}.lock"
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _MODE)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._descriptor, _MAX_PID_DIGITS).decode("ascii", "replace").strip()
                os.close(self._descriptor)
                raise LabelTaken(
                    f"an operation with the id {label!r} is running"
                    + (f" (process {holder})" if holder else "")
                ) from None
            if self._is_there():
                break
            os.close(self._descriptor)  # its holder was just leaving
        self.say_holder()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))  # noqa: PTH116 - of two kinds
        except FileNotFoundError:
            return False

    def say_holder(self) -> None:
        """Write down that this process holds it."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let others have it."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def lock_label(label: str) -> LabelLock | None:
    """Hold the label; `None`: nobody can hold one here.

    Raises:
        LabelTaken: it is held.
    """
    try:
        return LabelLock(label)
    except (OSError, InvalidValue):
        return None
