"""One `fsync` for many: who asks while one is under way shares the next."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence


class GroupSync:
    """See the module.

    Args:
        collect: descriptors of what was written so far; they are closed here. It may raise, then all who wait do.
    """

    def __init__(self, collect: Callable[[], Sequence[int]]) -> None:
        self._collect = collect
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    async def synced(self) -> None:
        """Return once all that was written before this call survives a power cut.

        Raises:
            OSError: the disk says it does not.
        """
        await asyncio.shield(self.begin())

    def begin(self) -> asyncio.Task[None]:
        """Begin the round that `synced` waits for, for those who do not wait."""
        if self._next is None:
            self._next = asyncio.create_task(self._round())
            self._next.add_done_callback(_look_at)  # its failure is told to those who wait, if anybody does
        return self._next

    async def _round(self) -> None:
        async with self._one_at_a_time:
            self._next = None  # who comes from here on may have written after `collect`
            descriptors = self._collect()
            if descriptors:
                await asyncio.to_thread(_sync, descriptors)


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _sync(descriptors: Sequence[int]) -> None:
    failure: OSError | None = None
    for descriptor in descriptors:
        try:
            os.fsync(descriptor)
        except OSError as error:
            failure = error
        finally:
            os.close(descriptor)
    if failure is not None:
        raise failure
