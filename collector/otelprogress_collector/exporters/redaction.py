"""Requests without the secrets in them, for backends that must not have them (`redact_exports`). No I/O, no clock.

The patterns and the names are those of `model.redaction`, by which everything that the collector itself keeps is
redacted too. Where the name of an attribute is a secret's, every text and all bytes in its value go; numbers and
truth values stay: `gen_ai.usage.input_tokens` is no token. Everything without a secret goes byte for byte: of a
request the records, of a record without any the request. A record or a request that cannot be read cannot be
redacted either, so it does not go.

It goes piece by piece: between two pieces, each of some milliseconds, others get their turn.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelprogress.model import semconv
from otelprogress.model.fields import json_in
from otelprogress.model.redaction import REDACTED, is_secret_key, may_hold_secret, redact, redact_whole
from otelprogress.otel.target import Signal
from otelprogress_collector.exporters.framing import Encoding
from otelprogress_collector.exporters.merging import varint

_FIRST: Final = 0x0A
"""Field 1, length-delimited: a group by resource, its resource, a scope."""
_SECOND: Final = 0x12
"""Field 2, length-delimited: a group by scope, a record."""
_RECORDS: Final[dict[Signal, type[Message]]] = {"traces": Span, "logs": LogRecord, "metrics": Metric}
_FIXED_BYTES: Final = {1: 8, 5: 4}
_LENGTH_DELIMITED: Final = 2
_PIECE_BYTES: Final = 64 * 1024
_PIECE_VALUES: Final = 512

_IDENTITIES: Final = frozenset({"trace_state", "traceState", "schema_url", "schemaUrl"})
"""Texts that are compared, or go on with the trace as they came."""
_NAMED: Final = frozenset({"name", "version", "unit"})
"""Of scopes and metrics: `auth:requests:rate5m` is the name of a metric."""
_MAX_JSON_CHARS: Final = 64 * 1024
_JSON_TEXTS: Final = {semconv.RESULT: False, semconv.INPUT_SCHEMA: True}
"""Attributes that hold JSON; whether it is a schema. Their members are looked at by name, as in the store."""

_Inside = type[Message] | Mapping[int, Any]
"""What a field holds: a message to look into, or fields of which some hold more of these."""


@dataclass(slots=True)
class Redacted:
    """One request as it may go."""

    body: bytes
    """The same object when there is no secret in it; empty: nothing is left."""
    unreadable: int = 0
    """Records that were left out, or 1 for a whole request."""


def redacted_request(signal: Signal, body: bytes, encoding: Encoding) -> Generator[None, None, Redacted]:
    """The request without secrets, piece by piece; the last `next` returns it. Never raises."""
    reading = _Protobuf(signal) if encoding == "protobuf" else _Json(signal)
    try:
        kept = yield from reading.request(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return Redacted(b"", 1)
    return Redacted(body if kept is None else kept, reading.unreadable)


def redacted_at_once(signal: Signal, body: bytes, encoding: Encoding) -> Redacted:
    """The same, for a request that is known to be small."""
    pieces = redacted_request(signal, body, encoding)
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            redacted: Redacted = done.value
            return redacted


class _Protobuf:
    """The levels above a record are cut apart without parsing them, so that all that has no secret stays as it is."""

    def __init__(self, signal: Signal) -> None:
        self.unreadable = 0
        self._spent_bytes = 0
        by_scope = {_FIRST: InstrumentationScope, _SECOND: _RECORDS[signal]}
        self._levels = {_FIRST: {_FIRST: Resource, _SECOND: by_scope}}

    def request(self, body: bytes) -> Generator[None, None, bytes | None]:
        """The request; `None`: it stays as it is.

        Raises:
            ValueError: it is no protobuf message.
        """
        return self._level(body, self._levels)

    def _level(self, body: bytes, inside: Mapping[int, Any]) -> Generator[None, None, bytes | None]:
        parts: list[bytes] = []
        copied = 0
        for tag, at, start, end in _fields(body):
            held = inside.get(tag)
            if held is None:
                continue
            content = body[start:end]
            if isinstance(held, Mapping):
                kept = yield from self._level(content, held)
            else:
                kept = yield from self._message(content, held)
            if kept is not None:
                parts += body[copied:at], _field(tag, kept) if kept else b""
                copied = end
        return b"".join((*parts, body[copied:])) if parts else None

    def _message(self, content: bytes, kind: type[Message]) -> Generator[None, None, bytes | None]:
        """A record; `None`: it stays as it is; empty, which one with something redacted never is: it does not go."""
        self._spent_bytes += len(content)
        if self._spent_bytes >= _PIECE_BYTES:
            self._spent_bytes = 0
            yield
        # No byte before a text is taken for the front of its first character: the length ends in one below 0x80.
        if not may_hold_secret(content.decode(errors="replace")):
            return None
        try:
            message = kind.FromString(content)
        except DecodeError:
            self.unreadable += 1
            return b""
        changed = yield from _redact_message(message)
        return message.SerializeToString() if changed else None


def _fields(body: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, where the field begins, where its content does, and where both end.

    Raises:
        ValueError: there is something else.
    """
    at, size = 0, len(body)
    while at < size:
        tag, start = varint(body, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, start = varint(body, start)
            end = start + length
        elif kind == 0:
            end = varint(body, start)[1]
        elif kind in _FIXED_BYTES:
            end = start + _FIXED_BYTES[kind]
        else:
            raise ValueError("no protobuf message")
        if end > size:
            raise ValueError("a protobuf message is cut short")
        yield tag, at, start, end
        at = end


def _field(tag: int, content: bytes) -> bytes:
    encoded = bytearray((tag,))
    length = len(content)
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + content


def _redact_message(root: Message) -> Generator[None, None, bool]:
    """Take the secrets out of a message, in place; whether there were any."""
    changed = False
    seen = 0
    # What is in it, and whether an attribute around it is a secret by its name.
    waiting: list[tuple[Any, bool]] = [(root, False)]
    while waiting:
        message, secret = waiting.pop()
        seen += 1
        if seen % _PIECE_VALUES == 0:
            yield
        if isinstance(message, KeyValue):
            key = message.key
            secret = secret or names_secret(key)
            if key in _JSON_TEXTS and message.value.HasField("string_value"):
                text = message.value.string_value
                whole = _without_secret_members(text, schema=_JSON_TEXTS[key])
                if whole is not None:
                    if whole != text:
                        message.value.string_value, changed = whole, True
                    continue
        exempt = _NAMED if isinstance(message, (Metric, InstrumentationScope)) else frozenset()
        for field, value in message.ListFields():
            name = field.name
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting.extend((one, secret) for one in ((value,) if isinstance(value, Message) else value))
            elif field.type == FieldDescriptor.TYPE_STRING and name not in _IDENTITIES and name not in exempt:
                hidden = secret and isinstance(message, AnyValue)
                if isinstance(value, str):
                    kept = REDACTED if hidden else (yield from redact_whole(value))
                    if kept != value:
                        setattr(message, name, kept)
                        changed = True
                    continue
                for position, text in enumerate(list(value)):
                    kept = yield from redact_whole(text)
                    if kept != text:
                        value[position], changed = kept, True
            elif name == "bytes_value":
                kept_bytes = REDACTED.encode() if secret else (yield from _redact_bytes(value))
                if kept_bytes != value:
                    message.bytes_value, changed = kept_bytes, True
    return changed


class _Json:
    def __init__(self, signal: Signal) -> None:
        self.unreadable = 0
        self._signal = signal

    def request(self, body: bytes) -> Generator[None, None, bytes | None]:
        """The request; `None`: it stays as it is.

        Raises:
            ValueError: it is no JSON.
        """
        document = msgspec.json.decode(body)
        changed = yield from self._redact(document)
        return msgspec.json.encode(document) if changed else None

    def _redact(self, root: Any) -> Generator[None, None, bool]:
        changed = False
        seen = 0
        # What is in it, what it is called, and whether an attribute around it is a secret by its name.
        waiting: list[tuple[Any, str, bool]] = [(root, "", False)]
        while waiting:
            node, called, secret = waiting.pop()
            seen += 1
            if seen % _PIECE_VALUES == 0:
                yield
            key = node.get("key") if isinstance(node, dict) else None
            if isinstance(key, str) and isinstance(value := node.get("value"), dict):
                secret = secret or names_secret(key)
                if (
                    key in _JSON_TEXTS
                    and len(value) == 1
                    and isinstance(text := value.get("stringValue"), str)
                ):
                    whole = _without_secret_members(text, schema=_JSON_TEXTS[key])
                    if whole is not None:
                        value["stringValue"] = whole
                        changed |= whole != text
                        continue
            exempt = _NAMED if self._signal == "metrics" or called == "scope" else frozenset()
            members = (
                enumerate(node)
                if isinstance(node, list)
                else list(node.items())
                if isinstance(node, dict)
                else ()
            )
            for place, held in members:
                name = place if isinstance(place, str) else called
                if not isinstance(held, str):
                    if isinstance(held, (dict, list)):
                        waiting.append((held, name, secret))
                    continue
                if name in _IDENTITIES or name in exempt:
                    continue
                if name in _STRING_VALUES:
                    kept = REDACTED if secret else (yield from redact_whole(held))
                elif name in _BYTES_VALUES:
                    kept = yield from _redact_base64(held, hidden=secret)
                else:
                    kept = yield from redact_whole(held)
                if kept != held:
                    node[place], changed = kept, True
        return changed


_STRING_VALUES: Final = frozenset({"stringValue", "string_value"})
_STANDARD_BASE64: Final = str.maketrans("-_", "+/")
_BYTES_VALUES: Final = frozenset({"bytesValue", "bytes_value"})


def names_secret(key: str) -> bool:
    """Whether what an attribute of that name holds is a secret, whatever it looks like."""
    return may_hold_secret(key) and (is_secret_key(key) or redact(probe := f"{key[-256:]}=value") != probe)


def _without_secret_members(text: str, *, schema: bool) -> str | None:
    """JSON without its secrets; the same text where there are none, `None` where it is no JSON, or too much of it."""
    if len(text) > _MAX_JSON_CHARS:
        return None
    kept = json_in(text, 4 * len(text) + 64, schema=schema)
    return text if kept is not None and json.loads(kept) == json.loads(text) else kept


def _redact_bytes(content: bytes) -> Generator[None, None, bytes]:
    try:
        text, charset = content.decode(), "utf-8"
    except UnicodeDecodeError:
        text, charset = content.decode("latin-1"), "latin-1"
    kept = yield from redact_whole(text)
    return content if kept == text else kept.encode(charset)


def _redact_base64(text: str, *, hidden: bool) -> Generator[None, None, str]:
    """As `_redact_bytes`, for bytes in JSON, in either alphabet of base64."""
    try:
        content = base64.b64decode(text.translate(_STANDARD_BASE64) + "==")
    except ValueError:  # a backend will refuse it
        return REDACTED if hidden else (yield from redact_whole(text))
    kept = REDACTED.encode() if hidden else (yield from _redact_bytes(content))
    return text if kept == content else base64.b64encode(kept).decode()
