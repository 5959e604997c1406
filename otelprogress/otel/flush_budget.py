"""How long the ends of tasks may wait for the OTLP endpoints, all together: a slow backend must not set a pool's pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otelprogress.otel.sender import Sender

MAX_SAVED_S: Final = 0.5
"""What may be waited at once, and before anything was earned: several round trips to a backend nearby."""
SHARE: Final = 0.1
"""Seconds of waiting that each second of a process's life earns."""


class FlushBudget:
    """Flushes a sender as long as that costs little. What is not waited for is sent all the same, just later.

    Waiting is for processes that are killed right after a result, as `multiprocessing.Pool` does at its end. It is
    taken from a budget that grows with time: tasks that are much shorter than a round trip are delayed by a tenth,
    not by a round trip each. And a flush that was in vain is not followed by another until something was settled.

    Args:
        sender: what is flushed.
        monotonic_s: the clock.
    """

    def __init__(self, sender: Sender, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._sender = sender
        self._monotonic_s = monotonic_s
        self._saved_s = MAX_SAVED_S
        self._saved_at_s = monotonic_s()
        self._settled_in_vain: int | None = None
        """How much was settled when a flush was in vain; `None`: the last one was not."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was given so far is settled: at most `timeout_s`, and no longer than the budget lasts.

        Returns:
            Whether it is. `False` at once when nothing was settled since a flush that was in vain, when endpoints
            refuse what they are sent, and when the budget is spent.
        """
        if self._sender.failing or self._settled() == self._settled_in_vain:
            return False
        began_s = self._monotonic_s()
        saved_s = min(MAX_SAVED_S, self._saved_s + (began_s - self._saved_at_s) * SHARE)
        flushed = self._sender.flush(min(timeout_s, saved_s))
        ended_s = self._monotonic_s()
        self._saved_s, self._saved_at_s = max(0.0, saved_s - (ended_s - began_s)), ended_s
        self._settled_in_vain = None if flushed else self._settled()
        return flushed

    def _settled(self) -> int:
        """Entries that an endpoint has answered for good."""
        return sum(each.delivered + each.rejected + each.refused for each in self._sender.stats().values())
