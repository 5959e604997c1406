"""What the collector does beside its work, in small pieces: retention, and the check of what was not looked at yet."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from otelprogress_collector.store.interface import StoreUnavailable

if TYPE_CHECKING:
    from otelprogress.feed.clock import Clock
    from otelprogress_collector.host import CollectorHost
    from otelprogress_collector.store.interface import Store

_LOG: Final = logging.getLogger("otelprogress_collector.maintenance")
TRIM_EVERY_S: Final = 30.0
PAUSE_S: Final = 0.2
"""Between two slices of the same work: what is served comes first."""


class MaintenanceStats(msgspec.Struct, gc=False):
    """What was done since the start."""

    trimmed: int = 0
    """Journal rows beyond retention that were dropped."""
    verified_to: int = 0
    """The offset up to which the journal was read and found to be as it was written."""
    damaged_at: int = 0
    """The first offset that was not; 0: none."""


class Maintenance:
    """See the module.

    Args:
        store: open.
        host: whose ring must not be cut short.
        clock: for ages.
        retention_age_s: rows older than this go.
        retention_max_bytes: the oldest rows go while the store is larger.
        verify: whether the whole journal is read once in the background.
    """

    def __init__(
        self,
        store: Store,
        host: CollectorHost,
        *,
        clock: Clock,
        retention_age_s: float,
        retention_max_bytes: int,
        verify: bool = True,
    ) -> None:
        self.stats = MaintenanceStats()
        self._store = store
        self._host = host
        self._clock = clock
        self._age_ns = int(retention_age_s * 1e9)
        self._max_bytes = retention_max_bytes
        self._verify = verify
        # A thread of its own: the store's is for commits.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otelprogress-maintenance")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, on the running loop."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._retain(), name="otelprogress-retention"))
        if self._verify:
            self._tasks.append(loop.create_task(self._check(), name="otelprogress-verification"))

    async def close(self) -> None:
        """Stop between two pieces."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def trim(self) -> int:
        """Drop what is beyond retention now; how many rows."""
        loop = asyncio.get_running_loop()
        dropped = 0
        while True:
            one_slice = partial(
                self._store.trim,
                older_than_unix_ns=self._clock.time_unix_ns() - self._age_ns,
                max_bytes=self._max_bytes,
                # What the ring holds stays: cursors in memory and on the disk have to agree.
                keep_from=self._host.hub.ring.first,
            )
            count = await loop.run_in_executor(self._thread, one_slice)
            dropped += count
            self.stats.trimmed += count
            if not count:
                return dropped
            await asyncio.sleep(PAUSE_S)

    async def _retain(self) -> None:
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            try:
                await self.trim()
            except StoreUnavailable as refused:
                _LOG.warning("retention has to wait: %s", refused)
            except Exception:
                _LOG.exception("retention failed: this is a bug of the collector")

    async def _check(self) -> None:
        loop = asyncio.get_running_loop()
        after = 0
        while True:
            try:
                found = await loop.run_in_executor(self._thread, self._store.verify, after)
            except StoreUnavailable as refused:
                _LOG.warning("the check of the journal has to wait: %s", refused)
                await asyncio.sleep(TRIM_EVERY_S)
                continue
            after = self.stats.verified_to = found.through
            if found.first_bad is not None and not self.stats.damaged_at:
                self.stats.damaged_at = found.first_bad
                _LOG.error(
                    "the journal is damaged at offset %d: it is not what was written there; what is kept in memory "
                    "is served, a later start will cut the journal there",
                    found.first_bad,
                )
            if found.done:
                return
            await asyncio.sleep(PAUSE_S)
