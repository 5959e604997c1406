"""What waits to be sent: bounded, in order, counted where it overflows. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from otelprogress.model import semconv
from otelprogress.model.events import Event

T = TypeVar("T")


class Spool(Generic[T]):
    """First in, first out, for one reader and any number of writers. Writers never wait.

    When it is full the oldest goes: each event carries the state so far, so the newest are worth most.

    Args:
        limit: how many entries wait at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: deque[T] = deque()
        self.dropped = 0
        """Entries lost because it was full; only rises."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: T) -> None:
        """Append; over the limit the oldest entry is dropped and counted."""
        entries = self._entries
        entries.append(entry)
        if len(entries) > self._limit:
            try:
                entries.popleft()
            except IndexError:  # the reader took everything meanwhile
                return
            self.dropped += 1

    def take(self, most: int) -> list[T]:
        """Remove and return up to `most` entries, oldest first."""
        taken: list[T] = []
        entries = self._entries
        try:
            while len(taken) < most:
                taken.append(entries.popleft())
        except IndexError:
            pass
        return taken

    def put_back(self, entries: list[T]) -> None:
        """Return what `take` gave and was not used, to the front. They may stand over the limit for a while."""
        self._entries.extendleft(reversed(entries))


class TickBoard:
    """The latest tick of each run, and which runs of the writer live.

    A durable event of a run carries its counts, so it makes an older tick worthless.

    Args:
        limit: runs with a tick waiting; more ticks are not taken (the next one heals them).
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._latest: dict[str, Event] = {}
        self.live: set[str] = set()
        """Runs that started and did not end."""

    def __len__(self) -> int:
        return len(self._latest)

    def see(self, event: Event) -> bool:
        """Take notice of any event; whether it is one to be spooled (durable) rather than kept here."""
        if event.durable:
            if event.kind == semconv.OPERATION_STARTED:
                self.live.add(event.run_id)
            elif event.kind == semconv.OPERATION_ENDED:
                self.live.discard(event.run_id)
            self._latest.pop(event.run_id, None)
            return True
        if event.kind == semconv.OPERATION_PROGRESSED and (
            event.run_id in self._latest or len(self._latest) < self._limit
        ):
            self._latest[event.run_id] = event
        return False

    def take(self) -> list[Event]:
        """Remove and return the ticks."""
        latest, self._latest = self._latest, {}
        return list(latest.values())
