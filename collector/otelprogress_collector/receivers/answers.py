"""What a receiver answers, as the OTLP specification wants it: bytes and codes, no I/O."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # ships no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otelprogress_collector.auth.principal import Denied
from otelprogress_collector.host import Overloaded
from otelprogress_collector.receivers.admission import Forbidden
from otelprogress_collector.receivers.intake import BadRequest, Encoding, Intake, Signal, TooLarge
from otelprogress_collector.receivers.rate import RateLimited
from otelprogress_collector.store.interface import StoreUnavailable

MAX_RETRY_AFTER_S: Final = 5.0
"""The Python exporter gives a batch up once its time-out of 10 s is over."""
STORE_RETRY_AFTER_S: Final = 2.0

# google.rpc.Code
INVALID_ARGUMENT: Final = 3
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

CONTENT_TYPES: Final[dict[Encoding, str]] = {
    "protobuf": "application/x-protobuf",
    "json": "application/json",
}
_RESPONSES: Final[dict[Signal, Any]] = {
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
    "metrics": ExportMetricsServiceResponse,
}
_REJECTED: Final[dict[Signal, tuple[str, str]]] = {
    "traces": ("rejected_spans", "rejectedSpans"),
    "logs": ("rejected_log_records", "rejectedLogRecords"),
    "metrics": ("rejected_data_points", "rejectedDataPoints"),
}


class Refusal(msgspec.Struct, frozen=True):
    """Why a request as a whole was not taken."""

    http_status: int
    code: int
    """Of google.rpc.Code."""
    message: str
    retry_after_s: float | None = None
    """When to come again, at most 5 s; `None`: never."""


UNSUPPORTED_TYPE: Final = Refusal(
    415, INVALID_ARGUMENT, "the content type must be application/x-protobuf or application/json"
)
UNSUPPORTED_ENCODING: Final = Refusal(415, INVALID_ARGUMENT, "the content encoding must be gzip or none")
METHOD_NOT_ALLOWED: Final = Refusal(405, UNIMPLEMENTED, "OTLP is sent with POST")
HOST_NOT_ALLOWED: Final = Refusal(403, PERMISSION_DENIED, "the Host header names a host that is not this one")
TOO_SLOW: Final = Refusal(408, INVALID_ARGUMENT, "the body took too long to arrive")
OUR_FAULT: Final = Refusal(
    500, INTERNAL, "the request met an error of the collector's own; its log says more"
)


def refusal_of(error: Exception) -> Refusal:
    """What is answered where reading or taking a request raised `error`."""
    if isinstance(error, BadRequest):
        return Refusal(400, INVALID_ARGUMENT, str(error))
    if isinstance(error, TooLarge):
        return Refusal(413, RESOURCE_EXHAUSTED, str(error))
    if isinstance(error, Denied):
        return Refusal(401, UNAUTHENTICATED, str(error))
    if isinstance(error, Forbidden):
        return Refusal(403, PERMISSION_DENIED, str(error))
    if isinstance(error, Overloaded):
        status = 429 if isinstance(error, RateLimited) else 503
        return Refusal(status, RESOURCE_EXHAUSTED, str(error), _soon(error.retry_after_s))
    if isinstance(error, StoreUnavailable):
        return Refusal(503, UNAVAILABLE, "what is sent cannot be stored at the moment", STORE_RETRY_AFTER_S)
    return OUR_FAULT


def success(intake: Intake, encoding: Encoding) -> bytes:
    """The body of an Export*ServiceResponse."""
    if not intake.rejected and not intake.reason:
        return b"" if encoding == "protobuf" else b"{}"
    in_protobuf, in_json = _REJECTED[intake.signal]
    if encoding == "json":
        # 64-bit integers are text in OTLP/JSON.
        told = {in_json: str(intake.rejected), "errorMessage": intake.reason}
        return json.dumps({"partialSuccess": told}).encode()
    response = _RESPONSES[intake.signal]()
    setattr(response.partial_success, in_protobuf, intake.rejected)
    response.partial_success.error_message = intake.reason
    encoded: bytes = response.SerializeToString()
    return encoded


def status(refusal: Refusal, encoding: Encoding) -> bytes:
    """The body of a google.rpc.Status, with RetryInfo where there is something to wait for."""
    if encoding == "protobuf":
        return status_message(refusal)
    said: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.retry_after_s is not None:
        said["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{refusal.retry_after_s:g}s",
            }
        ]
    return json.dumps(said).encode()


def status_message(refusal: Refusal) -> bytes:
    """A google.rpc.Status in protobuf: the body over HTTP, `grpc-status-details-bin` over gRPC."""
    message = Status(code=refusal.code, message=refusal.message)
    if refusal.retry_after_s is not None:
        detail = AnyMessage()
        detail.Pack(
            RetryInfo(
                retry_delay=Duration(
                    seconds=int(refusal.retry_after_s), nanos=int(refusal.retry_after_s % 1 * 1e9)
                )
            )
        )
        message.details.append(detail)
    encoded: bytes = message.SerializeToString()
    return encoded


def retry_after_header(retry_after_s: float) -> str:
    """Whole seconds, at least one."""
    return str(max(1, math.ceil(retry_after_s)))


def _soon(retry_after_s: float) -> float:
    return min(max(retry_after_s, 0.0), MAX_RETRY_AFTER_S)
