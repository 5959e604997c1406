"""Who says what, when carriers disagree: duplicates, order and floods of the events of one run.

Records are deduplicated by (run, writer, sequence), else by (run, kind, time, attribute hash). A hole in the
sequence waits for the reorder window; what comes after that is late. What only the run's span says waits for log
events that say it better. Events that existing code puts on an operation's span are notes within a rate, beyond it
they are folded into one with a count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from otelprogress.model import semconv
from otelprogress.model.events import Event, Source

HASHES_KEPT: Final = 128
"""Unsequenced durable events remembered per run."""
MISSING_KEPT: Final = 32
"""Ranges of given-up sequence numbers remembered per run and writer; what is older counts as a duplicate."""


class Lane(msgspec.Struct, gc=False, omit_defaults=True):
    """The sequence of one writer within one run."""

    writer_id: str
    high: int = 0
    """All numbers up to it are applied or given up."""
    missing: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """Given up: first and last number of each range."""
    held: dict[int, Event] = msgspec.field(default_factory=dict)


class Carrier(msgspec.Struct, gc=False, omit_defaults=True):
    """What a run needs once something is out of the ordinary."""

    lanes: list[Lane] = msgspec.field(default_factory=list)
    loose: list[Event] = msgspec.field(default_factory=list)
    """Unsequenced events that came before the run's start."""
    window_ends_ns: int | None = None
    hashes: dict[bytes, None] = msgspec.field(default_factory=dict)
    hearsay: list[Event] = msgspec.field(default_factory=list)
    """What its span says, waiting for the log events that say it better: all but the span's end."""
    closing: Event | None = None
    """The end of its span, waiting for the event that says more."""
    closes_ns: int | None = None
    """When the two above count, if nothing better came."""
    tokens: float = 0.0
    tokens_ns: int = 0
    folded: int = 0
    folded_last: Event | None = None
    flush_ns: int | None = None

    def lane(self, writer_id: str) -> Lane:
        """The lane of a writer, made when missing."""
        for lane in self.lanes:
            if lane.writer_id == writer_id:
                return lane
        lane = Lane(writer_id)
        self.lanes.append(lane)
        return lane

    def seen(self, event: Event) -> bool:
        """Whether an unsequenced event came before; remembers it."""
        fingerprint = fingerprint_of(event)
        hashes = self.hashes
        if fingerprint in hashes:
            return True
        hashes[fingerprint] = None
        if len(hashes) > HASHES_KEPT:
            del hashes[next(iter(hashes))]
        return False

    def take_start(self) -> Event | None:
        """Take out the start as its span told it, for a run that has to appear; `None`: it did not."""
        told = self.hearsay
        return told.pop(0) if told and told[0].kind == semconv.OPERATION_STARTED else None

    def take_hearsay(self) -> list[Event]:
        """Take out all that its span said, in order, with one end.

        Where the end of the span and an event on it both say how it ended, the span counts, and the event fills what
        that leaves out.
        """
        told, closing = self.hearsay, self.closing
        self.hearsay, self.closing, self.closes_ns = [], None, None
        if closing is None:
            return told
        for event in told:
            if event.kind == semconv.OPERATION_ENDED:
                closing = _filled(closing, event)
        return [*(event for event in told if event.kind != semconv.OPERATION_ENDED), closing]

    def overrule(self, *, start_too: bool) -> int:
        """Log events arrive: drop what its span said, without the span's end.

        Args:
            start_too: `False` keeps the start, for a run that may have to appear without another.

        Returns:
            How many were dropped. They count as never seen: a log event may say the very same.
        """
        kept: list[Event] = []
        for event in self.hearsay:
            if start_too or event.source is Source.SPAN_EVENT:
                self.hashes.pop(fingerprint_of(event), None)
            else:
                kept.append(event)
        dropped = len(self.hearsay) - len(kept)
        self.hearsay = kept
        if not kept and self.closing is None:
            self.closes_ns = None
        return dropped

    def postpone(self, not_before_ns: int) -> Iterator[int]:
        """Let nothing be concluded from silence before a time. Yields all deadlines, then."""
        if self.window_ends_ns is not None:
            self.window_ends_ns = max(self.window_ends_ns, not_before_ns)
            yield self.window_ends_ns
        if self.closes_ns is not None:
            self.closes_ns = max(self.closes_ns, not_before_ns)
            yield self.closes_ns
        if self.flush_ns is not None:
            yield self.flush_ns

    def take_note(self, now_unix_ns: int, per_s: float, burst: float) -> bool:
        """Whether one more foreign note is within the rate."""
        if not self.tokens_ns:
            self.tokens = burst
        else:
            self.tokens = min(burst, self.tokens + max(0, now_unix_ns - self.tokens_ns) / 1e9 * per_s)
        self.tokens_ns = now_unix_ns or 1
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


def _filled(event: Event, other: Event) -> Event:
    """An event with what it does not say from another one; numbers of sequence are nobody else's."""
    missing = {
        name: value
        for name in Event.__struct_fields__
        if name != "sequence" and getattr(event, name) is None and (value := getattr(other, name)) is not None
    }
    return msgspec.structs.replace(event, **missing) if missing else event


def fingerprint_of(event: Event) -> bytes:
    """16 bytes that two records of the same event share, whichever carrier brought them."""
    if event.source is not Source.LOG:
        event = msgspec.structs.replace(event, source=Source.LOG)
    try:
        content = msgspec.msgpack.encode(event)
    except (OverflowError, UnicodeEncodeError):  # numbers and texts that no encoding has, from bad input
        content = repr(event).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(content, digest_size=16).digest()


def admit(lane: Lane, event: Event, number: int) -> list[tuple[Event, bool]] | None:
    """What may be applied now that a sequenced event arrived, each with whether it is late.

    `[]` means that it waits behind a hole; `None` that it came before.
    """
    if number <= lane.high:
        return [(event, True)] if _found(lane.missing, number) else None
    if number > lane.high + 1:
        if number in lane.held:
            return None
        lane.held[number] = event
        return []
    lane.high = number
    ready = [(event, False)]
    while lane.held and (following := lane.held.pop(lane.high + 1, None)) is not None:
        lane.high += 1
        ready.append((following, False))
    return ready


def give_up(lane: Lane) -> list[Event]:
    """The window is over: everything held, in order; the holes between are remembered as missing."""
    released = []
    for number in sorted(lane.held):
        if number > lane.high + 1:
            lane.missing.append((lane.high + 1, number - 1))
        lane.high = number
        released.append(lane.held.pop(number))
    del lane.missing[:-MISSING_KEPT]
    return released


def _found(missing: list[tuple[int, int]], number: int) -> bool:
    """Take a number out of the ranges; whether it was there."""
    for position, (first, last) in enumerate(missing):
        if first <= number <= last:
            rest = [(first, number - 1), (number + 1, last)]
            missing[position : position + 1] = [(low, high) for low, high in rest if low <= high]
            return True
    return False
