"""Forwards what was received to every backend that is configured: queued first, delivered in its own time.

Each signal of each backend has its own queue and its own courier, so nothing waits for another: a backend that is
dead, slow or hostile fills its own queue only. Used on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from otelprogress.exceptions import InvalidValue
from otelprogress.feed.clock import Clock, SystemClock
from otelprogress.otel.target import SIGNALS, Signal
from otelprogress_collector.exporters.backend import BackendConfig
from otelprogress_collector.exporters.courier import Courier, ToProtobuf
from otelprogress_collector.exporters.courier_report import CourierReport
from otelprogress_collector.exporters.disk_queue import DiskQueue
from otelprogress_collector.exporters.forward_queue import ForwardQueue, QueueUnavailable
from otelprogress_collector.exporters.framing import Encoding
from otelprogress_collector.exporters.group_sync import GroupSync
from otelprogress_collector.exporters.loss_log import LossLog
from otelprogress_collector.exporters.memory_queue import MemoryQueue
from otelprogress_collector.exporters.redaction import Redacted, redacted_at_once, redacted_request
from otelprogress_collector.exporters.sender import Sender, open_sender
from otelprogress_collector.store.interface import Durability

_LOG: Final = logging.getLogger("otelprogress_collector.exporters")


class Forwarder:
    """See the module.

    Args:
        backends: where to; none is fine. Each has a name of its own.
        data_dir: queues are kept in `forward/<backend>/<signal>/` below it; `None` for `memory` only.
        durability: as that of the store. With `fsync` a request is accepted once it survives a power cut.
        to_protobuf: makes a protobuf request of an OTLP/JSON one, for gRPC backends.
        clock: for the age of requests.
        redact: whether secrets are taken out before anything is queued (`redaction`); otherwise every byte stays.
        open_sender: makes the sender of a backend.

    Attributes:
        unreadable: records, and whole requests, that could not be read for redaction and are forwarded to nobody.

    Raises:
        InvalidValue: two backends of one name, or no `data_dir` where one is needed.
    """

    def __init__(
        self,
        backends: Sequence[BackendConfig],
        data_dir: Path | None,
        *,
        to_protobuf: ToProtobuf,
        durability: Durability = "disk",
        clock: Clock | None = None,
        redact: bool = False,
        open_sender: Callable[[BackendConfig], Sender] = open_sender,
    ) -> None:
        names = [config.name for config in backends]
        if len(set(names)) != len(names):
            raise InvalidValue(f"backends need names of their own, these are {', '.join(names)}")
        if data_dir is None and durability != "memory":
            raise InvalidValue(f"durability {durability!r} of forwarding needs a data directory")
        self._backends = tuple(backends)
        self._directory = None if data_dir is None or durability == "memory" else data_dir / "forward"
        self._to_protobuf = to_protobuf
        self._clock = clock if clock is not None else SystemClock()
        self._open_sender = open_sender
        self._redact = redact
        self.unreadable = 0
        self._unreadable_said = 0
        self._losses = LossLog(self._news)
        self._sync = GroupSync(self._unsynced) if durability == "fsync" else None
        self._lock_descriptor = -1
        self._senders: list[Sender] = []
        self._couriers: list[Courier] = []
        self._by_signal: dict[Signal, list[Courier]] = {signal: [] for signal in SIGNALS}
        self._running = False

    async def start(self) -> None:
        """Open the queues, and deliver what waits from before.

        Raises:
            QueueUnavailable: the data directory cannot be used, or another collector uses it.
            InvalidValue: TLS files of a backend that are not what they should be.
        """
        try:
            if self._backends and self._directory is not None:
                self._lock_descriptor = _lock(self._directory)
            for config in self._backends:
                sender = self._open_sender(config)
                self._senders.append(sender)
                for signal in config.signals:
                    queue = self._queue(config, signal)
                    await asyncio.to_thread(queue.open, self._clock.time_unix_ns())
                    courier = Courier(
                        signal, config, queue, sender, to_protobuf=self._to_protobuf, clock=self._clock
                    )
                    self._couriers.append(courier)
                    self._by_signal[signal].append(courier)
        except BaseException:
            await self._give_back()
            raise
        self._tell_of_the_past()
        for courier in self._couriers:
            courier.start()
        self._running = True

    def _queue(self, config: BackendConfig, signal: Signal) -> ForwardQueue:
        if self._directory is None:
            return MemoryQueue(max_bytes=config.queue_max_bytes, max_age_s=config.queue_max_age_s)
        return DiskQueue(
            self._directory / config.name / signal,
            max_bytes=config.queue_max_bytes,
            max_age_s=config.queue_max_age_s,
        )

    def _tell_of_the_past(self) -> None:
        for courier in self._couriers:
            if courier.queue.entries or courier.queue.counts.total:
                _LOG.info("from before: %s", courier.report())
            if courier.queue.entries and self._redact:
                _LOG.warning(
                    "%d requests of %s for %s were queued before this start and go as they were queued, also those from "
                    "before redact_exports was set",
                    courier.queue.entries,
                    courier.signal,
                    courier.config.name,
                )
        if self._directory is None or not self._directory.is_dir():
            return
        known = {
            self._directory / config.name / signal for config in self._backends for signal in config.signals
        }
        left: dict[Path, int] = {}
        for segment in self._directory.glob("*/*/*.segment"):
            size_bytes = segment.stat().st_size
            if segment.parent not in known and size_bytes:
                left[segment.parent] = left.get(segment.parent, 0) + size_bytes
        for path, size_bytes in sorted(left.items()):
            _LOG.warning(
                "%s holds %d bytes for a backend that is not configured: they are kept there",
                path,
                size_bytes,
            )

    # --- what receivers and the monitor call ----------------------------------------------------------------

    async def accept(
        self, signal: Signal, body: bytes, encoding: Encoding, *, conflated_only: bool = False
    ) -> None:
        """Queue one request for every backend that takes its signal; never waits for a backend.

        Args:
            signal: of the request.
            body: as it was received, inflated. An empty one holds nothing and is not forwarded.
            encoding: of the body.
            conflated_only: nothing but ticks and `writer.alive`: only for backends that ask for them.

        Raises:
            QueueUnavailable: it is queued nowhere. The same call may succeed later.
        """
        if self._redact and self._takers(signal, conflated_only=conflated_only):
            body = await self._without_secrets(signal, body, encoding)
        queued = self._offer(signal, body, encoding, conflated_only=conflated_only)
        if queued and self._sync is not None:
            try:
                await self._sync.synced()
            except (OSError, QueueUnavailable) as error:
                _withdraw(queued)
                raise QueueUnavailable("the queues for backends are not on the disk") from error

    def submit_span(self, request: bytes) -> None:
        """Queue a traces request of the collector's own (protobuf): the closing span of an operation.

        With the durability `fsync` it survives a power cut a moment later.

        Raises:
            QueueUnavailable: it is queued nowhere. The same call may succeed later.
        """
        if self._redact:
            request = redacted_at_once("traces", request, "protobuf").body
        if self._offer("traces", request, "protobuf", conflated_only=False) and self._sync is not None:
            self._sync.begin()

    async def _without_secrets(self, signal: Signal, body: bytes, encoding: Encoding) -> bytes:
        pieces = redacted_request(signal, body, encoding)
        while True:
            try:
                next(pieces)
            except StopIteration as done:
                redacted: Redacted = done.value
                break
            await asyncio.sleep(0)
        if redacted.unreadable:
            self.unreadable += redacted.unreadable
            self._losses.note()
        return redacted.body

    def _news(self) -> str:
        new, self._unreadable_said = self.unreadable - self._unreadable_said, self.unreadable
        return f"{new} records could not be read to redact them, and are not forwarded" if new else ""

    def _takers(self, signal: Signal, *, conflated_only: bool) -> list[Courier]:
        couriers = self._by_signal[signal]
        return [one for one in couriers if one.config.ticks] if conflated_only else couriers

    def _offer(
        self, signal: Signal, body: bytes, encoding: Encoding, *, conflated_only: bool
    ) -> list[tuple[Courier, int]]:
        """Everywhere or nowhere: a request that is refused here comes again, and would arrive twice."""
        if not self._running:
            raise QueueUnavailable("forwarding is not running: the collector is starting or stopping")
        queued: list[tuple[Courier, int]] = []
        if not body:
            return queued
        try:
            for courier in self._takers(signal, conflated_only=conflated_only):
                serial = courier.offer(body, encoding)
                if serial is not None:
                    queued.append((courier, serial))
        except QueueUnavailable:
            _withdraw(queued)
            raise
        for courier, _ in queued:
            courier.wake()
        return queued

    def _unsynced(self) -> list[int]:
        descriptors: list[int] = []
        try:
            for courier in self._couriers:
                descriptors += courier.queue.unsynced()
        except QueueUnavailable:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return descriptors

    async def stop(self, deadline_s: float) -> None:
        """Deliver what goes within `deadline_s` seconds and keep the rest for the next start. A second call does nothing.

        A backend that is away is not waited for, unless its queue is in memory only and it answers.
        """
        self._running = False
        at_s = asyncio.get_running_loop().time() + deadline_s
        tasks = [task for courier in self._couriers for task in courier.tasks]
        for courier in self._couriers:
            courier.begin_to_close(at_s)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.0, deadline_s))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._losses.close()
            await self._give_back()

    async def _give_back(self) -> None:
        couriers, self._couriers = self._couriers, []
        self._by_signal = {signal: [] for signal in SIGNALS}
        for courier in couriers:
            courier.close()
        senders, self._senders = self._senders, []
        for sender in senders:
            with contextlib.suppress(Exception):
                await sender.close()
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    # --- what operators see ---------------------------------------------------------------------------------

    def stats(self) -> list[CourierReport]:
        """How each signal of each backend stands."""
        return [courier.report() for courier in self._couriers]

    def report(self) -> list[str]:
        """The same as one line each, without secrets."""
        return [str(one) for one in self.stats()]


def _withdraw(queued: Sequence[tuple[Courier, int]]) -> None:
    for courier, serial in queued:
        courier.queue.withdraw(serial)


def _lock(directory: Path) -> int:
    """Keep other collectors out; the lock goes with the process."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise QueueUnavailable(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise QueueUnavailable(f"{directory} is in use by another collector") from error
    return descriptor
