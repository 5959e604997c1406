"""What waits to be sent: bounded, in order, counted where it overflows.

Two spools keep the same contract: this one in memory, and one on disk (`disk_spool`) that outlives its process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

MAX_BATCH: Final = 512
"""Entries in one request."""
MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
"""Half of what a gRPC receiver takes by default."""

Encode = Callable[[list[Any]], tuple[bytes, int]]
"""Makes one request of the oldest entries: its bytes, and how many entries are in it (at least one)."""


class Spool(Protocol):
    """First in, first out, for any number of writers, who never wait, and one reader.

    The reader asks for a request, tries it, and asks again: it gets the same bytes until it says that they are settled.
    When a spool is full the oldest entries go: each event carries the state so far, so the newest are worth most.
    """

    @property
    def dropped(self) -> int:
        """Entries lost because it was full, or because they cannot be encoded or read; only rises."""

    @property
    def failure(self) -> str:
        """What went wrong last in the spool itself, for one log line; empty: nothing did."""

    @property
    def place(self) -> str:
        """Where entries wait that outlive the process; empty: nowhere."""

    def __len__(self) -> int:
        """Entries that wait, those of the request that is being tried among them."""

    def put(self, entry: Any) -> None:
        """Append one entry. Any thread; never waits, never raises."""

    def tend(self, now_s: float) -> None:
        """Do what a writer must not wait for. Any thread that may wait; `now_s` is monotonic."""

    def next_body(self) -> bytes | None:
        """The request to try: the same bytes until `settle`; `None`: nothing waits."""

    def settle(self) -> int:
        """The request of `next_body` is dealt with; how many entries were in it."""

    def abandon(self) -> int:
        """The end: nothing is put or asked for any more. How many entries are lost by that."""


class Encoded(NamedTuple):
    """What came of encoding some entries."""

    body: bytes | None
    """`None`: the first entry cannot be encoded."""
    entries: int
    """How many of the first ones are dealt with: they are in `body`, or it is the one that cannot be encoded."""
    failure: str = ""


def encoded(encode: Encode, entries: list[Any]) -> Encoded:
    """One request of the first entries.

    One entry that cannot be encoded must neither block the others for ever nor take its neighbours along: where all of
    them together cannot be, the first is tried alone.
    """
    for some in (entries, entries[:1]):
        try:
            return Encoded(*encode(some))
        except Exception as error:
            failure = f"not to be encoded: {type(error).__name__}"
    return Encoded(None, 1, failure)


class MemorySpool:
    """See `Spool`.

    Args:
        limit: how many entries wait at most, beside those of the request that is being tried.
        encode: makes the requests.
    """

    place = ""

    def __init__(self, limit: int, encode: Encode) -> None:
        self._limit = limit
        self._encode = encode
        self._entries: deque[Any] = deque()
        self._returned: Encoded | None = None
        self._out = 0
        """Entries that the reader has in hand: too many for a moment, and never too few."""
        self._body: bytes | None = None
        self._count = 0
        self.dropped = 0
        self.failure = ""

    def __len__(self) -> int:
        return len(self._entries) + self._out + self._count

    def put(self, entry: Any) -> None:
        """See `Spool.put`; over the limit the oldest entry goes."""
        entries = self._entries
        entries.append(entry)
        if len(entries) > self._limit:
            try:
                entries.popleft()
            except IndexError:  # the reader took everything meanwhile
                return
            self.dropped += 1

    def tend(self, now_s: float) -> None:
        """Nothing."""

    def next_body(self) -> bytes | None:
        """See `Spool.next_body`."""
        while self._body is None:
            made = self.pop()
            if made is None:
                return None
            if made.body is not None:
                self._body, self._count = made.body, made.entries
            self.let_go()
        return self._body

    def pop(self) -> Encoded | None:
        """Take the oldest entries, as one request; `None`: none wait. What cannot be encoded is counted.

        They go on waiting here until `let_go` or `give_back`.
        """
        returned, self._returned = self._returned, None
        if returned is not None:
            return returned
        entries = self._take(MAX_BATCH)
        if not entries:
            return None
        made = encoded(self._encode, entries)
        self._entries.extendleft(reversed(entries[made.entries :]))  # over the limit for a while, maybe
        self._out = made.entries
        if made.body is None:
            self.dropped += made.entries
            self.failure = made.failure
        return made

    def give_back(self, made: Encoded) -> None:
        """Return what `pop` gave: the next one gives it again."""
        self._returned = made

    def let_go(self) -> None:
        """What `pop` gave waits elsewhere now."""
        self._out = 0

    def settle(self) -> int:
        """See `Spool.settle`."""
        count, self._count, self._body = self._count, 0, None
        return count

    def abandon(self) -> int:
        """See `Spool.abandon`: everything that waits."""
        lost = len(self)
        self._entries.clear()
        self._returned = None
        self._out = 0
        self.settle()
        return lost

    def _take(self, most: int) -> list[Any]:
        taken: list[Any] = []
        entries = self._entries
        try:
            while len(taken) < most:
                self._out += 1
                taken.append(entries.popleft())
        except IndexError:
            self._out -= 1
        return taken
