"""One signal's way out: its spool, the request that is tried, when it may be tried again. No I/O, no clock."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from otelprogress.otel.spool import Spool
from otelprogress.otel.target import OtlpEndpoint, Signal
from otelprogress.otel.transport import Answer, Transport, Verdict

_BACKOFF_BASE_S: Final = 0.2
_BACKOFF_CAP_S: Final = 5.0
_RETRY_AFTER_CAP_S: Final = 30.0
_CLOSING_CAP_S: Final = 0.1
"""Longest pause between two tries once the process wants to leave."""


@dataclass(slots=True)
class LaneStats:
    """Counters of one signal, for `doctor`; they only rise."""

    delivered: int = 0
    """Entries that the receiver took."""
    requests: int = 0
    retries: int = 0
    rejected: int = 0
    """Entries that a partial success refused."""
    refused: int = 0
    """Entries in requests that the receiver will never take."""
    dropped: int = 0
    """Entries lost here: the spool was full, the signal is off, or the process left before they were delivered."""


class Lane:
    """See the module.

    Args:
        signal: what it carries.
        endpoint: where to.
        spool: where entries wait for it.
    """

    def __init__(self, signal: Signal, endpoint: OtlpEndpoint, spool: Spool) -> None:
        self.signal = signal
        self.endpoint = endpoint
        self.spool = spool
        self.transport: Transport | None = None
        self.stats = LaneStats()
        self.off_reason = ""
        """Not empty: the receiver does not take this signal, nothing more is sent."""
        self.last_failure = ""
        self.not_before_s = 0.0
        self._failures = 0
        self._given_up = False

    @property
    def waiting(self) -> int:
        """Entries that are not delivered yet."""
        return len(self.spool)

    @property
    def failing(self) -> bool:
        """Whether the request that waits was refused for now more than once."""
        return self._failures > 1

    @property
    def done(self) -> bool:
        """Whether nothing is left to try."""
        return bool(self.off_reason) or self._given_up or not self.waiting

    def next_body(self) -> bytes | None:
        """The request to try: the same bytes until an answer settles them; `None`: nothing waits."""
        body = self.spool.next_body()
        if self.spool.failure:
            self.last_failure = self.spool.failure
        return body

    def settle(self, answer: Answer, now_s: float, *, closing_left_s: float | None = None) -> None:
        """Take the answer to the request of `next_body`.

        Args:
            answer: what the attempt came to.
            now_s: monotonic.
            closing_left_s: the process wants to leave within so many seconds: pauses are short, and an endpoint
                that is not there, or asks for more patience than that, is not asked again. `None`: it stays.
        """
        stats = self.stats
        stats.requests += 1
        if answer.verdict is Verdict.RETRY:
            stats.retries += 1
            self.last_failure = answer.reason
            asked_s = answer.retry_after_s or 0.0
            if closing_left_s is not None and (not answer.reached or asked_s > closing_left_s):
                self._given_up = True
                return
            pause_s = random.uniform(0.5, 1.0) * min(
                _BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** min(self._failures, 16)
            )
            pause_s = max(pause_s, min(asked_s, _RETRY_AFTER_CAP_S))
            if closing_left_s is not None:
                pause_s = max(min(pause_s, _CLOSING_CAP_S), asked_s)
            self.not_before_s = now_s + pause_s
            self._failures += 1
            return
        self._failures = 0
        self.not_before_s = 0.0
        if answer.verdict is Verdict.UNSUPPORTED:
            self.off_reason = answer.reason
            stats.dropped += self.spool.abandon()
            return
        count = self.spool.settle()
        if answer.verdict is Verdict.DELIVERED:
            rejected = max(0, min(answer.rejected, count))  # a receiver may say anything
            stats.delivered += count - rejected
            stats.rejected += rejected
            if rejected:
                self.last_failure = answer.reason
        else:
            stats.refused += count
            self.last_failure = answer.reason

    def hold(self, answer: Answer, now_s: float) -> None:
        """Keep to what a receiver asked for that is busy for a request beside the lane's own; nothing else counts."""
        if answer.retry_after_s is not None:
            self.not_before_s = max(self.not_before_s, now_s + min(answer.retry_after_s, _RETRY_AFTER_CAP_S))

    def lost(self) -> int:
        """Entries that overflowed the spool or were dropped otherwise."""
        return self.stats.dropped + self.spool.dropped

    def abandon(self) -> int:
        """Give up what waits, at the end; how many entries are lost by that: a spool on disk keeps them."""
        lost = self.spool.abandon()
        self.stats.dropped += lost
        return lost
