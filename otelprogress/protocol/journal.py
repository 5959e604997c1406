"""The log of durable events that all subscriptions of a host share.

A position is an offset: "everything up to and including it has been seen". Offset 0 is before the first entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from sys import intern
from typing import Final

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model.events import State
from otelprogress.protocol.filters import Facts


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log: an event, encoded once, and what filters look at."""

    encoded: bytes
    """The event's JSON; empty for an eviction."""
    revision: int
    """The event's; of an eviction the last one of a run that was lost, else 0."""
    after: Facts
    """What the run was after the event."""
    before: Facts | None
    """What it was before; the same object where nothing that filters look at changed; `None`: new to the log."""
    terminal: bool = False
    evicted: bool = False
    """The host forgot the run: no event, but subscriptions are told."""
    attention: bool = False
    """Digests tell it at once (`news.wants_attention`). Not kept with the log: who reads older entries was away anyway."""


class Ring:
    """The last `capacity` entries; appending beyond it forgets the oldest.

    Memory grows with what is appended, up to `capacity` entries of some 600 bytes each.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        if capacity < 1:
            raise ValueError(f"a ring needs room for at least one entry, not {capacity}")
        self._capacity = capacity
        self._entries: list[Entry] = []
        self._before = 0
        """The offset before the first entry that this object was given."""
        self._unwritten: list[tuple[int, Entry]] | None = None
        self.head = 0
        """The offset of the newest entry; 0: none yet."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> int:
        """The offset of the oldest entry still held; head + 1 when there is none."""
        return self.head - len(self._entries) + 1

    def append(self, entry: Entry) -> int:
        """Add an entry; returns its offset."""
        if len(self._entries) < self._capacity:
            self._entries.append(entry)
        else:
            self._entries[(self.head - self._before) % self._capacity] = entry
        self.head += 1
        if self._unwritten is not None:
            self._unwritten.append((self.head, entry))
        return self.head

    def keep_unwritten(self) -> None:
        """Keep what is appended from here on, beyond the capacity too, for a host that asks `take_unwritten` often."""
        if self._unwritten is None:
            self._unwritten = []

    def take_unwritten(self) -> list[tuple[int, Entry]]:
        """Offset and entry of all that was appended since the last call; nothing without `keep_unwritten`."""
        taken = self._unwritten or []
        if taken:
            self._unwritten = []
        return taken

    def restore(self, head: int, entries: Iterable[Entry]) -> None:
        """Go on with a log that was kept.

        Args:
            head: the offset of its newest entry.
            entries: the newest of it without holes, oldest first; more than `capacity` are passed over.

        Raises:
            ValueError: this ring has entries already, or there are more than the head says.
        """
        if self.head:
            raise ValueError(f"this ring has {self.head} entries of its own")
        kept = deque(entries, self._capacity)
        if len(kept) > head:
            raise ValueError(f"{len(kept)} entries cannot end at offset {head}")
        self._entries = list(kept)
        self.head, self._before = head, head - len(kept)

    def can_resume(self, position: int) -> bool:
        """Whether nothing after `position` was forgotten."""
        return self.first - 1 <= position <= self.head

    def read(self, position: int) -> Iterator[tuple[int, Entry]]:
        """Offset and entry of everything after `position`, oldest first.

        Raises:
            LookupError: something after `position` was forgotten (or never was there).
        """
        if not self.can_resume(position):
            raise LookupError(f"position {position} is not within {self.first - 1} to {self.head}")
        entries, capacity, before = self._entries, self._capacity, self._before + 1
        for offset in range(position + 1, self.head + 1):
            yield offset, entries[(offset - before) % capacity]

    def read_back(self, position: int) -> Iterator[tuple[int, Entry]]:
        """Offset and entry of everything held up to and including `position`, newest first."""
        entries, capacity, before = self._entries, self._capacity, self._before + 1
        for offset in range(min(position, self.head), self.first - 1, -1):
            yield offset, entries[(offset - before) % capacity]


class _StoredFacts(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`Facts` without names: they are written with every event. A new field goes to the end, with a default."""

    id: str
    handle: str
    tenant: str
    name: str
    label: str | None
    service: str
    state: State
    parent_id: str | None
    ancestors: tuple[str, ...]
    attributes: dict[str, str | bool | int | float]
    ended_at_unix_ns: int | None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[_StoredFacts, _StoredFacts | bool | None]).decode


def encode_facts(entry: Entry) -> bytes:
    """The facts of an entry, to be kept beside it: MessagePack of (after, before).

    `before` is `null` for a run that is new to the log, and `true` where nothing that filters look at changed.
    """
    before = entry.before
    return _encode(
        (_stored(entry.after), True if before is entry.after else None if before is None else _stored(before))
    )


def decode_facts(encoded: bytes, newest: dict[str, Facts] | None = None) -> tuple[Facts, Facts | None]:
    """What `encode_facts` was given: `after` and `before` of an entry, which is the same object where it was.

    Args:
        encoded: as it was kept.
        newest: the facts of each run after the entry before this one; kept up to date here. With it, entries that
            are read in order share what they shared when they were made. `None`: each stands for itself.

    Raises:
        InvalidRecord: not what was encoded.
    """
    try:
        stored, stored_before = _decode(encoded)
    except msgspec.MsgspecError as error:
        raise InvalidRecord(f"the facts of an entry cannot be read: {error}") from error
    if newest is None:
        newest = {}
    before = None
    if isinstance(stored_before, _StoredFacts):
        before = _shared(stored_before, newest)
        newest[before.id] = before
    after = newest[stored.id] = _shared(stored, newest)
    return after, after if stored_before is True else before


def _stored(facts: Facts) -> _StoredFacts:
    return _StoredFacts(
        facts.id,
        facts.handle,
        facts.tenant,
        facts.name,
        facts.label,
        facts.service,
        facts.state,
        facts.parent_id,
        facts.ancestors,
        facts.attributes,
        facts.ended_at_unix_ns,
    )


def _shared(stored: _StoredFacts, newest: dict[str, Facts]) -> Facts:
    """Facts that point to strings that others of the run, of its parent or of all runs point to already."""
    known = newest.get(stored.id)
    if known is not None and _stored(known) == stored:
        return known
    parent = None if stored.parent_id is None else newest.get(stored.parent_id)
    ancestors = stored.ancestors
    if parent is not None and ancestors == (parent.id, *parent.ancestors):
        ancestors = (parent.id, *parent.ancestors)
    return Facts(
        stored.id if known is None else known.id,
        stored.handle if known is None or known.handle != stored.handle else known.handle,
        intern(stored.tenant),
        intern(stored.name),
        stored.label,
        intern(stored.service),
        stored.state,
        stored.parent_id if parent is None else parent.id,
        ancestors if known is None or known.ancestors != ancestors else known.ancestors,
        known.attributes
        if known is not None and known.attributes == stored.attributes
        else stored.attributes,
        stored.ended_at_unix_ns,
    )
