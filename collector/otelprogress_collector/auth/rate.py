"""How much one token and one address may ask for, and how many strangers one address may have at the door.

Token buckets in memory, for a bounded number of keys. `now_s` is an argument, a monotonic clock. (The library `limits`
has windows and no buckets, reads the wall clock itself, starts timer threads and keeps as many keys as are made up for
it.)
"""

from __future__ import annotations

import functools
import ipaddress
import math
from collections import OrderedDict
from typing import Final

MAX_RETRY_AFTER_S: Final = 5.0
"""Longer, and exporters would drop what they have."""
MIN_RETRY_AFTER_S: Final = 0.1
MAX_KEYS: Final = 10_000
_IPV6_NETWORK_BITS: Final = 64


class TokenBuckets:
    """One bucket for each key: `burst` at once, `per_s` on average.

    Of more than `max_keys` keys the one that was not asked about for longest is forgotten. Nobody gains by that: it is
    full again by then unless more than `max_keys` others asked meanwhile.

    Args:
        per_s: what comes back in a second; more than 0.
        burst: what a bucket holds; at least 1.
        max_keys: how many buckets are kept.
    """

    def __init__(self, *, per_s: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        if not (per_s > 0 and burst >= 1 and math.isfinite(per_s) and math.isfinite(burst) and max_keys >= 1):
            raise ValueError("per_s must be more than 0, burst and max_keys at least 1")
        self._per_s = per_s
        self._burst = burst
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What was in it, and when."""

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str, now_s: float, cost: float = 1.0) -> float:
        """How long until `cost` may be taken; 0: now. Takes nothing.

        More than a bucket holds may be taken out of a full one: the debt is worked off before anything else.
        """
        missing = min(cost, self._burst) - self._level(key, now_s)
        return max(0.0, missing / self._per_s)

    def take(self, key: str, now_s: float, cost: float = 1.0) -> None:
        """Take it, whether or not it is there."""
        self._buckets[key] = (self._level(key, now_s) - cost, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)

    def _level(self, key: str, now_s: float) -> float:
        level, at_s = self._buckets.get(key, (self._burst, now_s))
        return min(self._burst, level + max(0.0, now_s - at_s) * self._per_s)


class RateLimits:
    """Two buckets for each request: that of its token and that of its address.

    Args:
        by_token: `None`: no limit.
        by_address: `None`: no limit.
    """

    def __init__(self, *, by_token: TokenBuckets | None, by_address: TokenBuckets | None) -> None:
        self._by_token = by_token
        self._by_address = by_address
        self.refused = 0
        """Requests that were told to come back later."""

    def retry_after_s(self, now_s: float, *, address: str, token_id: str = "", cost: float = 1.0) -> float:
        """0: it may go on, and was counted. Else when to try again: 0.1 to 5 s; nothing was counted.

        Args:
            now_s: a monotonic clock.
            address: of the peer, as the socket says it.
            token_id: `Principal.token_id`, or another name of who asks; empty: it has shown none.
            cost: 1 for a request, or something in proportion to its size.
        """
        asked = []
        if self._by_address is not None:
            asked.append((self._by_address, address_key(address)))
        if self._by_token is not None and token_id:
            asked.append((self._by_token, token_id))
        wait_s = max((buckets.wait_s(key, now_s, cost) for buckets, key in asked), default=0.0)
        if wait_s > 0:
            self.refused += 1
            return min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, wait_s))
        for buckets, key in asked:
            buckets.take(key, now_s, cost)
        return 0.0


class Doorstep:
    """Connections that have not shown a good token yet: so many from one address, and so many in all.

    Args:
        per_address: from one address (IPv6: one /64 network).
        total: from everywhere.
    """

    def __init__(self, *, per_address: int = 64, total: int = 1024) -> None:
        self._per_address = per_address
        self._total = total
        self._waiting: dict[str, int] = {}
        self.count = 0
        """How many stand there now."""
        self.refused = 0
        """How many were turned away."""

    def enter(self, address: str) -> bool:
        """Count one in; `False`: there are too many, it has to be dropped, and was not counted."""
        key = address_key(address)
        here = self._waiting.get(key, 0)
        if here >= self._per_address or self.count >= self._total:
            self.refused += 1
            return False
        self._waiting[key] = here + 1
        self.count += 1
        return True

    def leave(self, address: str) -> None:
        """Count one out that was let in: it has shown a good token, or is gone. Once for each `enter`."""
        key = address_key(address)
        here = self._waiting.get(key, 0)
        if here == 0:
            raise ValueError(f"nobody from {key} stands at the door")
        self.count -= 1
        if here == 1:
            del self._waiting[key]
        else:
            self._waiting[key] = here - 1


@functools.lru_cache(maxsize=4096)
def address_key(address: str) -> str:
    """What of an address tells one peer from another: IPv4 as it is, of IPv6 the /64 network, which one host owns."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _IPV6_NETWORK_BITS), strict=False))
