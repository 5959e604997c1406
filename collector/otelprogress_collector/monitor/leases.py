"""Which writers have been silent for longer than they promised. Pure: the clock is an argument.

Time counts here only while it is watched. A tick that comes late (the collector was stopped, its machine slept, its
loop was busy) adds at most `MAX_STEP_S`, so nobody's lease runs out in a time in which nobody could be heard. After
a start each writer has `max(lease, 45 s)` to be heard again (design: "Lost, stalled, waiting").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

TICK_S: Final = 0.5
"""How often `tick` is to be called."""
MAX_STEP_S: Final = 1.0 + TICK_S
"""What one tick may add at most: a jump of more than a second is time that was not watched."""
RESTART_LEASE_S: Final = 45.0
SILENT_LEASE_S: Final = 3600.0
"""Of a writer that promised nothing: foreign code without a lease. Nothing tells it from one that died."""


class Heard(NamedTuple):
    """One writer that answers for a live run."""

    key: str
    """Of the writer, stable while it lives."""
    heard_unix_ns: int
    """When it was last heard, by the host's clock: only whether that changed counts."""
    lease_s: float | None
    linked: bool
    """Whether its worker link is open: then only the link's end is a verdict."""


class _Watch:
    __slots__ = ("heard_unix_ns", "lease_s", "silent_s")

    def __init__(self, heard_unix_ns: int, lease_s: float) -> None:
        self.heard_unix_ns = heard_unix_ns
        self.lease_s = lease_s
        self.silent_s = 0.0


class Leases:
    """See the module.

    Args:
        silent_lease_s: of writers that gave none.
    """

    def __init__(self, silent_lease_s: float = SILENT_LEASE_S) -> None:
        self._silent_lease_s = silent_lease_s
        self._watched: dict[str, _Watch] = {}
        self._ticked_at_s: float | None = None

    def tick(self, writers: Iterable[Heard], now_s: float) -> list[str]:
        """Look at all writers that answer for something.

        Args:
            writers: all of them; those left out are forgotten.
            now_s: a monotonic clock.

        Returns:
            The keys of those whose lease has run out. They are named again at each tick until they are left out.
        """
        started = self._ticked_at_s is None
        step_s = 0.0 if self._ticked_at_s is None else min(max(0.0, now_s - self._ticked_at_s), MAX_STEP_S)
        self._ticked_at_s = now_s
        before, self._watched = self._watched, {}
        expired: list[str] = []
        for writer in writers:
            promised_s = writer.lease_s if writer.lease_s is not None else self._silent_lease_s
            watch = before.get(writer.key)
            if watch is None:
                # Those who stand there at the first tick were not heard by this process yet.
                watch = _Watch(
                    writer.heard_unix_ns, max(promised_s, RESTART_LEASE_S) if started else promised_s
                )
            elif writer.linked or watch.heard_unix_ns != writer.heard_unix_ns:
                watch = _Watch(writer.heard_unix_ns, promised_s)
            else:
                watch.silent_s += step_s
            self._watched[writer.key] = watch
            if watch.silent_s > watch.lease_s and not writer.linked:
                expired.append(writer.key)
        return expired
