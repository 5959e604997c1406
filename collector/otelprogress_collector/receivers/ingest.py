"""What every receiver does with a request: decode, limit, make durable, pass on. In this order, then it is answered.

Success is answered only once the events are durable and the bytes stand in the forward queues. Where that fails
between the two, the sender sends again: the events are known then and count once (`model.carriers`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from otelprogress.model.events import Event
from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.host import Accepted
from otelprogress_collector.receivers.decoding import Decoder
from otelprogress_collector.receivers.intake import Encoding, Intake, Signal
from otelprogress_collector.receivers.narrowing import without_groups
from otelprogress_collector.receivers.rate import RateLimit, RateLimited
from otelprogress_collector.store.interface import StoreUnavailable

Forward = Callable[[Signal, bytes, Encoding, bool], Awaitable[None]]
"""(signal, body, its encoding, whether it is all ticks): returns once the bytes stand in the forward queues.

Raises `Overloaded` or `StoreUnavailable`: they do not; the sender should come again.
"""


class Accepts(Protocol):
    """The part of a host that receivers call; see `host.CollectorHost`."""

    async def accept(self, events: Sequence[Event], size_bytes: int) -> Accepted:
        """Take the events of one request; returns once they are durable."""


class IngestStats(msgspec.Struct, gc=False):
    """What was counted since the start."""

    requests: int = 0
    records: int = 0
    events: int = 0
    rejected: int = 0
    received_bytes: int = 0
    """After inflation."""


class Ingest:
    """See the module. One for all receivers of a collector.

    Args:
        decoder: reads requests.
        host: makes events durable.
        forward: passes the bytes on; `None`: to nobody.
        rate_limit: asked once a request is read; `None`: no limit.
    """

    def __init__(
        self,
        decoder: Decoder,
        host: Accepts,
        *,
        forward: Forward | None = None,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self.stats = IngestStats()
        self._decoder = decoder
        self._host = host
        self._forward = forward
        self._rate_limit = rate_limit
        self._leaving = False

    def leave(self) -> None:
        """Take no more requests: the collector ends. Those that were begun go on."""
        self._leaving = True

    async def take(self, signal: Signal, body: bytes, encoding: Encoding, principal: Principal) -> Intake:
        """Take one request.

        Large requests are decoded in slices of a few milliseconds, between which others get their turn: in a thread
        they would compete for the interpreter with the event loop, which loses it for 5 ms each time.

        Args:
            signal: what it is.
            body: inflated.
            encoding: of the body.
            principal: who sends it.

        Raises:
            BadRequest: it cannot be read.
            TooLarge: it holds too much.
            Overloaded: too much waits; the sender should come again. `RateLimited`: this sender sends too much.
            StoreUnavailable: it cannot be kept at the moment, or the collector leaves; the sender should come again.
        """
        if self._leaving:
            raise StoreUnavailable("the collector ends or restarts")
        intake = await self._decode(signal, body, encoding, principal)
        if self._rate_limit is not None:
            wait_s = self._rate_limit(principal, intake, len(body))
            if wait_s is not None:
                raise RateLimited("this sender sends more than it may", wait_s)
        if intake.events:
            accepted = await self._host.accept(intake.events, len(body))
            if accepted.rejected:
                intake.reason = accepted.reason if not intake.rejected else intake.reason
                intake.rejected += accepted.rejected
        if self._forward is not None and body:
            passed = without_groups(signal, body, encoding, intake.refused_groups, self._decoder.limits)
            if passed is not None:
                await self._forward(signal, passed, encoding, intake.conflated_only)
        stats = self.stats
        stats.requests += 1
        stats.records += intake.records
        stats.events += len(intake.events)
        stats.rejected += intake.rejected
        stats.received_bytes += len(body)
        return intake

    async def _decode(self, signal: Signal, body: bytes, encoding: Encoding, principal: Principal) -> Intake:
        pieces = self._decoder.slices(signal, body, encoding, principal)
        while True:
            try:
                next(pieces)
            except StopIteration as done:
                intake: Intake = done.value
                return intake
            await asyncio.sleep(0)
