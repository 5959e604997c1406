"""How many waits may stand open, of one viewer and of all; and when which position was given to whom. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from otelprogress.mcp.refusal import Refusal

MAX_PER_VIEWER: Final = 16
MAX_IN_ALL: Final = 2_000
MAX_STARTS_PER_VIEWER: Final = 8
MAX_STARTS_IN_ALL: Final = 64
MAX_GIVEN: Final = 10_000


class Places:
    """Places for those who wait. Each is given back, however the wait ends.

    Args:
        per_viewer: at a time, of one viewer.
        in_all: at a time.
        what: waits, in the words of a refusal.
        instead: what a viewer that has too many can do.
    """

    def __init__(
        self,
        per_viewer: int = MAX_PER_VIEWER,
        in_all: int = MAX_IN_ALL,
        *,
        what: str = "waits",
        instead: str = "one can follow several operations",
    ) -> None:
        self._per_viewer = per_viewer
        self._in_all = in_all
        self._what = what
        self._instead = instead
        self._taken: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        """How many are taken."""
        return self._count

    @contextmanager
    def take(self, key: str) -> Iterator[None]:
        """Hold a place.

        Args:
            key: the viewer's.

        Raises:
            Refusal: all are taken.
        """
        self.check(key)
        self._taken[key] += 1
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]

    def check(self, key: str) -> None:
        """Look whether there is a place.

        Raises:
            Refusal: all are taken.
        """
        if self._taken.get(key, 0) >= self._per_viewer:
            raise Refusal(f"too many {self._what}: {self._per_viewer} of yours are open; {self._instead}")
        if self._count >= self._in_all:
            raise Refusal(f"too many {self._what}: {self._in_all} are open here; try again in a minute")


def starting_places() -> Places:
    """Places for commands that are being started, until what was started is heard of."""
    return Places(
        MAX_STARTS_PER_VIEWER,
        MAX_STARTS_IN_ALL,
        what="starts",
        instead="start more once it is known what became of those",
    )


class Given:
    """Remembers for a while when a position was given last, so that the next answer says how long ago that was.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at_s: OrderedDict[tuple[str, str], float] = OrderedDict()

    def give(self, key: str, position: str) -> None:
        """Note that a viewer gets a position now."""
        self._at_s[key, position] = self._clock()
        self._at_s.move_to_end((key, position))
        if len(self._at_s) > MAX_GIVEN:
            self._at_s.popitem(last=False)

    def elapsed_s(self, key: str, position: str) -> float | None:
        """Since the viewer got it; `None`: it did not, or that is forgotten."""
        at_s = self._at_s.get((key, position))
        return None if at_s is None else self._clock() - at_s
