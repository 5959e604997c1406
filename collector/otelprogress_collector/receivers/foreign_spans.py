"""Spans that others show while they are still open, as they are.

**Logfire** ends, for each span that starts, a second one with a new id and no duration: `logfire.span_type` is
`pending_span`, its parent is the real span, and `logfire.pending_parent_id` (16 hex digits, zeros: none) names the
real span's parent. Name, kind, attributes and times are the real span's.

**Partial spans** (`partial-span-processor` and its relatives) are log records: `partial.event` is `heartbeat`, each
`partial.frequency` (`5000ms`), or `stop`; the body is the span as OTLP/JSON. A heartbeat is a promise to be heard,
so it becomes a lease.

Neither is an operation unless a rule says so.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.model.rules import SpanFacts
from otelprogress.model.text import clean
from otelprogress_collector.receivers.origin import Origin
from otelprogress_collector.receivers.reading import Reading
from otelprogress_collector.receivers.span_rules import SpanRules

LOGFIRE_SPAN_TYPE: Final = "logfire.span_type"
LOGFIRE_PENDING: Final = "pending_span"
LOGFIRE_PENDING_PARENT: Final = "logfire.pending_parent_id"
_LOGFIRE_OLD_SUFFIX: Final = " (pending)"

PARTIAL_EVENT: Final = "partial.event"
PARTIAL_FREQUENCY: Final = "partial.frequency"
PARTIAL_ATTRIBUTES: Final = frozenset({PARTIAL_EVENT, PARTIAL_FREQUENCY})
_HEARTBEATS_MISSED: Final = 3
_MIN_LEASE_S: Final = 5.0
_MAX_LEASE_S: Final = 3_600.0
_UNITS_S: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0}
_FREQUENCY: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|s|m)")
_SPAN_ID: Final = re.compile(r"[0-9a-fA-F]{16}")


def is_pending(span: SpanFacts) -> bool:
    """Whether a span only announces that another one has started."""
    return span.attributes.get(LOGFIRE_SPAN_TYPE) == LOGFIRE_PENDING


def announced_by(pending: SpanFacts) -> SpanFacts:
    """The real span, as it started.

    Raises:
        InvalidRecord: the pending span has no parent, or names a parent that is no span id.
    """
    if not pending.parent_span_id:
        raise InvalidRecord("a pending span must have the span that it announces as its parent")
    named = pending.attributes.get(LOGFIRE_PENDING_PARENT)
    if not isinstance(named, str) or _SPAN_ID.fullmatch(named) is None:
        raise InvalidRecord(f"{LOGFIRE_PENDING_PARENT} must be 16 hex digits")
    parent_span_id = int(named, 16) or None
    return msgspec.structs.replace(
        pending,
        name=pending.name.removesuffix(_LOGFIRE_OLD_SUFFIX),
        span_id=pending.parent_span_id,
        parent_span_id=parent_span_id,
        root=parent_span_id is None,
        end_unix_ns=None,
    )


def lease_of(frequency: object) -> float | None:
    """Seconds within which a heartbeat of that frequency must be heard again; `None`: it promises nothing.

    Three may be missed, and the processor looks only each few seconds: never less than 5 s.
    """
    match = _FREQUENCY.fullmatch(frequency) if isinstance(frequency, str) else None
    if match is None:
        return None
    period_s = float(match[1]) * _UNITS_S[match[2]]
    return min(max(_HEARTBEATS_MISSED * period_s, _MIN_LEASE_S), _MAX_LEASE_S) if period_s else None


class PartialSpan(msgspec.Struct, gc=False, kw_only=True):
    """What one log record says of spans that are still open."""

    event: object
    """`partial.event`: `heartbeat` or `stop`."""
    frequency: object = None
    """`partial.frequency`, of heartbeats."""
    time_unix_ns: int
    origin: Origin
    spans: list[SpanFacts]
    """As they stand, from the body."""


def take_partial(partial: PartialSpan, spans: SpanRules, reading: Reading) -> None:
    """Turn a partial-span log record into events.

    Raises:
        InvalidRecord: an unknown event, or a span without valid ids.
    """
    if partial.event == "heartbeat":
        for span in partial.spans:
            _take_heartbeat(span, partial, spans, reading)
    elif partial.event == "stop":
        for span in partial.spans:
            spans.stopped_span(span, partial.origin, reading)
    else:
        raise InvalidRecord(
            f"{PARTIAL_EVENT} must be 'heartbeat' or 'stop', not {clean(str(partial.event), 64)!r}"
        )


def _take_heartbeat(span: SpanFacts, partial: PartialSpan, spans: SpanRules, reading: Reading) -> None:
    lease_s, origin = lease_of(partial.frequency), partial.origin
    writer_id = f"partial/{span.trace_id:032x}-{span.span_id:016x}" if lease_s is not None else ""
    open_span = msgspec.structs.replace(span, end_unix_ns=None)
    if spans.open_span(open_span, origin, reading, writer_id=writer_id, lease_s=lease_s) and writer_id:
        reading.add(
            Event(
                kind=semconv.WRITER_ALIVE,
                run_id="",
                time_unix_ns=min(partial.time_unix_ns, (1 << 63) - 1),
                tenant=origin.tenant,
                writer_id=writer_id,
                lease_s=lease_s,
                **origin.said,
            )
        )
