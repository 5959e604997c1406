"""OTLP requests in JSON: to events, through typed structs.

A request is taken apart level by level: a record stays text until it is its turn, so that one that is wrong is
refused alone, and none is read further than it matters.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import mapping, semconv
from otelprogress.model.rules import SpanFacts
from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.receivers.attribute_values import OF_ERRORS, check_count, of_conventions
from otelprogress_collector.receivers.foreign_spans import (
    LOGFIRE_PENDING,
    LOGFIRE_SPAN_TYPE,
    PARTIAL_ATTRIBUTES,
    PARTIAL_EVENT,
    PARTIAL_FREQUENCY,
    PartialSpan,
    announced_by,
    is_pending,
    take_partial,
)
from otelprogress_collector.receivers.intake import BadRequest, TooLarge
from otelprogress_collector.receivers.json_shapes import (
    ANYTHING,
    LOG_RECORD,
    LOGS,
    METRICS,
    SPAN,
    TRACES,
    TRACES_DATA,
    JsonResource,
    JsonScope,
    LogRecord,
    Span,
    attributes_in,
    hex_id,
    kind_of,
    severity_of,
    status_of,
    value_in,
    whole,
)
from otelprogress_collector.receivers.limits import Limits
from otelprogress_collector.receivers.origin import Origin, Refused, origin_of, wanted_of_resource
from otelprogress_collector.receivers.reading import EVENT_NAME_ATTRIBUTE, LogFacts, Reading, is_own_span
from otelprogress_collector.receivers.span_rules import SpanRules, SpanSketch

Scopes = list[tuple[JsonScope | None, list[msgspec.Raw]]]

_SLICE: Final = 128
"""Records between two pauses: a few milliseconds."""
_UTF8: Final = codecs.getincrementaldecoder("utf-8")
_UTF8_SLICE_BYTES: Final = 1024 * 1024
"""Decoded at a time: in memory it is up to four times as large, and takes two milliseconds."""
_TRACE_ID_CHARS: Final = 32
_SPAN_ID_CHARS: Final = 16
_SAMPLED: Final = 1
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_MAX_PARTIAL_CHARS: Final = 1024 * 1024
_KNOWN: Final = mapping.KNOWN_EVENTS
_PREFIX: Final = semconv.PREFIX
_OPERATION_BYTES: Final = b"otelprogress.operation."
_PARTIAL_BYTES: Final = PARTIAL_EVENT.encode()
_PENDING_BYTES: Final = LOGFIRE_PENDING.encode()


def _check_utf8(body: bytes) -> Iterator[None]:
    """Look at all of it, because what is not read is passed on as it came: a hundredth of the time of reading it.

    Raises:
        BadRequest: it is no UTF-8, and so no JSON.
    """
    if body.isascii():
        return
    decoder = _UTF8()
    try:
        for start in range(0, len(body), _UTF8_SLICE_BYTES):
            if start:
                yield
            decoder.decode(body[start : start + _UTF8_SLICE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise BadRequest("the request is no UTF-8") from None


class JsonReader:
    """Reads JSON requests.

    Args:
        limits: of a request.
        spans: the rules, and what is remembered for them.
        plain_logs_are_notes: whether a log record without an event name is a note of the operation it stands in.
    """

    def __init__(self, limits: Limits, spans: SpanRules, *, plain_logs_are_notes: bool) -> None:
        self._limits = limits
        self._spans = spans
        self._plain_logs_are_notes = plain_logs_are_notes

    def read(self, body: bytes, reading: Reading, principal: Principal) -> Iterator[None]:
        """Read a request; pauses now and then, so that others get a turn.

        Raises:
            BadRequest: it cannot be read at all.
            TooLarge: it holds too much.
        """
        yield from _check_utf8(body)
        signal = reading.intake.signal
        if signal == "metrics" and not principal.services and principal.tenant_from is None:
            ANYTHING.request(body)
            return
        if body.count(b",") > self._limits.max_json_commas:
            raise TooLarge("the request holds too many JSON values")
        yield
        if signal == "logs":
            yield from self._logs(body, reading, principal)
        elif signal == "traces":
            yield from self._traces(body, reading, principal)
        else:
            self._metrics(body, reading, principal)

    def _origin(
        self, resource: JsonResource | None, position: int, reading: Reading, principal: Principal
    ) -> Origin | None:
        """Of a resource's records; `None`: they are refused."""
        attributes = resource.attributes if resource is not None else None
        wanted = wanted_of_resource(principal).__contains__
        try:
            check_count(len(attributes or ()), self._limits)
            pairs = [
                pair
                for one in attributes or ()
                for pair in attributes_in((one,), self._limits, wanted).items()
            ]
            return origin_of(pairs, principal)
        except (Refused, InvalidRecord) as error:
            reading.refuse_group(position, str(error))
            return None

    def _metrics(self, body: bytes, reading: Reading, principal: Principal) -> None:
        groups = METRICS.request(body).resource_metrics or ()
        if len(groups) > self._limits.max_groups:
            raise TooLarge("the request holds too many resources and scopes")
        for position, group in enumerate(groups):
            if self._origin(group.resource, position, reading, principal) is None:
                reading.intake.rejected += _data_points(group.scope_metrics)

    def _records(
        self, groups: Iterable[tuple[JsonResource | None, Scopes]], reading: Reading, principal: Principal
    ) -> Iterator[tuple[msgspec.Raw, str, Origin] | None]:
        """The records that may be read, with the name of their scope and their origin; `None`: a pause."""
        limits, intake = self._limits, reading.intake
        groups_left = limits.max_groups
        for position, (resource, scopes) in enumerate(groups):
            groups_left -= 1 + len(scopes)
            if groups_left < 0:
                raise TooLarge("the request holds too many resources and scopes")
            origin = self._origin(resource, position, reading, principal)
            for scope, records in scopes:
                intake.records += len(records)
                if intake.records > limits.max_records:
                    raise TooLarge("the request holds too many records")
                if origin is None:
                    intake.rejected += len(records)
                    continue
                name = (scope.name or "") if scope is not None else ""
                for count, raw in enumerate(records, 1):
                    yield raw, name, origin
                    if not count % _SLICE:
                        yield None

    # --- logs ---------------------------------------------------------------------------------------------------

    def _logs(self, body: bytes, reading: Reading, principal: Principal) -> Iterator[None]:
        partial = _PARTIAL_BYTES in body and self._spans.active
        groups = (
            (group.resource, [(one.scope, one.log_records or []) for one in group.scope_logs or ()])
            for group in LOGS.request(body).resource_logs or ()
        )
        yield
        for found in self._records(groups, reading, principal):
            if found is None:
                yield
                continue
            raw, _, origin = found
            try:
                self._log(LOG_RECORD.record(raw), origin, reading, partial=partial)
            except InvalidRecord as error:
                reading.reject(str(error))

    def _log(self, record: LogRecord, origin: Origin, reading: Reading, *, partial: bool) -> None:
        name = record.event_name or _event_name(record, self._limits)
        if name in _KNOWN:
            reading.own_log(origin, self._facts(name, record))
        elif name.startswith(_PREFIX):
            reading.unknown_event(name)
        elif partial and self._partial(record, origin, reading):
            pass
        elif name or self._plain_logs_are_notes:
            self._note(name, record, origin, reading)

    def _facts(self, name: str, record: LogRecord) -> LogFacts:
        return LogFacts(
            name=name,
            trace_id=hex_id(record.trace_id, _TRACE_ID_CHARS, what="traceId"),
            span_id=hex_id(record.span_id, _SPAN_ID_CHARS, what="spanId"),
            time_unix_ns=_time(record),
            severity_number=severity_of(record.severity_number),
            sampled=bool(whole(record.flags, what="flags") & _SAMPLED),
            attributes=attributes_in(record.attributes, self._limits, of_conventions),
        )

    def _note(self, name: str, record: LogRecord, origin: Origin, reading: Reading) -> None:
        trace_id, span_id = record.trace_id or "", record.span_id or ""
        if len(trace_id) != _TRACE_ID_CHARS or len(span_id) != _SPAN_ID_CHARS:
            return
        run_id = f"{trace_id}-{span_id}".lower()
        if not reading.knows(run_id, origin.tenant):
            return
        reading.note(
            origin,
            run_id,
            LogFacts(
                name=name,
                trace_id=0,
                span_id=0,
                time_unix_ns=_time(record),
                severity_number=severity_of(record.severity_number),
                attributes=attributes_in(record.attributes, self._limits, OF_ERRORS.__contains__),
                body=_body_text(record, self._limits),
            ),
        )

    def _partial(self, record: LogRecord, origin: Origin, reading: Reading) -> bool:
        said = attributes_in(record.attributes, self._limits, PARTIAL_ATTRIBUTES.__contains__)
        if PARTIAL_EVENT not in said:
            return False
        partial = PartialSpan(
            event=said[PARTIAL_EVENT],
            frequency=said.get(PARTIAL_FREQUENCY),
            time_unix_ns=_time(record),
            origin=origin,
            spans=spans_in_text(_body_text(record, self._limits), self._limits),
        )
        take_partial(partial, self._spans, reading)
        return True

    # --- traces -------------------------------------------------------------------------------------------------

    def _traces(self, body: bytes, reading: Reading, principal: Principal) -> Iterator[None]:
        own = _OPERATION_BYTES in body
        by_rule = self._spans.active
        pending = by_rule and _PENDING_BYTES in body
        sketches: list[SpanSketch] = []
        groups = (
            (group.resource, [(one.scope, one.spans or []) for one in group.scope_spans or ()])
            for group in TRACES.request(body).resource_spans or ()
        )
        yield
        for found in self._records(groups, reading, principal):
            if found is None:
                yield
                continue
            raw, scope, origin = found
            if not by_rule and not (own and _OPERATION_BYTES in bytes(raw)):
                continue
            try:
                self._span(raw, scope, origin, reading=reading, sketches=sketches, pending=pending)
            except InvalidRecord as error:
                reading.reject(str(error))
        if sketches:
            yield from self._spans.conclude(sketches, reading)

    def _span(
        self,
        raw: msgspec.Raw,
        scope: str,
        origin: Origin,
        *,
        reading: Reading,
        sketches: list[SpanSketch],
        pending: bool,
    ) -> None:
        span = SPAN.record(raw)
        keys = {one.key: None for one in span.attributes or ()}
        if pending and LOGFIRE_SPAN_TYPE in keys:
            facts = span_facts(span, scope, self._limits)
            if is_pending(facts):
                self._spans.open_span(announced_by(facts), origin, reading)
                return
        if is_own_span(keys):
            reading.own_span(origin, span_facts(span, scope, self._limits))
            return
        if not self._spans.active or scope == semconv.SCOPE_NAME:
            return
        trace_id, span_id, parent = span.trace_id or "", span.span_id or "", span.parent_span_id or ""
        if len(trace_id) != _TRACE_ID_CHARS or len(span_id) != _SPAN_ID_CHARS:
            return
        trace = trace_id.lower()
        sketches.append(
            SpanSketch(
                key=(origin.tenant, f"{trace}-{span_id.lower()}"),
                parent=(origin.tenant, f"{trace}-{parent.lower()}")
                if len(parent) == _SPAN_ID_CHARS and parent.strip("0")
                else None,
                name=span.name or "",
                origin=origin,
                facts=lambda: span_facts(span, scope, self._limits),
                size_bytes=len(memoryview(raw)),
            )
        )


def span_facts(span: Span, scope: str, limits: Limits) -> SpanFacts:
    """All of one span.

    Raises:
        InvalidRecord: a wrong id, number or attribute.
    """
    flags = whole(span.flags, what="flags")
    parent_span_id = hex_id(span.parent_span_id, _SPAN_ID_CHARS, what="parentSpanId") or None
    return SpanFacts(
        name=span.name or "",
        scope=scope,
        kind=kind_of(span.kind),
        attributes=attributes_in(span.attributes, limits),
        trace_id=hex_id(span.trace_id, _TRACE_ID_CHARS, what="traceId"),
        span_id=hex_id(span.span_id, _SPAN_ID_CHARS, what="spanId"),
        parent_span_id=parent_span_id,
        root=parent_span_id is None or bool(flags & _HAS_IS_REMOTE and flags & _IS_REMOTE),
        trace_state=span.trace_state or "",
        start_unix_ns=whole(span.start_time_unix_nano, what="startTimeUnixNano"),
        end_unix_ns=whole(span.end_time_unix_nano, what="endTimeUnixNano") or None,
        status=status_of(span.status.code) if span.status is not None else "unset",
        status_description=(span.status.message or None) if span.status is not None else None,
        events=tuple(
            (
                one.name or "",
                whole(one.time_unix_nano, what="timeUnixNano"),
                attributes_in(one.attributes, limits),
            )
            for one in span.events or ()
        ),
    )


def spans_in_text(text: str | None, limits: Limits) -> list[SpanFacts]:
    """The spans of a TracesData in OTLP/JSON, as a heartbeat log holds it.

    Raises:
        InvalidRecord: no such text.
    """
    if text is None or len(text) > _MAX_PARTIAL_CHARS:
        raise InvalidRecord("the body must be a span as OTLP/JSON, of at most 1 MiB")
    data = TRACES_DATA.record(text.encode("utf-8", "replace"))
    return [
        span_facts(span, scope.scope.name or "" if scope.scope is not None else "", limits)
        for group in data.resource_spans or ()
        for scope in group.scope_spans or ()
        for span in scope.spans or ()
    ]


def _time(record: LogRecord) -> int:
    return whole(record.time_unix_nano, what="timeUnixNano") or whole(
        record.observed_time_unix_nano, what="observedTimeUnixNano"
    )


def _event_name(record: LogRecord, limits: Limits) -> str:
    for one in record.attributes or ():
        if one.key == EVENT_NAME_ATTRIBUTE:
            name = value_in(one.value, limits.max_depth)
            if isinstance(name, str):
                return name
    return ""


def _body_text(record: LogRecord, limits: Limits) -> str | None:
    try:
        body = value_in(record.body, limits.max_depth)
    except InvalidRecord:
        return None
    return body if isinstance(body, str) else None


def _data_points(raw_scopes: msgspec.Raw) -> int:
    """How many data points a resource's metrics have; what cannot be read counts one."""
    try:
        scopes = msgspec.json.decode(raw_scopes) or ()
        return sum(
            len(data.get("dataPoints") or ())
            for scope in scopes
            for metric in scope.get("metrics") or ()
            for data in metric.values()
            if isinstance(data, dict)
        )
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError, RecursionError):
        return 1
