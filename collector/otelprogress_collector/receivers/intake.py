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
    """Log records, spans or data points in it."""
    rejected: int = 0
    """Records refused (a wrong attribute, a service the token may not write): answered as partial success."""
    reason: str = ""
    """Why the first of them was refused."""
    conflated_only: bool = False
    """All of it is ticks and `writer.alive`: not forwarded to backends by default."""


class BadRequest(Exception):
    """The request cannot be read at all; the message says why. Answered with 400 / INVALID_ARGUMENT, never retried."""


class TooLarge(Exception):
    """More bytes than the limit, before or after inflation: 413 / RESOURCE_EXHAUSTED without RetryInfo."""
