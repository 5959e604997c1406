"""What waits for one signal of one backend: one interface, in memory and on the disk.

A request is appended, taken, and settled once its fate is known: delivered, refused, given up. What was taken and not
settled is still the queue's, and is taken again after a restart if the queue survives that.

Used on one thread, the event loop's. Nothing here waits but for the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from otelprogress_collector.exporters.framing import HEADER_BYTES, Encoding
from otelprogress_collector.store.interface import StoreUnavailable

ENTRY_BYTES: Final = HEADER_BYTES + 8
"""What an entry costs beside its body, on the disk and in memory, about."""


class QueueUnavailable(StoreUnavailable):
    """Nothing was queued: the disk is full or broken, or the collector is stopping. It may work later."""


@dataclass(slots=True, eq=False)
class Entry:
    """One request that was taken."""

    body: bytes
    """As it was received."""
    encoding: Encoding
    accepted_unix_ns: int
    serial: int
    """Its number in its queue; never used twice in the life of the queue object."""

    @property
    def cost_bytes(self) -> int:
        """What it counts towards the bound."""
        return ENTRY_BYTES + len(self.body)


@dataclass(slots=True)
class QueueCounts:
    """What was lost here, in requests; they only rise."""

    overflowed: int = 0
    """The oldest went because the bound was reached."""
    expired: int = 0
    """Waited longer than the backend's `queue_max_age_s`."""
    damaged: int = 0
    """Could not be read again: torn by a crash, or the disk's fault."""
    cleared: int = 0
    """Waited when their signal was switched off."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.overflowed + self.expired + self.damaged + self.cleared


class ForwardQueue(Protocol):
    """See the module."""

    counts: QueueCounts
    survives: bool
    """Whether what is queued outlives the process."""

    def open(self, now_unix_ns: int) -> None:
        """Find what waits from before, and drop what is too old. The only call that may be made on another thread.

        Raises:
            QueueUnavailable: it cannot be opened.
        """

    def append(self, body: bytes, encoding: Encoding, now_unix_ns: int) -> int:
        """Queue a request; the oldest that wait go if there are too many. Returns its serial number.

        Raises:
            QueueUnavailable: it is not queued.
        """

    def withdraw(self, serial: int) -> None:
        """Undo an `append`, unless its request was taken meanwhile. Never raises."""

    def take(self, now_unix_ns: int) -> Entry | None:
        """The oldest request that nobody has taken; `None`: none waits. The expired are dropped on the way."""

    def release(self, entries: Sequence[Entry]) -> None:
        """Put back what was taken, to the front."""

    def settle(self, entries: Sequence[Entry]) -> None:
        """Forget what was taken: its fate is known. Never raises."""

    def expire(self, entries: Sequence[Entry], now_unix_ns: int) -> bool:
        """Drop what was taken if all of it is too old by now; whether it was."""

    def clear(self) -> int:
        """Drop everything, what was taken too; how many requests that were."""

    @property
    def waiting(self) -> int:
        """Requests that nobody has taken."""

    @property
    def entries(self) -> int:
        """Requests queued, those that were taken included."""

    @property
    def size_bytes(self) -> int:
        """What they take, about."""

    def oldest_unix_ns(self) -> int | None:
        """When the oldest of them was accepted; `None`: there is none."""

    def unsynced(self) -> list[int]:
        """Descriptors whose `fsync` makes all that was appended so far survive a power cut; the caller closes them."""

    def close(self) -> None:
        """Give files back; what is queued stays, if it survives at all. A second call does nothing."""


def too_old(accepted_unix_ns: int, max_age_s: float | None, now_unix_ns: int) -> bool:
    """Whether a request waited longer than it may."""
    return max_age_s is not None and now_unix_ns - accepted_unix_ns > max_age_s * 1e9
