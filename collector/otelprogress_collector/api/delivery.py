"""Who gets a turn, and when: one listener, one task and one timer for all readers of the feed.

A pass over the readers is made after the host changed something: at once while there is time, else as often as a share of
the loop's time allows, so that under load more events share a frame and a system call, and those who bring the
events get their turn too. A long pass is made in slices. Nobody is given a turn while the host is between the
beginning and the end of a commit.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from otelprogress_collector.api.wire import SharedWire

if TYPE_CHECKING:
    from otelprogress_collector.host import CollectorHost

_LOG = logging.getLogger("otelprogress_collector.api")

SLICE_S: Final = 0.005
"""How long a pass keeps the loop from everything else at once."""
_LOOK_AT_CLOCK_EVERY: Final = 16
BUSY_SHARE: Final = 0.6
"""The share of the loop's time that passes may take for long; the rest is for those who bring the events."""
_BURST_S: Final = 0.1
"""How much of it may be saved up: a pass now and then is made at once."""
SWEEP_S: Final = 1.0
"""How often each reader is asked whether it may go on, and when it is to be looked at next."""
_SWEEP_PARTS: Final = 16
_HORIZON_S: Final = 1.25
"""Later times than this are left to the next sweep: most of them move before they come."""


class Pace:
    """Keeps work to a share of the time; what was not used is saved up for a burst.

    Args:
        now_s: a monotonic clock.
    """

    def __init__(self, now_s: float) -> None:
        self._left_s = _BURST_S
        self._at_s = now_s

    def rest_s(self, busy_s: float, now_s: float) -> float:
        """How long to rest after `busy_s` of work that ended now; 0: not at all."""
        earned_s = (now_s - self._at_s) * BUSY_SHARE
        self._left_s = min(_BURST_S, self._left_s + earned_s) - busy_s
        self._at_s = now_s
        return max(0.0, -self._left_s / BUSY_SHARE)


class Reader(Protocol):
    """One subscriber of the feed, whatever it is connected by. Its methods must not raise, and must not wait."""

    due_s: float
    """When it is to be looked at; infinity: not at all. Only `Delivery` writes it, once it is added."""

    def pump(self, now_s: float, now_unix_ns: int) -> None:
        """Send what there is. Called while the host may be read."""

    def look(self, now_s: float, now_unix_ns: int) -> None:
        """A time that it asked for has come: do what is due, then as `pump`."""

    def plan(self, now_s: float) -> None:
        """Call `Delivery.look_at`, if there is something to look at; asked with each sweep. What is nearer it says itself."""

    def fail(self) -> None:
        """End it: it raised."""

    def recheck(self) -> bool:
        """End it if its token was revoked; whether it may go on."""


class Delivery:
    """See the module.

    Args:
        host: what is read.
    """

    def __init__(self, host: CollectorHost) -> None:
        self._wires: list[SharedWire] = []
        self.failures = 0
        """Readers that raised: bugs."""
        self.passes = 0
        """How often all readers had a turn."""
        self._host = host
        self._clock = host.clock
        self._readers: dict[Reader, None] = {}
        self._wanting: dict[Reader, None] = {}
        self._due: list[tuple[float, int, Reader]] = []
        self._order = count()
        self._sweep_at_s = self._next_sweep_s = 0.0
        self._unswept: list[Reader] = []
        self._sweep_count = 1
        self._news = False
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._readers)

    def readers(self) -> list[Reader]:
        """All that have turns."""
        return list(self._readers)

    def start(self) -> None:
        """Begin to deliver, on the running loop."""
        self._unlisten = self._host.on_change(self._on_change)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="otelprogress-delivery")

    async def stop(self) -> None:
        """Nobody gets a turn any more."""
        if self._unlisten is not None:
            self._unlisten()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def share(self, encode: Callable[[Sequence[bytes]], bytes]) -> SharedWire:
        """Wire forms that are kept until the next pass."""
        wire = SharedWire(encode)
        self._wires.append(wire)
        return wire

    def add(self, reader: Reader) -> None:
        """Give it a turn with every change."""
        self._readers[reader] = None
        if len(self._readers) == 1:
            self._wake.set()

    def remove(self, reader: Reader) -> None:
        """Forget it."""
        self._readers.pop(reader, None)
        self._wanting.pop(reader, None)
        reader.due_s = inf

    def want_turn(self, reader: Reader) -> None:
        """Give it a turn soon, though nothing changed."""
        if reader in self._readers:
            self._wanting[reader] = None
            self._wake.set()

    def look_at(self, reader: Reader, at_s: float, now_s: float) -> None:
        """Look at it then, by the host's monotonic clock, or before: then it says the next time."""
        if at_s >= reader.due_s or reader not in self._readers:
            return
        reader.due_s = at_s
        if at_s - now_s < _HORIZON_S:
            self._queue(reader)
            if self._due[0][2] is reader:
                self._set_timer(now_s)

    def _on_change(self) -> None:
        self._news = True
        self._wake.set()

    def _queue(self, reader: Reader) -> None:
        heapq.heappush(self._due, (reader.due_s, next(self._order), reader))

    def _set_timer(self, now_s: float) -> None:
        if not self._readers:
            # Nobody to look at: whoever comes wakes this up.
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        at_s = min(self._due[0][0], self._sweep_at_s) if self._due else self._sweep_at_s
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - now_s), self._wake.set)

    async def _run(self) -> None:
        self._set_timer(self._clock.monotonic_s())
        pace = Pace(self._clock.monotonic_s())
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._host.readable()
            for wire in self._wires:
                wire.clear()
            busy_s = await self._pass()
            now_s = self._clock.monotonic_s()
            self._set_timer(now_s)
            # 0 is a turn for the others, too: what was written should reach the peers before the next pass.
            await asyncio.sleep(pace.rest_s(busy_s, now_s))

    async def _pass(self) -> float:
        """A turn for everybody who is to have one; how long they took, in seconds."""
        now_s = self._clock.monotonic_s()
        turns = self._turns(now_s)
        busy_s = 0.0
        pending = iter(turns.items())
        while True:
            began_s = now_s
            over = self._give(pending, now_s, self._clock.time_unix_ns())
            now_s = self._clock.monotonic_s()
            busy_s += now_s - began_s
            if over:
                return busy_s
            await asyncio.sleep(0)
            await self._host.readable()
            now_s = self._clock.monotonic_s()

    def _turns(self, now_s: float) -> dict[Reader, bool]:
        """Who has a turn now, and whether a time of its own has come."""
        wanting, self._wanting = self._wanting, {}
        if self._news:
            self._news = False
            self.passes += 1
            wanting = self._readers
        turns = dict.fromkeys(wanting, False)
        if now_s >= self._sweep_at_s:
            self._sweep(now_s)
        while self._due and self._due[0][0] <= now_s:
            reader = heapq.heappop(self._due)[2]
            if reader.due_s <= now_s:  # else it has another time by now, or had its turn
                reader.due_s = inf
                turns[reader] = True
        return turns

    def _sweep(self, now_s: float) -> None:
        """Ask a part of the readers, so that thousands of them do not hold up the rest at once."""
        self._sweep_at_s = now_s + SWEEP_S / _SWEEP_PARTS
        if not self._unswept:
            if now_s < self._next_sweep_s:
                return
            self._next_sweep_s = now_s + SWEEP_S
            self._unswept = list(self._readers)
            self._sweep_count = -(-len(self._unswept) // _SWEEP_PARTS) or 1
        part = self._unswept[-self._sweep_count :]
        del self._unswept[-self._sweep_count :]
        for reader in part:
            if reader in self._readers and reader.recheck():
                reader.plan(now_s)
                if reader.due_s < now_s + _HORIZON_S:
                    self._queue(reader)

    def _give(self, pending: Iterator[tuple[Reader, bool]], now_s: float, now_unix_ns: int) -> bool:
        """Give turns for a slice of time; whether nobody is left."""
        until_s = now_s + SLICE_S
        for number, (reader, due) in enumerate(pending, 1):
            if reader not in self._readers:
                continue
            try:
                if due:
                    reader.look(now_s, now_unix_ns)
                else:
                    reader.pump(now_s, now_unix_ns)
            except Exception:
                self.failures += 1
                _LOG.exception("a reader of the feed failed")
                self.remove(reader)
                reader.fail()
            if number % _LOOK_AT_CLOCK_EVERY == 0 and self._clock.monotonic_s() >= until_s:
                return False
        return True
