"""OTLP over gRPC: unary calls with bytes that are encoded already.

Retryable are the codes of the OTLP specification ("OTLP/gRPC Response"); RESOURCE_EXHAUSTED only when the
receiver says when to come back (RetryInfo). UNIMPLEMENTED means that nobody takes this signal there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from otelprogress.otel.target import OtlpEndpoint, Signal
from otelprogress.otel.transport import DELIVERED, Answer, Verdict, bearer, rejected_of

_METHODS: Final[dict[Signal, str]] = {
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    },
)
_UNREACHED: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
_NOBODY_THERE: Final = ("failed to connect", "resolution", "resolve", "no route", "handshake")
_OPTIONS: Final = (
    ("grpc.primary_user_agent", "otelprogress"),
    ("grpc.max_receive_message_length", 64 * 1024),
    # grpc's own reconnecting goes up to two minutes, far over the sender's own backoff.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class GrpcTransport:
    """One channel to one signal's service."""

    def __init__(self, signal: Signal, endpoint: OtlpEndpoint) -> None:
        self._signal: Signal = signal
        compression = grpc.Compression.Gzip if endpoint.gzip else grpc.Compression.NoCompression
        if endpoint.secure:
            credentials = grpc.ssl_channel_credentials(
                _bytes_of(endpoint.certificate),
                _bytes_of(endpoint.client_key),
                _bytes_of(endpoint.client_certificate),
            )
            self._channel = grpc.secure_channel(endpoint.authority, credentials, _OPTIONS, compression)
        else:
            self._channel = grpc.insecure_channel(endpoint.authority, _OPTIONS, compression)
        self._call = self._channel.unary_unary(_METHODS[signal], None, None)
        self._endpoint = endpoint
        self._in_flight: Any = None

    def send(self, body: bytes, timeout_s: float) -> Answer:
        """See `Transport.send`."""
        metadata = (*self._endpoint.headers, *bearer(self._endpoint).items())
        call = self._in_flight = self._call.future(body, timeout=timeout_s, metadata=metadata)
        try:
            rejected, why = rejected_of(self._signal, call.result())
        except grpc.FutureCancelledError:
            return Answer(Verdict.RETRY, "cancelled", reached=False)
        except grpc.RpcError:
            if call.code() is grpc.StatusCode.UNAUTHENTICATED and self._endpoint.token is not None:
                return Answer(Verdict.RETRY, "gRPC UNAUTHENTICATED")  # as over HTTP: its file will be renewed
            return _answer(call)
        finally:
            self._in_flight = None
        return (
            Answer(Verdict.DELIVERED, f"partial success: {why[:200]!r}", rejected=rejected)
            if rejected
            else DELIVERED
        )

    def cancel(self) -> None:
        """See `Transport.cancel`."""
        call = self._in_flight
        if call is not None:
            call.cancel()

    def close(self) -> None:
        """See `Transport.close`."""
        self._channel.close()


def _answer(call: Any) -> Answer:
    code: grpc.StatusCode = call.code()
    reason = f"gRPC {code.name}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Answer(Verdict.UNSUPPORTED, reason)
    delay_s = retry_delay_s(call.trailing_metadata() or ())
    if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay_s is not None):
        reached = code not in _UNREACHED or delay_s is not None or _connected(call)
        return Answer(Verdict.RETRY, reason, delay_s, reached=reached)
    return Answer(Verdict.REFUSED, reason)


def _connected(call: Any) -> bool:
    """Whether UNAVAILABLE came from a receiver (or its connection broke): grpc says it too where it finds nobody."""
    if call.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    # Nothing but the text tells the two apart. Taken wrongly it costs an exit its full time, and no event.
    details = (call.details() or "").lower()
    return not any(sign in details for sign in _NOBODY_THERE)


def retry_delay_s(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Seconds asked for by a RetryInfo in the trailing metadata, in either of the two ways in use; else `None`."""
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # ships no types
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types

    for key, value in metadata:
        if not isinstance(value, bytes):
            continue
        with contextlib.suppress(DecodeError):
            if key == "google.rpc.retryinfo-bin":
                return _seconds(RetryInfo.FromString(value))
            if key == "grpc-status-details-bin":
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Unpack(info):
                        return _seconds(info)
    return None


def _seconds(info: Any) -> float:
    delay: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return delay


def _bytes_of(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None
