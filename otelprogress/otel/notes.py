"""What existing code says on an operation's span, as notes: few enough that saying much costs little.

A host keeps up to 10 notes a second of a run, with a burst of 100, and folds the rest. Making a note takes longer
than the application's own `add_event`, so twice that rate is let through here, and beyond it a note costs a
comparison: it is only counted, and carried as `folded` by the next one or by the last one before the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otelprogress.model import mapping
from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.registry import TrackedSpan

_PER_S: Final = 20.0
_BURST: Final = 200.0

Said = tuple[str, Mapping[str, Any] | None, int, object, int]
"""Name, attributes, time, body, severity."""


class NoteGate:
    """The rate of one operation's notes. Races between threads miscount by one at most."""

    __slots__ = ("folded", "last", "refilled_s", "tokens")

    def __init__(self) -> None:
        self.tokens = _BURST
        self.refilled_s = time.monotonic()
        self.folded = 0
        self.last: Said | None = None

    def admit(self) -> bool:
        """Whether the next note may pass."""
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return True
        now_s = time.monotonic()
        self.tokens = min(_BURST, self.tokens + (now_s - self.refilled_s) * _PER_S)
        self.refilled_s = now_s
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return True
        return False


def note(
    tracked: TrackedSpan,
    name: str,
    attributes: Mapping[str, Any] | None,
    time_unix_ns: int | None,
    *,
    body: object = None,
    severity_number: int = 0,
) -> None:
    """Submit one note of `tracked`, or fold it.

    Args:
        tracked: the operation.
        name: of the span event or log event.
        attributes: its attributes.
        time_unix_ns: `None`: now.
        body: of a log record.
        severity_number: of a log record; 0: not said.
    """
    if OUTLET.submit is None:
        return
    gate = tracked.notes
    if gate is None:
        gate = tracked.notes = NoteGate()
    said = (name, attributes, time_unix_ns or time.time_ns(), body, severity_number)
    if gate.admit():
        folded, gate.folded = gate.folded, 0
        _submit(tracked, said, folded)
    else:
        gate.folded += 1
        gate.last = said


def flush_notes(tracked: TrackedSpan) -> None:
    """Submit what was folded last: before the operation's end, after which a host takes no notes."""
    gate = tracked.notes
    if gate is not None and gate.folded and gate.last is not None:
        folded, gate.folded = gate.folded, 0
        _submit(tracked, gate.last, folded - 1)


def _submit(tracked: TrackedSpan, said: Said, folded: int) -> None:
    name, attributes, time_unix_ns, body, severity_number = said
    event = mapping.note_from_foreign(
        tracked.run_id,
        name,
        attributes,
        time_unix_ns,
        body=body,
        severity_number=severity_number,
    )
    if folded:
        event = msgspec.structs.replace(event, folded=folded)
    OUTLET.put(event, sampled=tracked.sampled)
