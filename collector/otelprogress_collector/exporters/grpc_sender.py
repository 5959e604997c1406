"""OTLP over gRPC: unary calls with the bytes as they were received.

Retryable are the codes of the OTLP specification ("OTLP/gRPC Response"); RESOURCE_EXHAUSTED only when the backend
says when to come back (RetryInfo). UNIMPLEMENTED means that nobody takes this signal there.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from otelprogress.exceptions import InvalidValue
from otelprogress.otel.target import Signal
from otelprogress.otel.transport import DELIVERED, Answer, Verdict, rejected_of
from otelprogress.otel.transport_grpc import retry_delay_s
from otelprogress_collector.exporters.backend import BackendConfig
from otelprogress_collector.exporters.framing import Encoding

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
_UNREACHED: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_MAX_ANSWER_BYTES: Final = 64 * 1024


class GrpcSender:
    """One channel, shared by the signals. Takes protobuf only.

    Raises:
        InvalidValue: TLS files that are not what they should be.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        options = (
            ("grpc.primary_user_agent", "otelprogress-collector"),
            ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
            ("grpc.enable_http_proxy", int(config.proxy_from_env)),
            ("grpc.enable_retries", 0),  # the courier decides what is tried again, and counts it
            # grpc's own reconnecting goes up to two minutes, over the courier's backoff.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        )
        compression = grpc.Compression.Gzip if config.gzip else grpc.Compression.NoCompression
        if config.secure:
            self._channel = grpc.aio.secure_channel(
                config.authority, _credentials(config), options, compression
            )
        else:
            self._channel = grpc.aio.insecure_channel(config.authority, options, compression)
        self._calls = {signal: self._channel.unary_unary(_METHODS[signal]) for signal in config.signals}
        self._metadata = config.headers

    async def send(self, signal: Signal, body: bytes, encoding: Encoding) -> Answer:
        """See `Sender.send`."""
        try:
            answered = await self._calls[signal](
                body, timeout=self._config.timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            return self._answer(error)
        rejected, why = rejected_of(signal, answered)
        if rejected > 0:
            return Answer(
                Verdict.DELIVERED, f"partial success: {self._config.quoted(why)}", rejected=rejected
            )
        return DELIVERED

    def _answer(self, error: Any) -> Answer:
        code: grpc.StatusCode = error.code()
        reason = f"gRPC {code.name}"
        if details := error.details():
            reason += f": {self._config.quoted(details)}"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return Answer(Verdict.UNSUPPORTED, reason)
        delay_s = retry_delay_s(error.trailing_metadata() or ())
        if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay_s is not None):
            reached = code not in _UNREACHED or delay_s is not None
            return Answer(Verdict.RETRY, reason, delay_s, reached=reached)
        return Answer(Verdict.REFUSED, reason)

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._channel.close()


def _credentials(config: BackendConfig) -> grpc.ChannelCredentials:
    try:
        certificate = _bytes_of(config.cert_file)
        if certificate is not None:
            # grpc takes what it is given and fails at the first call, over and over: look at it now.
            ssl.create_default_context().load_cert_chain(config.cert_file or "", config.key_file, password="")
        if config.ca_file:
            ssl.create_default_context(cafile=config.ca_file)
        key = _bytes_of(config.key_file) or certificate
        return grpc.ssl_channel_credentials(_bytes_of(config.ca_file), key, certificate)
    except (OSError, ssl.SSLError) as error:
        raise InvalidValue(
            f"backend {config.name!r}: its TLS files are not to be used: {type(error).__name__}"
            f"{f', {error.strerror}' if error.strerror else ''}"
        ) from error


def _bytes_of(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None
