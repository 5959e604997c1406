"""Ticks that wait to be sent: the latest of each run, and when it may leave. No I/O, no clock: `now` is an argument.

Nobody watching, the ticks of all runs leave together, once a second. Where somebody watches (the `interest` of the
worker link) those of the watched runs leave as often as was asked for, at most ten times a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from otelprogress.model import semconv
from otelprogress.model.events import Event

PLAIN_RATE_HZ: Final = 1.0
MAX_RATE_HZ: Final = 10.0
EVERY_RUN: Final = "*"


class Seen(Enum):
    """What became of an event that the board was shown."""

    DURABLE = "durable"
    """It is not for the board: it has to be spooled."""
    SOONER = "sooner"
    """A tick that may leave before anything else that waits here: whoever sleeps until then has to look again."""
    WAITS = "waits"


class TickBoard:
    """The latest tick of each run, and which runs of the writer live.

    A durable event of a run carries its counts, so it makes an older tick worthless. One thread takes; any other may
    show events and say who watches.

    Args:
        limit: runs with a tick waiting; more ticks are not taken (the next one heals them).
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._latest: dict[str, Event] = {}
        self._rate_of_all_hz = PLAIN_RATE_HZ
        self._rates_hz: dict[str, float] = {}
        """Of runs that are watched more closely than all the others."""
        self._round_at_s = 0.0
        """When everything that waits may leave."""
        self._next_at_s: dict[str, float] = {}
        """When a watched run's next tick may leave."""
        self.live: set[str] = set()
        """Runs that started and did not end."""

    def __len__(self) -> int:
        return len(self._latest)

    def see(self, event: Event) -> Seen:
        """Take notice of any event; a tick is kept until it is taken, or something newer of its run comes."""
        if event.durable:
            if event.kind == semconv.OPERATION_STARTED:
                self.live.add(event.run_id)
            elif event.kind == semconv.OPERATION_ENDED:
                self.live.discard(event.run_id)
            self._latest.pop(event.run_id, None)
            return Seen.DURABLE
        if event.kind != semconv.OPERATION_PROGRESSED:
            return Seen.WAITS
        waits = event.run_id in self._latest
        if not waits and len(self._latest) >= self._limit:
            return Seen.WAITS
        self._latest[event.run_id] = event
        # The first one decides when the next round is looked for; a watched run has times of its own.
        sooner = not waits and (len(self._latest) == 1 or event.run_id in self._rates_hz)
        return Seen.SOONER if sooner else Seen.WAITS

    def take_interest(self, rates_hz: Mapping[str, float]) -> None:
        """Somebody watches these runs (`*`: all), so often a second; every earlier interest is over."""
        of_all = max(PLAIN_RATE_HZ, min(MAX_RATE_HZ, rates_hz.get(EVERY_RUN, PLAIN_RATE_HZ)))
        if of_all > self._rate_of_all_hz:
            self._round_at_s = 0.0
        self._rate_of_all_hz = of_all
        self._rates_hz = {
            run: min(MAX_RATE_HZ, rate)
            for run, rate in rates_hz.items()
            if run != EVERY_RUN and rate > of_all
        }

    def due_at_s(self) -> float | None:
        """When something may leave, by the clock of `take`; `None`: nothing waits."""
        if not self._latest:
            return None
        return min(
            [
                self._round_at_s,
                *(self._next_at_s.get(run, 0.0) for run in self._rates_hz if run in self._latest),
            ]
        )

    def take(self, now_s: float) -> list[Event]:
        """Remove and return the ticks that may leave now."""
        rates_hz = self._rates_hz
        self._next_at_s = {run: at_s for run, at_s in self._next_at_s.items() if run in rates_hz}
        taken: dict[str, Event] = {}
        if now_s >= self._round_at_s:
            taken, self._latest = self._latest, {}
            self._round_at_s = now_s + 1 / self._rate_of_all_hz
        for run, rate_hz in rates_hz.items():
            if run not in taken and now_s >= self._next_at_s.get(run, 0.0):
                tick = self._latest.pop(run, None)
                if tick is not None:
                    taken[run] = tick
            if run in taken:
                self._next_at_s[run] = now_s + 1 / rate_hz
        return list(taken.values())
