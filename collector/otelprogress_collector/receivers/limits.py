"""What one OTLP request may cost, decided before it is read any further."""

from __future__ import annotations

from typing import Final

import msgspec

MIB: Final = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request, but for `max_in_flight_bytes`. Bytes, seconds, counts."""

    max_request_bytes: int = 64 * MIB
    """As it is sent."""
    max_inflated_bytes: int = 64 * MIB
    """After inflation; what the OTLP specification recommends. Over either of the two the answer is 413."""
    max_records: int = 262_144
    """Log records, spans or metrics. An empty record takes two bytes on the wire and a hundred in memory."""
    max_groups: int = 65_536
    """Resources and scopes together."""
    max_events: int = 65_536
    """Events of progress read from it: each takes about a kilobyte until it is durable."""
    max_json_commas: int = 2_097_152
    """In a JSON request: what bounds its values before any is made. Telemetry has one in 20 to 40 bytes."""
    max_attributes: int = 1_024
    """Of one record that speaks of progress; what has more is refused."""
    max_depth: int = 16
    """Lists and maps within an attribute's value; a record of progress with deeper ones is refused."""
    body_deadline_s: float = 30.0
    """From the end of the headers to the end of the body; then 408."""
    max_in_flight_bytes: int = 256 * MIB
    """Of all bodies that are being received or read, of one receiver; over it requests are refused with 503."""


DEFAULT_LIMITS: Final = Limits()
