"""Attribute values of protobuf requests as plain Python, no deeper than allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress_collector.receivers.limits import Limits

OF_ERRORS: Final = frozenset(
    {
        semconv.ERROR_TYPE,
        semconv.EXCEPTION_TYPE,
        semconv.EXCEPTION_MESSAGE,
        semconv.EXCEPTION_STACKTRACE,
    },
)
"""What the conventions read besides their own names."""


def of_conventions(key: str) -> bool:
    """Whether `event_from_log` could read an attribute of that name."""
    return key.startswith(semconv.PREFIX) or key in OF_ERRORS


def attributes_of(
    raw_attributes: Sequence[bytes],
    limits: Limits,
    wanted: Callable[[str], bool] | None = None,
) -> dict[str, Any]:
    """The attributes of one record.

    Args:
        raw_attributes: KeyValue messages; of two with the same key the last counts.
        limits: how many, and how deep.
        wanted: which keys; the values of others are not looked at. `None`: all.

    Raises:
        InvalidRecord: too many, too deep, or no KeyValue messages.
    """
    check_count(len(raw_attributes), limits)
    found: dict[str, Any] = {}
    for raw in raw_attributes:
        try:
            attribute = KeyValue.FromString(raw)
        except DecodeError:
            raise InvalidRecord("an attribute cannot be read") from None
        key = attribute.key
        if wanted is None or wanted(key):
            found[key] = value_of(attribute.value, limits.max_depth)
    return found


def check_count(count: int, limits: Limits) -> None:
    """Refuse a record with too many attributes.

    Raises:
        InvalidRecord: it has.
    """
    if count > limits.max_attributes:
        raise InvalidRecord(f"a record may have {limits.max_attributes} attributes, not {count}")


def too_deep(limit: int) -> InvalidRecord:
    """What is said of a value with too many lists and maps within one another."""
    return InvalidRecord(f"an attribute's value may be nested {limit} deep, not deeper")


def body_text(raw: bytes) -> str | None:
    """The body of a log record when it is a text; `None`: it is something else, or cannot be read."""
    try:
        body = AnyValue.FromString(raw)
    except DecodeError:
        return None
    return body.string_value if body.WhichOneof("value") == "string_value" else None


def value_of(value: AnyValue, max_depth: int) -> Any:
    """A value as text, number, bool, bytes, list, dict or, empty, `None`.

    Raises:
        InvalidRecord: deeper than `max_depth`.
    """
    return _value(value, max_depth, max_depth)


def _value(value: AnyValue, depth: int, limit: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None or kind == "string_value_strindex":  # an index into a table that only profiles have
        return None
    if kind == "array_value":
        if not depth:
            raise too_deep(limit)
        return [_value(item, depth - 1, limit) for item in value.array_value.values]
    if kind == "kvlist_value":
        if not depth:
            raise too_deep(limit)
        return {item.key: _value(item.value, depth - 1, limit) for item in value.kvlist_value.values}
    return getattr(value, kind)
