"""The members of OTLP/JSON as far as they are read, and what their values mean.

OTLP/JSON is not protobuf's JSON: ids are hex, enums are numbers (names are taken too), keys lowerCamelCase, 64-bit
integers text or numbers, unknown members ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Raw

from otelprogress.exceptions import InvalidRecord
from otelprogress.model.rules import SPAN_KINDS
from otelprogress_collector.receivers.attribute_values import check_count, too_deep
from otelprogress_collector.receivers.intake import BadRequest, Signal
from otelprogress_collector.receivers.limits import Limits

_MAX_NUMBER_CHARS: Final = 40
_KINDS: Final[dict[Any, str]] = {f"SPAN_KIND_{kind.upper()}": kind for kind in SPAN_KINDS} | dict(
    enumerate(SPAN_KINDS, 1)
)
_STATUSES: Final[dict[Any, str]] = {
    1: "ok",
    2: "error",
    "STATUS_CODE_OK": "ok",
    "STATUS_CODE_ERROR": "error",
}
_SEVERITIES: Final = {
    f"SEVERITY_NUMBER_{level}{number or ''}": base + (number - 1 if number else 0)
    for level, base in (("TRACE", 1), ("DEBUG", 5), ("INFO", 9), ("WARN", 13), ("ERROR", 17), ("FATAL", 21))
    for number in (0, 2, 3, 4)
}

Whole = int | str | float | None
"""A number as JSON may say it."""


class AnyValue(msgspec.Struct, rename="camel", gc=False):
    """An attribute's value."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Whole = None
    double_value: Whole = None
    bytes_value: str | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None


class ArrayValue(msgspec.Struct, rename="camel", gc=False):
    """A list."""

    values: list[AnyValue | None] | None = None


class KeyValue(msgspec.Struct, rename="camel", gc=False):
    """An attribute."""

    key: str = ""
    value: AnyValue | None = None


class KeyValueList(msgspec.Struct, rename="camel", gc=False):
    """A map."""

    values: list[KeyValue] | None = None


class LazyKeyValue(msgspec.Struct, rename="camel", gc=False):
    """An attribute whose value nobody has asked for."""

    key: str = ""
    value: Raw = Raw(b"null")


class JsonResource(msgspec.Struct, rename="camel", gc=False):
    """A resource."""

    attributes: list[LazyKeyValue] | None = None


class JsonScope(msgspec.Struct, rename="camel", gc=False):
    """An instrumentation scope."""

    name: str | None = None


class LogRecord(msgspec.Struct, rename="camel", gc=False):
    """A log record, as far as it is read."""

    time_unix_nano: Whole = None
    observed_time_unix_nano: Whole = None
    severity_number: Whole = None
    event_name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    flags: Whole = None
    attributes: list[LazyKeyValue] | None = None
    body: Raw = Raw(b"null")


class JsonStatus(msgspec.Struct, rename="camel", gc=False):
    """How a span ended."""

    code: Whole = None
    message: str | None = None


class JsonSpanEvent(msgspec.Struct, rename="camel", gc=False):
    """An event on a span."""

    time_unix_nano: Whole = None
    name: str | None = None
    attributes: list[LazyKeyValue] | None = None


class Span(msgspec.Struct, rename="camel", gc=False):
    """A span, as far as it is read."""

    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    flags: Whole = None
    name: str | None = None
    kind: Whole = None
    start_time_unix_nano: Whole = None
    end_time_unix_nano: Whole = None
    attributes: list[LazyKeyValue] | None = None
    events: list[JsonSpanEvent] | None = None
    status: JsonStatus | None = None


class LogsScope(msgspec.Struct, rename="camel", gc=False):
    """What one scope sends: records that are text until it is their turn."""

    scope: JsonScope | None = None
    log_records: list[Raw] | None = None


class LogsGroup(msgspec.Struct, rename="camel", gc=False):
    """What one resource sends."""

    resource: JsonResource | None = None
    scope_logs: list[LogsScope] | None = None


class LogsRequest(msgspec.Struct, rename="camel", gc=False):
    """A request of logs."""

    resource_logs: list[LogsGroup] | None = None


class SpansScope(msgspec.Struct, rename="camel", gc=False):
    """What one scope sends: spans that are text until it is their turn."""

    scope: JsonScope | None = None
    spans: list[Raw] | None = None


class SpansGroup(msgspec.Struct, rename="camel", gc=False):
    """What one resource sends."""

    resource: JsonResource | None = None
    scope_spans: list[SpansScope] | None = None


class SpansRequest(msgspec.Struct, rename="camel", gc=False):
    """A request of traces."""

    resource_spans: list[SpansGroup] | None = None


class MetricsGroup(msgspec.Struct, rename="camel", gc=False):
    """What one resource sends: of metrics nothing is read but whose they are."""

    resource: JsonResource | None = None
    scope_metrics: Raw = Raw(b"null")


class MetricsRequest(msgspec.Struct, rename="camel", gc=False):
    """A request of metrics."""

    resource_metrics: list[MetricsGroup] | None = None


class _RawLogs(msgspec.Struct, rename="camel", gc=False):
    resource_logs: list[Raw] | None = None


class _RawSpans(msgspec.Struct, rename="camel", gc=False):
    resource_spans: list[Raw] | None = None


class _RawMetrics(msgspec.Struct, rename="camel", gc=False):
    resource_metrics: list[Raw] | None = None


class _Nothing(msgspec.Struct, gc=False):
    """Takes a whole JSON object and keeps nothing of it."""


Shape = TypeVar("Shape")


class Decoder(Generic[Shape]):
    """Decodes one shape; says what is wrong in words that do not quote the input."""

    def __init__(self, shape: type[Shape]) -> None:
        self._decode: Callable[[Any], Shape] = msgspec.json.Decoder(shape).decode

    def request(self, text: bytes | Raw) -> Shape:
        """A part without which the request cannot be read."""
        try:
            return self._decode(text)
        except RecursionError:
            raise BadRequest("the request is nested too deep") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise BadRequest(f"the request is no OTLP/JSON: {str(error)[:200]}") from None

    def record(self, text: bytes | Raw) -> Shape:
        """A part that can be refused alone."""
        try:
            return self._decode(text)
        except RecursionError:
            raise InvalidRecord("the record is nested too deep") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidRecord(f"the record is no OTLP/JSON: {str(error)[:200]}") from None


LOGS: Final = Decoder(LogsRequest)
TRACES: Final = Decoder(SpansRequest)
METRICS: Final = Decoder(MetricsRequest)
GROUPS: Final[dict[Signal, Decoder[Any]]] = {
    "logs": Decoder(_RawLogs),
    "traces": Decoder(_RawSpans),
    "metrics": Decoder(_RawMetrics),
}
"""A request as the texts of its groups, for whoever passes some of them on."""
ANYTHING: Final = Decoder(_Nothing)
LOG_RECORD: Final = Decoder(LogRecord)
SPAN: Final = Decoder(Span)
_VALUE: Final = Decoder(AnyValue | None)  # type: ignore[arg-type]  # a union is a type to msgspec


class _TracesData(msgspec.Struct, rename="camel", gc=False):
    resource_spans: list[_SpansOfResource] | None = None


class _SpansOfResource(msgspec.Struct, rename="camel", gc=False):
    scope_spans: list[_SpansOfScope] | None = None


class _SpansOfScope(msgspec.Struct, rename="camel", gc=False):
    scope: JsonScope | None = None
    spans: list[Span] | None = None


TRACES_DATA: Final = Decoder(_TracesData)
"""A whole, small request: what the body of a heartbeat log holds."""

# --- values ------------------------------------------------------------------------------------------------------


def whole(value: Whole, *, what: str) -> int:
    """A number; 0 when not said.

    Raises:
        InvalidRecord: no integer from 0 and below 2^64.
    """
    number = _integer(value, what)
    if number is None:
        return 0
    if not 0 <= number < 1 << 64:
        raise InvalidRecord(f"{what} must be from 0 and below 2^64")
    return number


def hex_id(value: str | None, chars: int, *, what: str) -> int:
    """An id; 0 when not said.

    Raises:
        InvalidRecord: not `chars` hex digits.
    """
    if not value:
        return 0
    try:
        if len(value) == chars:
            return int.from_bytes(bytes.fromhex(value), "big")
    except ValueError:
        pass
    raise InvalidRecord(f"{what} must be {chars} hex digits")


def kind_of(value: Whole) -> str:
    """The kind of a span; what is unknown is `internal`."""
    return _KINDS.get(value, SPAN_KINDS[0])


def status_of(value: Whole) -> str:
    """The status of a span: `unset`, `ok` or `error`."""
    return _STATUSES.get(value, "unset")


def severity_of(value: Whole) -> int:
    """The severity number; 0: not said, or unknown."""
    if isinstance(value, str) and value in _SEVERITIES:
        return _SEVERITIES[value]
    number = _integer(value, "severityNumber") or 0
    return number if 0 <= number < 1 << 31 else 0


def attributes_in(
    attributes: Sequence[LazyKeyValue] | None,
    limits: Limits,
    wanted: Callable[[str], bool] | None = None,
) -> dict[str, Any]:
    """The attributes of one record; see `attribute_values.attributes_of`.

    Raises:
        InvalidRecord: too many, too deep, or a value of the wrong type.
    """
    if not attributes:
        return {}
    check_count(len(attributes), limits)
    return {
        one.key: value_in(one.value, limits.max_depth)
        for one in attributes
        if wanted is None or wanted(one.key)
    }


def value_in(text: Raw, max_depth: int) -> Any:
    """A value as text, number, bool, bytes, list, dict or, empty, `None`.

    Raises:
        InvalidRecord: deeper than `max_depth`, or of the wrong type.
    """
    return _value(_VALUE.record(text), max_depth, max_depth)


def _value(value: AnyValue | None, depth: int, limit: int) -> Any:
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.bool_value is not None:
        return value.bool_value
    if value.int_value is not None:
        number = _integer(value.int_value, "intValue")
        if number is None or not -(1 << 63) <= number < 1 << 63:
            raise InvalidRecord("intValue must fit in 64 bits")
        return number
    if value.double_value is not None:
        return _double(value.double_value)
    if value.array_value is not None or value.kvlist_value is not None:
        if not depth:
            raise too_deep(limit)
        if value.array_value is not None:
            return [_value(item, depth - 1, limit) for item in value.array_value.values or ()]
        assert value.kvlist_value is not None
        return {item.key: _value(item.value, depth - 1, limit) for item in value.kvlist_value.values or ()}
    if value.bytes_value is not None:
        return _bytes(value.bytes_value)
    return None


def _integer(value: Whole, what: str) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and 0 < len(value) <= _MAX_NUMBER_CHARS:
        digits = value.removeprefix("-")
        if digits.isascii() and digits.isdigit():
            return int(value)
    elif value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidRecord(f"{what} must be an integer")


def _double(value: str | float) -> float:
    try:
        if not isinstance(value, str) or (len(value) <= _MAX_NUMBER_CHARS and "_" not in value):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise InvalidRecord("doubleValue must be a number")


def _bytes(value: str) -> bytes:
    """Base64, of either alphabet, with or without its padding."""
    try:
        padded = value.rstrip("=").translate(_TO_STANDARD)
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRecord("bytesValue must be base64") from None


_TO_STANDARD: Final = str.maketrans("-_", "+/")
