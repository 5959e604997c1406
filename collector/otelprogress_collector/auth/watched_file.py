"""A file that is read again when it changes, and whose last good content stands while it is broken."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from otelprogress.exceptions import InvalidValue

_LOG = logging.getLogger("otelprogress_collector.auth")

T = TypeVar("T")

CHECK_EVERY_S: Final = 2.0
"""Asked once a second or oftener, what a file says is known within 3 s: well below the 5 s that are promised."""


class WatchedFile(Generic[T]):
    """See the module.

    The content is read at each check, not only its time looked at: two changes within one tick of the file system's
    clock look the same from outside, and these files are small. It is parsed only when it is another.

    Args:
        path: the file.
        read: its bytes. Raises `OSError` or `InvalidValue`.
        parse: what they mean. Raises `InvalidValue`, whose message must not quote secrets.
        check_every_s: the least time between two looks.

    Raises:
        InvalidValue: what stands there at the beginning cannot be used; says why.
    """

    def __init__(
        self,
        path: Path,
        *,
        read: Callable[[Path], bytes],
        parse: Callable[[bytes], T],
        now_s: float,
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        self.path = path
        self.checked_at_s = now_s
        self._read = read
        self._parse = parse
        self._check_every_s = check_every_s
        self._broken = False
        try:
            encoded = read(path)
            self.content = parse(encoded)
        except (OSError, InvalidValue) as error:
            raise InvalidValue(f"cannot use {path}: {_reason(error)}") from None
        self._seen = _digest(encoded)

    @property
    def broken(self) -> bool:
        """Whether the last look found something that cannot be used, so that an older content stands."""
        return self._broken

    def due(self, now_s: float) -> bool:
        """Whether `refresh` would look."""
        return now_s - self.checked_at_s >= self._check_every_s

    def refresh(self, now_s: float) -> bool:
        """Look again if it is time to; whether the content is another. Reads a file; never raises.

        Args:
            now_s: a monotonic clock.
        """
        if not self.due(now_s):
            return False
        self.checked_at_s = now_s
        try:
            encoded = self._read(self.path)
            seen = _digest(encoded)
            # A broken content that turns out to be the last good one again is parsed for nothing: rare.
            if seen == self._seen and not self._broken:
                return False
            content = self._parse(encoded)
        except Exception as error:  # a look must never end the looking: other files hang on it too
            self._complain(error)
            return False
        changed = seen != self._seen
        self._seen = seen
        self.content = content
        if self._broken:
            self._broken = False
            _LOG.info("%s can be read again", self.path)
        return changed

    def _complain(self, error: Exception) -> None:
        if self._broken:
            return
        self._broken = True
        _LOG.warning("cannot use %s (%s): what it said before counts on", self.path, _reason(error))


def _digest(encoded: bytes) -> bytes:
    # The content itself would keep secrets in memory longer than needed.
    return hashlib.blake2b(encoded, digest_size=16).digest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):  # its text says the path once more
        return error.strerror or type(error).__name__
    return (
        str(error) if isinstance(error, InvalidValue) else type(error).__name__
    )  # others might quote secrets
