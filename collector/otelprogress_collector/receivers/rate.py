"""How much may come: the bytes of all requests under way, and the hook for a limit per sender."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.host import Overloaded
from otelprogress_collector.receivers.intake import Intake

RateLimit = Callable[[Principal, Intake, int], float | None]
"""(sender, what it sent, its size in bytes): seconds until it may send that again; `None`: it may now.

One that answers `None` has counted the request.
"""

_RETRY_AFTER_S = 1.0


class RateLimited(Overloaded):
    """This sender sends more than it may."""


class InFlight:
    """Bytes of bodies that are being received or read.

    Args:
        max_bytes: of all together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.now_bytes = 0

    @contextmanager
    def body(self) -> Iterator[Reservation]:
        """Room for one body; given back at the end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.now_bytes -= reservation.held_bytes


class Reservation:
    """One body's share."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self.held_bytes = 0

    def grow(self, by_bytes: int) -> None:
        """Take more.

        Raises:
            Overloaded: there is no room; the sender should come again.
        """
        in_flight = self._in_flight
        # One body always fits: it was measured against its own limit.
        if in_flight.now_bytes > self.held_bytes and in_flight.now_bytes + by_bytes > in_flight.max_bytes:
            raise Overloaded("too much is being received at the moment", _RETRY_AFTER_S)
        in_flight.now_bytes += by_bytes
        self.held_bytes += by_bytes
