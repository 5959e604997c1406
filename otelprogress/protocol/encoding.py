"""Messages to frames and back: the one encoding of v1 (JSON in text frames).

Size and depth are checked on the raw bytes, before anything is converted. What is refused here is the other
side's mistake and says with which close code it is answered.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.model.events import Event, FeedEvent, OperationView
from otelprogress.protocol.close_codes import CloseCode
from otelprogress.protocol.messages import ClientMessage, HostMessage, ServerMessage, WorkerMessage

_encoder: Final = msgspec.json.Encoder()
encode: Final = _encoder.encode
"""A message struct (or any plain value) to UTF-8 JSON."""

CLIENT_MESSAGES: Final = msgspec.json.Decoder(ClientMessage)
SERVER_MESSAGES: Final = msgspec.json.Decoder(ServerMessage)
WORKER_MESSAGES: Final = msgspec.json.Decoder(WorkerMessage)
HOST_MESSAGES: Final = msgspec.json.Decoder(HostMessage)

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")

M = TypeVar("M")


class UnknownMessage(RemoteProtocolError):
    """A message of a type this side does not know, or with a field it cannot mean; the connection can go on.

    Attributes:
        kind: its `type`.
        ref: the id it gave; empty when it gave none.
        known: whether the type is known and a field was wrong.
    """

    def __init__(self, message: str, *, kind: str, ref: str, known: bool) -> None:
        super().__init__(message, CloseCode.BAD_MESSAGE)
        self.kind = kind
        self.ref = ref
        self.known = known


class _Probe(msgspec.Struct):
    type: str
    id: str | None = None
    command_id: str | None = None


_PROBE: Final = msgspec.json.Decoder(_Probe)


def depth(frame: bytes) -> int:
    """How deep the JSON in `frame` nests; for malformed input, at least as deep as a parser would go."""
    deepest = level = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", frame)):
        if bracket in b"[{":
            level += 1
            deepest = max(deepest, level)
        else:
            level -= 1
    return deepest


def decode(decoder: msgspec.json.Decoder[M], frame: str | bytes, *, max_bytes: int, max_depth: int = 16) -> M:
    """One frame to its message.

    Args:
        decoder: one of the four of this module.
        frame: as it came; text frames may be given as `str` or as their UTF-8.
        max_bytes: the limit of a frame, in bytes of UTF-8.
        max_depth: the limit of nested JSON.

    Raises:
        UnknownMessage: an unknown type, or a known one with a wrong field.
        RemoteProtocolError: anything else that is no message; `.code` is the close code that answers it.
    """
    if len(frame) > max_bytes:
        raise RemoteProtocolError(f"a frame of more than {max_bytes} bytes", CloseCode.TOO_BIG)
    try:
        data = frame.encode() if isinstance(frame, str) else bytes(frame)
    except UnicodeEncodeError:
        raise RemoteProtocolError("a text frame that is no UTF-8", CloseCode.BAD_MESSAGE) from None
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"a frame of more than {max_bytes} bytes", CloseCode.TOO_BIG)
    # Fewer brackets than the limit cannot nest deeper: the usual frame is spared the scan.
    if data.count(b"[") + data.count(b"{") > max_depth and depth(data) > max_depth:
        raise RemoteProtocolError(f"JSON nested deeper than {max_depth}", CloseCode.BAD_MESSAGE)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _explained(data, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a frame that is no JSON: {error}", CloseCode.BAD_MESSAGE) from None


def _explained(data: bytes, reason: str) -> RemoteProtocolError:
    try:
        probe = _PROBE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return RemoteProtocolError(f"a frame that is no message: {reason}", CloseCode.BAD_MESSAGE)
    known = "Invalid value" not in reason or "$.type" not in reason
    ref = probe.id or probe.command_id or ""
    return UnknownMessage(reason, kind=probe.type[:64], ref=ref[:256], known=known)


def encode_event(event: FeedEvent, max_bytes: int) -> bytes:
    """One event of an `events` frame; its longest parts are left out where it would not fit."""
    data = encode(event)
    if len(data) <= max_bytes:
        return data
    return encode(msgspec.structs.replace(event, operation=_slim(event.operation)))


def encode_operation(view: OperationView, max_bytes: int) -> bytes:
    """One operation of a `snapshot` frame; its longest parts are left out where it would not fit."""
    data = encode(view)
    return data if len(data) <= max_bytes else encode(_slim(view))


def encode_link_event(event: Event) -> bytes:
    """One event of a worker's `events` frame."""
    return encode(event)


def _slim(view: OperationView) -> OperationView:
    # All texts are capped where they enter; what can still be many are steps and attributes.
    return msgspec.structs.replace(
        view,
        steps=(),
        steps_folded=view.steps_folded + len(view.steps),
        attributes={},
        result=None,
        error_message=None if view.error_message is None else view.error_message[:1024],
    )
