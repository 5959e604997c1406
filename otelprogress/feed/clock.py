"""Where time comes from: the edges read it here and hand it to the pure core as an argument."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The two readings that a host needs."""

    def time_unix_ns(self) -> int:
        """Nanoseconds since the Unix epoch; may jump when somebody sets the clock."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary origin; never goes back: for deadlines and rates."""


class SystemClock:
    """The clock of this machine."""

    __slots__ = ()

    def time_unix_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary origin."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to: virtual time for tests and simulations."""

    __slots__ = ("_elapsed_ns", "_origin_unix_ns")

    def __init__(self, origin_unix_ns: int = 1_700_000_000_000_000_000) -> None:
        self._origin_unix_ns = origin_unix_ns
        self._elapsed_ns = 0

    def advance(self, seconds: float) -> None:
        """Let `seconds` (not negative) pass on both readings."""
        if seconds < 0:
            raise ValueError("time does not go back; use jump() for a wall clock that was set")
        self._elapsed_ns += round(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        """Set the wall clock by `seconds`, also backwards; the monotonic reading stays."""
        self._origin_unix_ns += round(seconds * 1e9)

    def time_unix_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return self._origin_unix_ns + self._elapsed_ns

    def monotonic_s(self) -> float:
        """Seconds since this clock was made."""
        return self._elapsed_ns / 1e9
