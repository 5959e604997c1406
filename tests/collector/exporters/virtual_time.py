"""An event loop whose time passes at once where nothing happens, and that counts how often it woke.

For code without real I/O: a virtual day in which nothing wakes anything costs one step.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable

from otelprogress.feed.clock import Clock


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.wake_ups = 0

    def select(self, timeout=None):
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        assert timeout is not None, "everything waits, and nothing is going to happen any more"
        self.now_s += timeout
        self.wake_ups += 1
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    @property
    def wake_ups(self) -> int:
        """How often the loop slept until a timer was due."""
        return self._virtual.wake_ups


class LoopClock(Clock):
    """Both readings from the running loop's time."""

    ORIGIN_UNIX_NS = 1_700_000_000_000_000_000

    def time_unix_ns(self) -> int:
        return self.ORIGIN_UNIX_NS + round(asyncio.get_running_loop().time() * 1e9)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


def run_virtually(test: Callable[[VirtualTimeLoop], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        runner.run(test(loop))
