"""What one attempt to deliver one request came to, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from otelprogress.otel.target import OtlpEndpoint, Signal


class Verdict(StrEnum):
    """What the sender does next with the same bytes."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """Busy or unreachable: the same bytes again, later."""
    REFUSED = "refused"
    """The receiver will never take these bytes: count and go on."""
    UNSUPPORTED = "unsupported"
    """The receiver does not know this signal: switch it off."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one attempt."""

    verdict: Verdict
    reason: str = ""
    """For one log line: status or error, no secrets, no line breaks."""
    retry_after_s: float | None = None
    """What the receiver asked for; `None`: nothing."""
    rejected: int = 0
    """Records that a partial success says were not taken."""
    reached: bool = True
    """`False`: as far as we know nobody is there."""


DELIVERED = Answer(Verdict.DELIVERED)


class Transport(Protocol):
    """Delivers the bytes of one signal. Used by one thread; `cancel` may come from any."""

    def send(self, body: bytes, timeout_s: float) -> Answer:
        """Try once. Returns within about `timeout_s`, never raises for what a network or a receiver can do."""

    def cancel(self) -> None:
        """Give up what is in flight as far as the protocol allows, without waiting."""

    def close(self) -> None:
        """Free connections."""


def bearer(endpoint: OtlpEndpoint) -> dict[str, str]:
    """The header that carries the endpoint's token as it is now; empty where it has none, or none can be had."""
    if endpoint.token is None:
        return {}
    try:
        token = endpoint.token()
    except Exception:
        token = ""  # a file that is just being replaced: the receiver's answer will say what it comes to
    return {"authorization": f"Bearer {token}"} if token else {}


def open_transport(signal: Signal, endpoint: OtlpEndpoint) -> Transport:
    """The transport of one signal. Imports requests or grpc, which take a while: not on the application's thread."""
    if endpoint.protocol == "grpc":
        from otelprogress.otel.transport_grpc import GrpcTransport

        return GrpcTransport(signal, endpoint)
    from otelprogress.otel.transport_http import HttpTransport

    return HttpTransport(endpoint, signal)


def rejected_of(signal: Signal, body: bytes) -> tuple[int, str]:
    """What the partial success in a receiver's answer says: how many it rejected, and why."""
    if not body:
        return 0, ""
    from google.protobuf.message import DecodeError

    try:
        if signal == "logs":
            from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

            logs = ExportLogsServiceResponse.FromString(body).partial_success
            return logs.rejected_log_records, logs.error_message
        if signal == "traces":
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

            traces = ExportTraceServiceResponse.FromString(body).partial_success
            return traces.rejected_spans, traces.error_message
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

        metrics = ExportMetricsServiceResponse.FromString(body).partial_success
        return metrics.rejected_data_points, metrics.error_message
    except DecodeError:
        # A success is a success; receivers answer 200 with JSON or nothing in particular too.
        return 0, ""
