"""An event loop whose time passes only while everybody waits: ten minutes of an operation take a moment.

Whatever runs on it has to wait by the loop (`asyncio.sleep`, `asyncio.timeout`, `call_later`) and not by threads or
sockets: nothing else wakes it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

MOST_S = 6 * 3600.0
"""Longer than any test: what has not ended by then never will."""
ORIGIN_UNIX_NS = 1_760_000_000 * 10**9


class _Passing(selectors.DefaultSelector):
    """Where a loop would sleep, its time passes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for something that nobody will do")
            self.passed_s += max(0.0, timeout)
            if self.passed_s > MOST_S:
                raise RuntimeError("this would never end")
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module. Begins at 0."""

    def __init__(self) -> None:
        self._passing = _Passing()
        super().__init__(self._passing)

    def time(self) -> float:
        """Seconds that passed since it was made."""
        return self._passing.passed_s


class VirtualClock:
    """`otelprogress.feed.clock.Clock` by the loop that runs."""

    def time_unix_ns(self) -> int:
        """Nanoseconds since the Unix epoch, had the loop been made at `ORIGIN_UNIX_NS`."""
        return ORIGIN_UNIX_NS + round(self.monotonic_s() * 1e9)

    def monotonic_s(self) -> float:
        """Seconds since the loop was made."""
        return asyncio.get_running_loop().time()


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run something to its end, and whatever it left to be cancelled."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
