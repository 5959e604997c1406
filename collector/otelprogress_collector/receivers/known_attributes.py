"""Log records of our conventions to events, six times faster than through a dictionary of all attributes.

In the records of one process most attributes are the same bytes again and again: the writer's id, the step's name,
its total, its state. Each distinct attribute is read once, by the very tables and functions of `model.fields`, and
what it means is kept under its bytes. What does not come again (a count, a sequence, a note) is read each time, by
the front of its bytes. Whatever is unusual goes the long way, through `model.mapping.event_from_log`, which alone
decides what is refused; `test_known_attributes.py` holds the two ways equal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.model.fields import (
    FLOATS,
    INTEGERS,
    TEXTS,
    Text,
    as_flag,
    as_float,
    as_integer,
    as_state,
    as_step_state,
    as_text,
    counters_in,
    text_in,
)
from otelprogress_collector.receivers.attribute_values import attributes_of, check_count
from otelprogress_collector.receivers.limits import Limits
from otelprogress_collector.receivers.origin import Origin

MAX_KEPT: Final = 16_384
MAX_KEPT_BYTES: Final = 256
"""Longer attributes are read each time."""

_SEVERITY_WARN: Final = 13
_SEVERITY_ERROR: Final = 17

_PASSING: Final = frozenset(
    {
        semconv.WRITER_SEQUENCE,
        semconv.ITEMS_COMPLETED,
        semconv.OPERATION_RATIO,
        semconv.OPERATION_START_TIME,
        semconv.LOST_EVIDENCE_TIME,
        semconv.MESSAGE,
        semconv.EXCEPTION_MESSAGE,
        semconv.INPUT_ID,
        semconv.INPUT_DEADLINE,
        semconv.CONTROL_ID,
        semconv.OPERATION_ID,
    }
)
"""Hardly ever the same twice: not kept."""

_SAMPLED: Final = 1
_NO_TRACE: Final = bytes(16)
_NO_SPAN: Final = bytes(8)
_STRING: Final = 0x0A
_INT: Final = 0x18
_DOUBLE_VALUE: Final = 0x21
"""Tags of an AnyValue's fields."""

Meaning = tuple[str | None, Any]
"""An event's field and its value; `None` and the name and value of a counter; or `_IGNORED`."""
_IGNORED: Final = ""

Reader = tuple[str, type | None, Callable[[Any], Any]]
"""An event's field, the type that an attribute's value is taken as it is, and what makes its value of any other."""


def _text(text: Text) -> Reader:
    return text.field, None, lambda value: text_in(text, as_text(text.attribute, value))


def _by(
    field: str, attribute: str, read: Callable[[str, object], Any], as_it_is: type | None = None
) -> Reader:
    return field, as_it_is, lambda value: read(attribute, value)


_READERS: Final[dict[str, Reader]] = (
    {text.attribute: _text(text) for text in TEXTS}
    | {attribute: _by(field, attribute, as_float, float) for field, attribute in FLOATS}
    | {attribute: _by(field, attribute, as_integer, int) for field, attribute in INTEGERS}
    | {
        semconv.OPERATION_STATE: _by("state", semconv.OPERATION_STATE, as_state),
        semconv.STEP_STATE: _by("step_state", semconv.STEP_STATE, as_step_state),
        semconv.OPERATION_STALLED: _by("stalled", semconv.OPERATION_STALLED, as_flag),
    }
)


class Unusual(Exception):
    """The record goes the long way."""


_PASSING_BY_FRONT: Final = {
    b"\x0a" + bytes([len(key)]) + key.encode() + b"\x12": _READERS[key] for key in _PASSING
}
"""By the bytes of a KeyValue up to its value, as every encoder writes them: the key first."""
_MAX_VARINT_BITS: Final = 70
_DOUBLE: Final = struct.Struct("<d").unpack_from


def _scalar(raw: bytes, position: int) -> str | int | float | None:
    """The text or number that a KeyValue's value is: a length, a tag, the value, and nothing behind it.

    `None`: it is something else, or longer than a length of one byte can say.

    Raises:
        IndexError: it is cut short.
        UnicodeDecodeError: the text is no UTF-8.
    """
    tag, end = raw[position + 1], len(raw)
    if raw[position] != end - position - 1:
        return None
    position += 2
    if tag == _DOUBLE_VALUE and end == position + 8:
        number: float = _DOUBLE(raw, position)[0]
        return number
    if tag == _INT and end == position + 1 and raw[position] < 0x80:
        return raw[position]
    if tag == _INT:
        return _int64(raw, position, end)
    if tag == _STRING and raw[position] == end - position - 1:
        return raw[position + 1 :].decode()
    return None


def _int64(raw: bytes, position: int, end: int) -> int | None:
    number = shift = 0
    for byte in raw[position:end]:
        number |= (byte & 0x7F) << shift
        shift += 7
    if shift > _MAX_VARINT_BITS or number >= 1 << 64 or any(byte < 0x80 for byte in raw[position : end - 1]):
        return None
    if raw[end - 1] >= 0x80:
        return None
    return number - (1 << 64) if number >= 1 << 63 else number


class KnownAttributes:
    """What attributes mean, by their bytes. One for all requests; it holds no more than `MAX_KEPT`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[bytes, Meaning] = {}

    def __len__(self) -> int:
        return len(self._known)

    def event(self, kind: str, record: Any, origin: Origin) -> Event:
        """The event of a log record, as `event_from_log` makes it.

        Args:
            kind: one of `mapping.KNOWN_EVENTS`.
            record: `shapes.LogRecord`.
            origin: of the record.

        Raises:
            InvalidRecord: it has too many attributes.
            Unusual: `event_from_log` has to look.
        """
        attributes = record.attributes
        check_count(len(attributes), self._limits)
        run_id = ""
        if kind != semconv.WRITER_ALIVE:
            trace_id, span_id = record.trace_id, record.span_id
            if len(trace_id) != 16 or len(span_id) != 8 or trace_id == _NO_TRACE or span_id == _NO_SPAN:
                raise Unusual
            run_id = f"{trace_id.hex()}-{span_id.hex()}"
        time_unix_ns = record.time_unix_nano or record.observed_time_unix_nano
        if time_unix_ns >= 1 << 63:
            raise Unusual
        said = origin.said.copy()
        counters: dict[str, float] = {}
        known, passing = self._known.get, _PASSING_BY_FRONT.get
        try:
            for raw in attributes:
                meaning = known(raw)
                if meaning is None:
                    front = raw[1] + 3
                    reader = passing(raw[:front])
                    if reader is not None and (value := _scalar(raw, front)) is not None:
                        name, as_it_is, read = reader
                        said[name] = value if type(value) is as_it_is else read(value)
                        continue
                    meaning = self._read(raw)
                field, value = meaning
                if field is None:
                    counters[value[0]] = value[1]
                else:
                    said[field] = value
        except (InvalidRecord, IndexError, UnicodeDecodeError):
            raise Unusual from None
        said.pop(_IGNORED, None)
        if counters:
            said["counters"] = counters_in(counters)
        if kind == semconv.OPERATION_NOTED and said.get("level") is None:
            severity = record.severity_number
            if severity >= _SEVERITY_WARN:
                said["level"] = "error" if severity >= _SEVERITY_ERROR else "warning"
        return Event(
            kind=kind,
            run_id=run_id,
            time_unix_ns=time_unix_ns,
            tenant=origin.tenant,
            sampled=record.flags & _SAMPLED == _SAMPLED,
            **said,
        )

    def _read(self, raw: bytes) -> Meaning:
        ((key, value),) = attributes_of((raw,), self._limits).items()
        meaning = _meaning(key, value)
        if len(raw) <= MAX_KEPT_BYTES and key not in _PASSING:
            if len(self._known) >= MAX_KEPT:  # somebody's values never come again: start anew
                self._known.clear()
            self._known[raw] = meaning
        return meaning


def _meaning(key: str, value: Any) -> Meaning:
    if (reader := _READERS.get(key)) is not None:
        field, _, read = reader
        if value is None:  # not said, whatever was said under the same name before
            return field, "" if key == semconv.WRITER_ID else None
        return field, read(value)
    if key.startswith(semconv.COUNTER_PREFIX):
        return None, (key[len(semconv.COUNTER_PREFIX) :], as_float(key, value))
    if key.startswith(semconv.PREFIX) or key in _LONG_WAY:
        raise Unusual
    return _IGNORED, None


_LONG_WAY: Final = frozenset({semconv.EXCEPTION_TYPE, semconv.EXCEPTION_STACKTRACE})
"""Read only where something else is not said, or too long to look at here."""
