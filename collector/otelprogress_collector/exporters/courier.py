"""Brings the queue of one signal to one backend: what is taken, tried, tried again, merged, and when to stop.

A courier that has nothing to do waits for an event, one whose signal is off has no task left, one whose backend is
away sleeps until the next try: nothing else wakes it, however much is queued meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from otelprogress.feed.clock import Clock
from otelprogress.otel.target import Signal
from otelprogress.otel.transport import Answer, Verdict
from otelprogress_collector.exporters.backend import BackendConfig
from otelprogress_collector.exporters.courier_report import CourierReport
from otelprogress_collector.exporters.forward_queue import Entry, ForwardQueue
from otelprogress_collector.exporters.framing import Encoding
from otelprogress_collector.exporters.loss_log import LossLog
from otelprogress_collector.exporters.merging import is_whole
from otelprogress_collector.exporters.pace import Next, Pace
from otelprogress_collector.exporters.sender import Sender

ToProtobuf = Callable[[Signal, bytes], bytes]
"""Makes a protobuf request of an OTLP/JSON one; raises `ValueError` for one that cannot be read."""

_LOG: Final = logging.getLogger("otelprogress_collector.exporters")
_MERGE_FROM: Final = 32
"""So many requests wait before neighbours are sent as one: in ordinary times each goes as it came."""
_MAX_MERGED: Final = 1024
_LARGE_BYTES: Final = 256 * 1024
"""From here on converting takes so long that it goes to a thread."""
_AFTER_A_BUG_S: Final = 1.0


class Courier:
    """See the module.

    Args:
        signal: what it carries.
        config: of the backend.
        queue: its own; open.
        sender: of the backend, shared.
        to_protobuf: converts JSON requests for gRPC.
        clock: for the age of requests; pauses go by the event loop's time.
    """

    def __init__(
        self,
        signal: Signal,
        config: BackendConfig,
        queue: ForwardQueue,
        sender: Sender,
        *,
        to_protobuf: ToProtobuf,
        clock: Clock,
    ) -> None:
        self.signal: Signal = signal
        self.config = config
        self.queue = queue
        self.pace = Pace()
        self._sender = sender
        self._to_protobuf = to_protobuf
        self._clock = clock
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        self._closing_at_s: float | None = None
        self._given_up = False
        self._switched_off = False
        self._only_one_probes = asyncio.Lock()
        self._withheld = 0
        self._internal_errors = 0
        self._losses = LossLog(self._news)
        self._said = (0, 0, 0)
        self.tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Begin to deliver."""
        self.tasks = tuple(
            asyncio.create_task(self._work(), name=f"forward {self.signal} to {self.config.name}")
            for _ in range(self.config.in_flight)
        )

    def offer(self, body: bytes, encoding: Encoding) -> int | None:
        """Queue a request; its serial number, or `None` while the signal is off. `wake` makes it go.

        Raises:
            QueueUnavailable: it is not queued.
        """
        if self.pace.off_reason:
            self._withheld += 1
            return None
        lost = self.queue.counts.overflowed
        serial = self.queue.append(body, encoding, self._clock.time_unix_ns())
        if self.queue.counts.overflowed != lost:
            self._losses.note()
        return serial

    def wake(self) -> None:
        """There is something in the queue."""
        self._arrived.set()

    def begin_to_close(self, deadline_s: float) -> None:
        """Deliver what goes by `deadline_s` (of the event loop's time); the tasks end then, or earlier."""
        self._closing_at_s = deadline_s
        self._closing.set()
        self._arrived.set()

    def close(self) -> None:
        """Say what is left; after the tasks have ended."""
        self._losses.close()
        if not self.queue.survives and self.queue.entries:
            _LOG.warning(
                "%s: %d requests of %s are lost with the stop", self._where, self.queue.entries, self.signal
            )
        self.queue.close()

    @property
    def _where(self) -> str:
        return f"backend {self.config.name} ({self.config.authority})"

    # --- the tasks ---------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not (self.pace.off_reason or self._given_up):
            entries: Sequence[Entry] = ()
            try:
                entries = self._next_entries()
                if entries:
                    await self._deliver(entries)
                elif self._closing.is_set():
                    return
                else:
                    self._arrived.clear()
                    await self._arrived.wait()
            except Exception:
                self._internal_errors += 1
                _LOG.exception("otelprogress: forwarding %s to %s", self.signal, self.config.name)
                await asyncio.sleep(_AFTER_A_BUG_S)  # a bug must not become a busy loop
            finally:
                self.queue.release(entries)  # nothing, but for what has no fate yet

    def _next_entries(self) -> Sequence[Entry]:
        """The requests that go next, together: one, or neighbours once the queue has fallen behind."""
        now_unix_ns = self._clock.time_unix_ns()
        first = self.queue.take(now_unix_ns)
        if first is None:
            return ()
        entries = [first]
        left_bytes = self.config.max_merged_bytes - len(first.body)
        if self.queue.waiting < _MERGE_FROM or left_bytes <= 0 or not _mergeable(first):
            return entries
        while len(entries) < _MAX_MERGED and (entry := self.queue.take(now_unix_ns)) is not None:
            left_bytes -= len(entry.body)
            if left_bytes < 0 or not _mergeable(entry):
                self.queue.release((entry,))
                break
            entries.append(entry)
        return entries

    async def _deliver(self, entries: Sequence[Entry]) -> None:
        if await self._try_until_known(entries) is Next.ALONE:
            for entry in entries:
                if await self._try_until_known((entry,)) is not Next.SETTLED:
                    return

    async def _try_until_known(self, entries: Sequence[Entry]) -> Next:
        """Try the same bytes until the fate of the requests is known, or is not to be known now."""
        try:
            body, encoding = await self._prepared(entries)
        except ValueError as error:
            self.pace.counts.refused += len(entries)
            self.pace.last_failure = f"not to be converted: {type(error).__name__}"
            self.queue.settle(entries)
            self._losses.note()
            return Next.SETTLED
        while True:
            if self.pace.failures:
                async with self._only_one_probes:
                    outcome = await self._attempt(entries, body, encoding)
            else:
                outcome = await self._attempt(entries, body, encoding)
            if outcome is not Next.AGAIN:
                break
            if self.queue.expire(entries, self._clock.time_unix_ns()):
                self._losses.note()
                return Next.SETTLED
        if outcome is Next.SETTLED:
            self.queue.settle(entries)
        elif outcome is Next.OFF:
            self._switch_off()
        elif outcome is Next.KEEP:
            self._given_up = True
        return outcome

    async def _prepared(self, entries: Sequence[Entry]) -> tuple[bytes, Encoding]:
        first = entries[0]
        if len(entries) > 1:
            return b"".join([entry.body for entry in entries]), "protobuf"
        if first.encoding == "protobuf" or self.config.protocol != "grpc":
            return first.body, first.encoding
        if len(first.body) < _LARGE_BYTES:
            return self._to_protobuf(self.signal, first.body), "protobuf"
        return await asyncio.to_thread(self._to_protobuf, self.signal, first.body), "protobuf"

    async def _attempt(self, entries: Sequence[Entry], body: bytes, encoding: Encoding) -> Next:
        if (foregone := self._foregone()) is not None:
            return foregone
        await self._pause()
        if (foregone := self._foregone()) is not None:
            return foregone
        try:
            answer = await self._sender.send(self.signal, body, encoding)
        except Exception as error:
            self._internal_errors += 1
            answer = Answer(Verdict.RETRY, type(error).__name__, reached=False)
        now_s = asyncio.get_running_loop().time()
        outcome = self.pace.settle(
            answer,
            requests=len(entries),
            size_bytes=sum(len(entry.body) for entry in entries),
            now_s=now_s,
            closing_left_s=None if self._closing_at_s is None else max(0.0, self._closing_at_s - now_s),
            kept=self.queue.survives,
        )
        if answer.verdict is Verdict.REFUSED or answer.rejected > 0 or self.pace.failures > 1:
            self._losses.note()
        return outcome

    def _foregone(self) -> Next | None:
        """What becomes of an attempt that is not worth making any more; `None`: it is."""
        if self.pace.off_reason:
            return Next.OFF
        if self._given_up or (self._closing.is_set() and self.pace.failures and self.queue.survives):
            return Next.KEEP
        return None

    async def _pause(self) -> None:
        delay_s = self.pace.not_before_s - asyncio.get_running_loop().time()
        if delay_s <= 0:
            return
        if self._closing.is_set():
            await asyncio.sleep(delay_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._closing.wait()

    def _switch_off(self) -> None:
        if self._switched_off:  # by another task, whose request was answered first
            return
        self._switched_off = True
        cleared = self.queue.clear()
        self._arrived.set()  # the other tasks end as well
        _LOG.warning(
            "%s does not take %s (%s): no more of them are forwarded to it; %d requests dropped",
            self._where,
            self.signal,
            self.pace.off_reason,
            cleared,
        )

    # --- what is told ------------------------------------------------------------------------------------

    def _news(self) -> str:
        counts, lost = self.pace.counts, self.queue.counts
        now = (counts.refused, counts.rejected, lost.overflowed + lost.expired + lost.damaged)
        refused, rejected, dropped = (new - old for new, old in zip(now, self._said, strict=True))
        self._said = now
        told = []
        if self.pace.failures > 1:
            told.append(
                f"not getting through ({self.pace.last_failure}), {self.queue.entries} requests queued"
            )
        elif self.pace.last_failure and (refused or rejected):
            told.append(self.pace.last_failure)
        if refused:
            told.append(f"{refused} requests refused and dropped")
        if rejected:
            told.append(f"{rejected} records rejected")
        if dropped:
            told.append(f"{dropped} requests dropped here")
        return f"{self._where}, {self.signal}: {'; '.join(told)}" if told else ""

    def report(self) -> CourierReport:
        """How it stands."""
        counts, lost = self.pace.counts, self.queue.counts
        oldest_unix_ns = self.queue.oldest_unix_ns()
        return CourierReport(
            backend=self.config.name,
            signal=self.signal,
            authority=self.config.authority,
            queued=self.queue.entries,
            queued_bytes=self.queue.size_bytes,
            oldest_age_s=None
            if oldest_unix_ns is None
            else max(0.0, (self._clock.time_unix_ns() - oldest_unix_ns) / 1e9),
            delivered=counts.delivered,
            delivered_bytes=counts.delivered_bytes,
            attempts=counts.attempts,
            retries=counts.retries,
            refused=counts.refused,
            rejected=counts.rejected,
            overflowed=lost.overflowed,
            expired=lost.expired,
            damaged=lost.damaged,
            cleared=lost.cleared,
            withheld=self._withheld,
            off_reason=self.pace.off_reason,
            failures=self.pace.failures,
            last_failure=self.pace.last_failure,
            internal_errors=self._internal_errors,
        )


def _mergeable(entry: Entry) -> bool:
    return entry.encoding == "protobuf" and is_whole(entry.body)
