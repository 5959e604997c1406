"""What operators see of one signal of one backend: counters, the state, and one line of text."""

from __future__ import annotations

from dataclasses import dataclass

from otelprogress.otel.target import Signal


@dataclass(frozen=True, slots=True)
class CourierReport:
    """One signal of one backend, at one moment. Counts are of requests as they were received, unless said otherwise."""

    backend: str
    signal: Signal
    authority: str
    queued: int
    """What waits and what is on its way."""
    queued_bytes: int
    oldest_age_s: float | None
    """`None`: nothing is queued."""
    delivered: int
    delivered_bytes: int
    attempts: int
    """Requests made to the backend."""
    retries: int
    """Of them those that were answered with "later", or not at all."""
    refused: int
    """The backend will never take them; dropped."""
    rejected: int
    """Records that a partial success left out."""
    overflowed: int
    """Dropped: the queue was full."""
    expired: int
    """Dropped: too old."""
    damaged: int
    """Lost on the disk."""
    cleared: int
    """Waited when the signal was switched off."""
    withheld: int
    """Not queued, because the signal is off."""
    off_reason: str
    """Not empty: the backend does not take this signal."""
    failures: int
    """Attempts in a row that came to nothing; 0: the backend answers."""
    last_failure: str
    internal_errors: int
    """Bugs of ours that were survived."""

    @property
    def dropped(self) -> int:
        """Requests that were lost here."""
        return self.overflowed + self.expired + self.damaged + self.cleared

    def __str__(self) -> str:
        state = f"off ({self.off_reason})" if self.off_reason else f"{self.queued} queued"
        if self.queued and self.oldest_age_s is not None:
            state += f" ({self.queued_bytes} bytes, the oldest {self.oldest_age_s:.0f} s old)"
        lost = f"{self.refused} refused, {self.rejected} records rejected, {self.dropped} dropped"
        failure = f", last failure {self.last_failure}" if self.last_failure else ""
        return (
            f"{self.signal} to {self.backend} ({self.authority}): {self.delivered} delivered, {state}, "
            f"{self.retries} retries, {lost}{failure}"
        )
