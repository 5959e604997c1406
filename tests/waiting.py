"""Wait for a condition instead of sleeping for luck."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(predicate: Callable[[], T], timeout_s: float = 15.0, *, every_s: float = 0.01) -> T:
    """Return the first truthy answer of `predicate`; fail, showing the last answer, once `timeout_s` is over."""
    deadline = time.monotonic() + timeout_s
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout_s} s: {predicate}")
        time.sleep(every_s)
    return answer


async def aeventually(
    predicate: Callable[[], T | Awaitable[T]], timeout_s: float = 15.0, *, every_s: float = 0.01
) -> T:
    """`eventually` for coroutines: the loop runs between two looks, and the predicate may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked = predicate()
        answer = await asked if inspect.isawaitable(asked) else asked
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout_s} s: {predicate}")
        await asyncio.sleep(every_s)
