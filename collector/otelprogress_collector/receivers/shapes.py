"""The OTLP messages as far as they are read: attributes stay bytes until somebody wants them.

The same wire format as `opentelemetry.proto`, whose messages these are with fewer fields: protobuf reads a nested
message as bytes where it is told to. A log record of ours has a dozen attributes, most of them the same bytes in
every record; making a message of each takes six times as long as all the rest (`known_attributes`).
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_PACKAGE: Final = "otelprogress.collector.shapes"

_MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "Resource": (("attributes", 1, "bytes*"),),
    "Scope": (("name", 1, "string"),),
    "LogRecord": (
        ("time_unix_nano", 1, "fixed64"),
        ("severity_number", 2, "int32"),
        ("body", 5, "bytes"),
        ("attributes", 6, "bytes*"),
        ("flags", 8, "fixed32"),
        ("trace_id", 9, "bytes"),
        ("span_id", 10, "bytes"),
        ("observed_time_unix_nano", 11, "fixed64"),
        ("event_name", 12, "string"),
    ),
    "Span": (
        ("trace_id", 1, "bytes"),
        ("span_id", 2, "bytes"),
        ("trace_state", 3, "string"),
        ("parent_span_id", 4, "bytes"),
        ("name", 5, "string"),
        ("kind", 6, "int32"),
        ("start_time_unix_nano", 7, "fixed64"),
        ("end_time_unix_nano", 8, "fixed64"),
        ("attributes", 9, "bytes*"),
        ("events", 11, "bytes*"),
        ("status", 15, "bytes"),
        ("flags", 16, "fixed32"),
    ),
    "SpanEvent": (("time_unix_nano", 1, "fixed64"), ("name", 2, "string"), ("attributes", 3, "bytes*")),
    "Status": (("message", 2, "string"), ("code", 3, "int32")),
}
_TYPES: Final = {
    "bytes": _FIELD.TYPE_BYTES,
    "string": _FIELD.TYPE_STRING,
    "int32": _FIELD.TYPE_INT32,
    "fixed32": _FIELD.TYPE_FIXED32,
    "fixed64": _FIELD.TYPE_FIXED64,
}


def _make() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in fields:
            message.field.add(
                name=name,
                number=number,
                type=_TYPES[kind.rstrip("*")],
                label=_FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL,
            )
    pool = (
        descriptor_pool.DescriptorPool()
    )  # a pool of our own: nothing here is known to the application's protobuf
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES: Final = _make()
Resource: Final[Any] = _CLASSES["Resource"]
Scope: Final[Any] = _CLASSES["Scope"]
LogRecord: Final[Any] = _CLASSES["LogRecord"]
Span: Final[Any] = _CLASSES["Span"]
SpanEvent: Final[Any] = _CLASSES["SpanEvent"]
Status: Final[Any] = _CLASSES["Status"]
