"""How long to wait before connecting again: exponential with full jitter."""

from __future__ import annotations

import random
from typing import Final

HEALTHY_AFTER_S: Final = 30.0
"""A connection that stood this long proves the other side healthy: the next wait starts small again."""


class Backoff:
    """Waits of uniform(0, cap) seconds; the cap doubles from `low_s` to `high_s` with each failure.

    Full jitter spreads the clients of a feed that restarted better than any fixed part would.

    Args:
        low_s: the first cap, seconds.
        high_s: the last cap, seconds.
        rng: the source of randomness; pass a seeded one for repeatable runs.
    """

    def __init__(self, low_s: float = 0.5, high_s: float = 20.0, *, rng: random.Random | None = None) -> None:
        if not 0 < low_s <= high_s:
            raise ValueError(f"backoff needs 0 < low <= high, not {low_s!r} and {high_s!r}")
        self._low_s = low_s
        self._high_s = high_s
        self._cap_s = low_s
        self._rng = rng if rng is not None else random.Random()
        self._connected_at_s: float | None = None

    def connected(self, now_s: float) -> None:
        """The connection stands (its `welcome` came)."""
        self._connected_at_s = now_s

    def reset(self) -> None:
        """The other side proved healthy: the next wait is a short one again."""
        self._cap_s = self._low_s

    def next_delay_s(self, now_s: float | None = None) -> float:
        """Seconds to wait after a connection ended or could not be made.

        Args:
            now_s: by the clock of `connected`; resets after a connection that stood long enough. `None`: the
                caller resets.
        """
        connected_at_s, self._connected_at_s = self._connected_at_s, None
        if connected_at_s is not None and now_s is not None and now_s - connected_at_s >= HEALTHY_AFTER_S:
            self.reset()
        delay_s = self._rng.uniform(0, self._cap_s)
        self._cap_s = min(self._high_s, self._cap_s * 2)
        return delay_s

    def asked_delay_s(self, low_s: float, high_s: float) -> float:
        """Seconds to wait when the feed itself named the span (`drain.reconnect_after_s`)."""
        return self._rng.uniform(max(0.0, low_s), max(low_s, high_s))
