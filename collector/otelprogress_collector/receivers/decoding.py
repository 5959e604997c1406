"""OTLP requests to what a host can take: one decoder for all signals and encodings. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Generator

from otelprogress.model.rules import RuleSet
from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.receivers.intake import Encoding, Intake, Signal
from otelprogress_collector.receivers.limits import DEFAULT_LIMITS, Limits
from otelprogress_collector.receivers.otlp_json import JsonReader
from otelprogress_collector.receivers.otlp_protobuf import ProtobufReader
from otelprogress_collector.receivers.reading import IsOperation, Reading
from otelprogress_collector.receivers.span_rules import SpanRules


class Decoder:
    """Decodes requests; remembers a little between them (`span_rules`, `known_attributes`), all of it expendable.

    Not thread-safe: one event loop uses it.

    Args:
        is_operation: whether the host knows a run, by its id and tenant.
        rules: which spans of existing instrumentation are operations.
        limits: of a request.
        plain_logs_are_notes: whether a log record without an event name is a note of the operation in whose span
            it was made. `False`: only log events are.
    """

    def __init__(
        self,
        is_operation: IsOperation,
        *,
        rules: RuleSet | None = None,
        limits: Limits = DEFAULT_LIMITS,
        plain_logs_are_notes: bool = True,
    ) -> None:
        self.limits = limits
        self._is_operation = is_operation
        spans = SpanRules(rules if rules is not None else RuleSet())
        self._readers: dict[Encoding, ProtobufReader | JsonReader] = {
            "protobuf": ProtobufReader(limits, spans, plain_logs_are_notes=plain_logs_are_notes),
            "json": JsonReader(limits, spans, plain_logs_are_notes=plain_logs_are_notes),
        }

    def slices(
        self, signal: Signal, body: bytes, encoding: Encoding, principal: Principal
    ) -> Generator[None, None, Intake]:
        """Decode a request piece by piece: each `next` takes a few milliseconds, the last one returns the intake.

        Args:
            signal: what it is.
            body: inflated.
            encoding: of the body.
            principal: who sends it: its tenant and the services it may write.

        Raises:
            BadRequest: it cannot be read at all.
            TooLarge: it holds too much.
        """
        reading = Reading(signal, self.limits, self._is_operation)
        yield from self._readers[encoding].read(body, reading, principal)
        return reading.concluded()

    def decode(self, signal: Signal, body: bytes, encoding: Encoding, principal: Principal) -> Intake:
        """Decode a request at once; see `slices`."""
        pieces = self.slices(signal, body, encoding, principal)
        while True:
            try:
                next(pieces)
            except StopIteration as done:
                intake: Intake = done.value
                return intake
