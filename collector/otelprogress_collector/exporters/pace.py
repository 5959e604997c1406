"""What an answer means for one signal of one backend: what is counted, and when to try again. No I/O, no clock."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from otelprogress.otel.transport import Answer, Verdict
from otelprogress.protocol.backoff import Backoff

_BACKOFF_LOW_S: Final = 0.5
_BACKOFF_HIGH_S: Final = 30.0
_RETRY_AFTER_CAP_S: Final = 60.0
_CLOSING_PAUSE_S: Final = 0.1
"""Longest pause between two tries while the collector drains."""


class Next(StrEnum):
    """What is done with the requests that were tried."""

    SETTLED = "settled"
    """Their fate is known: forget them."""
    AGAIN = "again"
    """The same bytes, not before `not_before_s`."""
    ALONE = "alone"
    """Refused together: try each by itself, one of them spoils the others."""
    KEEP = "keep"
    """The collector is leaving, and this backend is not to be waited for."""
    OFF = "off"
    """The backend does not take this signal."""


@dataclass(slots=True)
class DeliveryCounts:
    """Of one signal of one backend; they only rise."""

    delivered: int = 0
    """Requests, as they were received, that the backend took."""
    delivered_bytes: int = 0
    """Of their bodies, before compression."""
    attempts: int = 0
    """Requests made to the backend; fewer than were delivered where several were sent as one."""
    retries: int = 0
    """Attempts that were answered with "later", or not at all."""
    refused: int = 0
    """Requests that the backend will never take."""
    rejected: int = 0
    """Records (spans, log records, data points) that a partial success left out."""


class Pace:
    """See the module.

    Args:
        rng: of the jitter; pass a seeded one for repeatable runs.
    """

    def __init__(self, *, rng: random.Random | None = None) -> None:
        self.counts = DeliveryCounts()
        self.off_reason = ""
        """Not empty: the backend does not take this signal; nothing more is sent until the next start."""
        self.last_failure = ""
        self.failures = 0
        """Attempts in a row that were answered with "later"."""
        self.not_before_s = 0.0
        """Monotonic; no attempt before it."""
        self._backoff = Backoff(_BACKOFF_LOW_S, _BACKOFF_HIGH_S, rng=rng)

    def settle(
        self,
        answer: Answer,
        *,
        requests: int,
        size_bytes: int,
        now_s: float,
        closing_left_s: float | None = None,
        kept: bool = False,
    ) -> Next:
        """Take the answer to one attempt.

        Args:
            answer: what it came to.
            requests: how many received requests were in it.
            size_bytes: of their bodies.
            now_s: monotonic.
            closing_left_s: the collector wants to leave within so many seconds; `None`: it stays.
            kept: what is not delivered is kept for the next start.
        """
        counts = self.counts
        counts.attempts += 1
        if answer.verdict is Verdict.RETRY:
            return self._later(answer, now_s, closing_left_s, kept=kept)
        self.failures = 0
        self.not_before_s = 0.0
        self._backoff.reset()
        if answer.verdict is Verdict.DELIVERED:
            counts.delivered += requests
            counts.delivered_bytes += size_bytes
            if answer.rejected > 0:  # a receiver may say anything
                counts.rejected += answer.rejected
                self.last_failure = answer.reason
            return Next.SETTLED
        if answer.verdict is Verdict.UNSUPPORTED:
            self.off_reason = answer.reason
            return Next.OFF
        self.last_failure = answer.reason
        if requests > 1:
            return Next.ALONE
        counts.refused += requests
        return Next.SETTLED

    def _later(self, answer: Answer, now_s: float, closing_left_s: float | None, *, kept: bool) -> Next:
        self.counts.retries += 1
        self.failures += 1
        self.last_failure = answer.reason
        asked_s = min(answer.retry_after_s or 0.0, _RETRY_AFTER_CAP_S)
        pause_s = self._backoff.next_delay_s()
        if closing_left_s is not None:
            if kept or not answer.reached or asked_s >= closing_left_s:
                return Next.KEEP
            pause_s = min(pause_s, _CLOSING_PAUSE_S)
        self.not_before_s = now_s + max(pause_s, asked_s)
        return Next.AGAIN
