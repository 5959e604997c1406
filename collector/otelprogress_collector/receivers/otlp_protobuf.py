"""OTLP requests in protobuf: to events, touching only what is needed.

What a request cannot contain is not looked for: whether a name occurs in its bytes at all costs a thousandth of
reading it. A record that cannot be read is refused alone; the rest of the request counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import mapping, semconv
from otelprogress.model.rules import SPAN_KINDS, SpanFacts
from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.receivers import shapes
from otelprogress_collector.receivers.attribute_values import (
    OF_ERRORS,
    attributes_of,
    body_text,
    check_count,
    of_conventions,
)
from otelprogress_collector.receivers.foreign_spans import (
    LOGFIRE_PENDING,
    PARTIAL_ATTRIBUTES,
    PARTIAL_EVENT,
    PARTIAL_FREQUENCY,
    PartialSpan,
    announced_by,
    is_pending,
    take_partial,
)
from otelprogress_collector.receivers.frames import Frames, Group, ScopeGroup
from otelprogress_collector.receivers.known_attributes import KnownAttributes, Unusual
from otelprogress_collector.receivers.limits import Limits
from otelprogress_collector.receivers.origin import Origin, Refused, origin_of, wanted_of_resource
from otelprogress_collector.receivers.otlp_json import spans_in_text
from otelprogress_collector.receivers.reading import EVENT_NAME_ATTRIBUTE, LogFacts, Reading, is_own_span
from otelprogress_collector.receivers.span_rules import SpanRules, SpanSketch

_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_NO_SPAN: Final = bytes(_SPAN_ID_BYTES)
_SAMPLED: Final = 1
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_STATUSES: Final = ("unset", "ok", "error")
_KNOWN: Final = mapping.KNOWN_EVENTS
_PREFIX: Final = semconv.PREFIX
_OPERATION_BYTES: Final = b"otelprogress.operation."
_EVENT_NAME_BYTES: Final = EVENT_NAME_ATTRIBUTE.encode()
_PARTIAL_BYTES: Final = PARTIAL_EVENT.encode()
_PENDING_BYTES: Final = LOGFIRE_PENDING.encode()
_UNREADABLE: Final = "the record is no protobuf message of its kind"


class ProtobufReader:
    """Reads protobuf requests.

    Args:
        limits: of a request.
        spans: the rules, and what is remembered for them.
        plain_logs_are_notes: whether a log record without an event name is a note of the operation it stands in.
    """

    def __init__(self, limits: Limits, spans: SpanRules, *, plain_logs_are_notes: bool) -> None:
        self._limits = limits
        self._spans = spans
        self._plain_logs_are_notes = plain_logs_are_notes
        self._known = KnownAttributes(limits)

    def read(self, body: bytes, reading: Reading, principal: Principal) -> Iterator[None]:
        """Read a request; pauses now and then, so that others get a turn.

        Raises:
            BadRequest: it cannot be read at all.
            TooLarge: it holds too much.
        """
        signal = reading.intake.signal
        if signal == "logs":
            yield from self._logs(body, reading, principal)
        elif signal == "traces":
            yield from self._traces(body, reading, principal)
        else:
            for _ in self._records(body, reading, principal):
                yield

    def _groups(
        self, body: bytes, reading: Reading, principal: Principal
    ) -> Iterator[tuple[Group, Origin] | None]:
        """The resources that may be read, with their origins; `None`: a pause while others are passed over."""
        wanted = wanted_of_resource(principal).__contains__
        for position, group in enumerate(Frames(body, self._limits).groups()):
            try:
                raw = shapes.Resource.FromString(group.resource).attributes
                check_count(len(raw), self._limits)
                pairs = [pair for one in raw for pair in attributes_of((one,), self._limits, wanted).items()]
                origin = origin_of(pairs, principal)
            except (Refused, InvalidRecord) as error:
                reason = str(error)
            except DecodeError:
                reason = "the resource cannot be read"
            else:
                yield group, origin
                continue
            reading.refuse_group(position, reason)
            for scope in group.scopes:
                for chunk in scope.chunks:
                    reading.intake.records += len(chunk)
                    reading.intake.rejected += self._count(chunk, reading)
                    yield None

    def _count(self, chunk: list[bytes], reading: Reading) -> int:
        """How many records are refused: for metrics their data points."""
        return sum(map(_data_points, chunk)) if reading.intake.signal == "metrics" else len(chunk)

    def _records(
        self, body: bytes, reading: Reading, principal: Principal
    ) -> Iterator[tuple[list[bytes], ScopeGroup, Origin] | None]:
        """The records that may be read, some at a time, with their scope and origin; `None`: a pause."""
        for pair in self._groups(body, reading, principal):
            if pair is None:
                yield None
                continue
            group, origin = pair
            for scope in group.scopes:
                for chunk in scope.chunks:
                    reading.intake.records += len(chunk)
                    yield chunk, scope, origin

    # --- logs ---------------------------------------------------------------------------------------------------

    def _logs(self, body: bytes, reading: Reading, principal: Principal) -> Iterator[None]:
        old_names = _EVENT_NAME_BYTES in body
        partial = _PARTIAL_BYTES in body and self._spans.active
        for found in self._records(body, reading, principal):
            if found is not None:
                chunk, _, origin = found
                for raw in chunk:
                    try:
                        self._log(raw, origin, reading, old_names=old_names, partial=partial)
                    except InvalidRecord as error:
                        reading.reject(str(error))
                    except DecodeError:
                        reading.reject(_UNREADABLE)
            yield

    def _log(self, raw: bytes, origin: Origin, reading: Reading, *, old_names: bool, partial: bool) -> None:
        record = shapes.LogRecord.FromString(raw)
        name = record.event_name
        if not name and old_names:
            name = _event_name(record.attributes, self._limits)
        if name in _KNOWN:
            self._own_log(name, record, origin, reading)
        elif name.startswith(_PREFIX):
            reading.unknown_event(name)
        elif partial and _PARTIAL_BYTES in raw and self._partial(record, origin, reading):
            pass
        elif name or self._plain_logs_are_notes:
            self._note(name, record, origin, reading)

    def _own_log(self, name: str, record: Any, origin: Origin, reading: Reading) -> None:
        try:
            event = self._known.event(name, record, origin)
        except Unusual:
            if name != semconv.WRITER_ALIVE:
                _check_length(record.trace_id, _TRACE_ID_BYTES)
                _check_length(record.span_id, _SPAN_ID_BYTES)
            reading.own_log(
                origin,
                LogFacts(
                    name=name,
                    trace_id=int.from_bytes(record.trace_id, "big"),
                    span_id=int.from_bytes(record.span_id, "big"),
                    time_unix_ns=record.time_unix_nano or record.observed_time_unix_nano,
                    severity_number=record.severity_number,
                    sampled=bool(record.flags & _SAMPLED),
                    attributes=attributes_of(record.attributes, self._limits, of_conventions),
                ),
            )
        else:
            reading.add(event)

    def _note(self, name: str, record: Any, origin: Origin, reading: Reading) -> None:
        trace_id, span_id = record.trace_id, record.span_id
        if len(span_id) != _SPAN_ID_BYTES or len(trace_id) != _TRACE_ID_BYTES:
            return
        run_id = f"{trace_id.hex()}-{span_id.hex()}"
        if not reading.knows(run_id, origin.tenant):
            return
        reading.note(
            origin,
            run_id,
            LogFacts(
                name=name,
                trace_id=0,
                span_id=0,
                time_unix_ns=record.time_unix_nano or record.observed_time_unix_nano,
                severity_number=record.severity_number,
                attributes=attributes_of(record.attributes, self._limits, OF_ERRORS.__contains__),
                body=body_text(record.body),
            ),
        )

    def _partial(self, record: Any, origin: Origin, reading: Reading) -> bool:
        said = attributes_of(record.attributes, self._limits, PARTIAL_ATTRIBUTES.__contains__)
        if PARTIAL_EVENT not in said:
            return False
        partial = PartialSpan(
            event=said[PARTIAL_EVENT],
            frequency=said.get(PARTIAL_FREQUENCY),
            time_unix_ns=record.time_unix_nano or record.observed_time_unix_nano,
            origin=origin,
            spans=spans_in_text(body_text(record.body), self._limits),
        )
        take_partial(partial, self._spans, reading)
        return True

    # --- traces -------------------------------------------------------------------------------------------------

    def _traces(self, body: bytes, reading: Reading, principal: Principal) -> Iterator[None]:
        own = _OPERATION_BYTES in body
        by_rule = self._spans.active
        pending = by_rule and _PENDING_BYTES in body
        sketches: list[SpanSketch] = []
        for found in self._records(body, reading, principal):
            if found is not None and (own or by_rule):
                chunk, scope_group, origin = found
                scope: str | None = None
                for raw in chunk:
                    if not (by_rule or _OPERATION_BYTES in raw):
                        continue
                    try:
                        if scope is None:
                            scope = _scope_name(scope_group.scope)
                        self._span(raw, scope, origin, reading=reading, sketches=sketches, pending=pending)
                    except InvalidRecord as error:
                        reading.reject(str(error))
                    except DecodeError:
                        reading.reject(_UNREADABLE)
            yield
        if sketches:
            yield from self._spans.conclude(sketches, reading)

    def _span(
        self,
        raw: bytes,
        scope: str,
        origin: Origin,
        *,
        reading: Reading,
        sketches: list[SpanSketch],
        pending: bool,
    ) -> None:
        if pending and _PENDING_BYTES in raw:
            facts = span_facts(raw, scope, self._limits)
            if is_pending(facts):
                self._spans.open_span(announced_by(facts), origin, reading)
                return
        if _OPERATION_BYTES in raw:
            facts = span_facts(raw, scope, self._limits)
            if is_own_span(facts.attributes):
                reading.own_span(origin, facts)
                return
        if not self._spans.active or scope == semconv.SCOPE_NAME:
            return
        span = shapes.Span.FromString(raw)
        trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
        if len(trace_id) != _TRACE_ID_BYTES or len(span_id) != _SPAN_ID_BYTES:
            return
        trace = trace_id.hex()
        sketches.append(
            SpanSketch(
                key=(origin.tenant, f"{trace}-{span_id.hex()}"),
                parent=(origin.tenant, f"{trace}-{parent.hex()}")
                if len(parent) == _SPAN_ID_BYTES and parent != _NO_SPAN
                else None,
                name=span.name,
                origin=origin,
                facts=lambda: span_facts(raw, scope, self._limits),
                size_bytes=len(raw),
            )
        )


def span_facts(raw: bytes, scope: str, limits: Limits) -> SpanFacts:
    """All of one span.

    Raises:
        InvalidRecord: it cannot be read, its ids have a wrong length, or its attributes are too many or too deep.
    """
    try:
        span = shapes.Span.FromString(raw)
        status = shapes.Status.FromString(span.status)
        events = [shapes.SpanEvent.FromString(one) for one in span.events]
    except DecodeError:
        raise InvalidRecord(_UNREADABLE) from None
    flags = span.flags
    parent_span_id = _id(span.parent_span_id, _SPAN_ID_BYTES) or None
    return SpanFacts(
        name=span.name,
        scope=scope,
        kind=SPAN_KINDS[span.kind - 1] if 1 <= span.kind <= len(SPAN_KINDS) else SPAN_KINDS[0],
        attributes=attributes_of(span.attributes, limits),
        trace_id=_id(span.trace_id, _TRACE_ID_BYTES),
        span_id=_id(span.span_id, _SPAN_ID_BYTES),
        parent_span_id=parent_span_id,
        root=parent_span_id is None or bool(flags & _HAS_IS_REMOTE and flags & _IS_REMOTE),
        trace_state=span.trace_state,
        start_unix_ns=span.start_time_unix_nano,
        end_unix_ns=span.end_time_unix_nano or None,
        status=_STATUSES[status.code] if 0 <= status.code < len(_STATUSES) else "unset",
        status_description=status.message or None,
        events=tuple((one.name, one.time_unix_nano, attributes_of(one.attributes, limits)) for one in events),
    )


def _id(raw: bytes, length: int) -> int:
    _check_length(raw, length)
    return int.from_bytes(raw, "big")


def _check_length(raw: bytes, length: int) -> None:
    if raw and len(raw) != length:
        raise InvalidRecord(f"an id must have {length} bytes, not {len(raw)}")


def _event_name(raw_attributes: Sequence[bytes], limits: Limits) -> str:
    for raw in raw_attributes:
        if _EVENT_NAME_BYTES in raw:
            name = attributes_of((raw,), limits).get(EVENT_NAME_ATTRIBUTE)
            if isinstance(name, str):
                return name
    return ""


def _scope_name(raw: bytes) -> str:
    name: str = shapes.Scope.FromString(raw).name
    return name


def _data_points(raw: bytes) -> int:
    try:
        metric = Metric.FromString(raw)
    except DecodeError:
        return 1
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind is not None else 0
