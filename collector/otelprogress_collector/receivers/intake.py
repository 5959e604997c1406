"""What a receiver makes of one OTLP request: events for the host, and the answer's counts."""

from __future__ import annotations

from typing import Literal

import msgspec

from otelprogress.model.events import Event

Signal = Literal["traces", "logs", "metrics"]
Encoding = Literal["protobuf", "json"]


class Intake(msgspec.Struct, kw_only=True, gc=False):
    """One request, read."""

    signal: Signal
    events: list[Event] = []
    """In the order of the request; empty for telemetry that is no progress."""
    records: int = 0
    """Log records, spans or metrics in it; 0 for metrics as JSON, which nobody counts."""
    rejected: int = 0
    """Records refused (a wrong attribute, a service the token may not write): answered as partial success. Data points
    for metrics."""
    reason: str = ""
    """Why the first of them was refused; with nothing rejected, a warning for whoever sends it."""
    refused_groups: tuple[int, ...] = ()
    """Positions of the resources that the sender may not write: these are not forwarded. All other records are, also
    those that were rejected as progress."""
    conflated_only: bool = False
    """All of it is ticks and `writer.alive`: not forwarded to backends by default."""


class BadRequest(Exception):
    """The request cannot be read at all; the message says why. Answered with 400 / INVALID_ARGUMENT, never retried."""


class TooLarge(Exception):
    """More bytes than the limit, before or after inflation: 413 / RESOURCE_EXHAUSTED without RetryInfo."""
