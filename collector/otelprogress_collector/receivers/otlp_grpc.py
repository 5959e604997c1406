"""OTLP over gRPC: the three Export services, on bytes.

Handlers take the request as it came, so that it can be passed on untouched, and answer as the OTLP specification
says: what can be sent again is RESOURCE_EXHAUSTED with RetryInfo (too much waits) or UNAVAILABLE (it cannot be
stored); everything else is final. `grpc-status-details-bin` carries the google.rpc.Status.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import grpc.aio  # type: ignore[import-untyped]

from otelprogress_collector.receivers.admission import Authenticate, by_name
from otelprogress_collector.receivers.answers import OUR_FAULT, refusal_of, status_message, success
from otelprogress_collector.receivers.ingest import Ingest
from otelprogress_collector.receivers.intake import Signal
from otelprogress_collector.receivers.limits import DEFAULT_LIMITS, Limits
from otelprogress_collector.receivers.rate import InFlight

_LOG: Final = logging.getLogger("otelprogress_collector.receivers.grpc")
_SERVICES: Final[dict[Signal, str]] = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_MAX_STREAMS: Final = 128
"""Of one connection; a client with more waits."""
_MAX_METADATA_BYTES: Final = 32 * 1024


class GrpcReceiver:
    """See the module.

    Args:
        ingest: takes what is received.
        authenticate: judges the metadata of a call.
        limits: of a request, and of all that are under way.
        credentials: of the server's TLS (`grpc.ssl_server_credentials`); `None`: plain text.
    """

    def __init__(
        self,
        ingest: Ingest,
        authenticate: Authenticate,
        *,
        limits: Limits = DEFAULT_LIMITS,
        credentials: Any = None,
    ) -> None:
        self._ingest = ingest
        self._authenticate = authenticate
        self._limits = limits
        self._credentials = credentials
        self._in_flight = InFlight(limits.max_in_flight_bytes)
        self._server: Any = None

    async def start(self, address: str) -> int:
        """Listen.

        Args:
            address: `host:port`; port 0: any that is free. `unix:` paths as gRPC knows them.

        Returns:
            The port.

        Raises:
            OSError: the address cannot be had; names it.
        """
        server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),  # else a second server on a taken port would get half of its calls
                ("grpc.max_receive_message_length", self._limits.max_inflated_bytes),
                ("grpc.max_concurrent_streams", _MAX_STREAMS),
                ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
            ),
        )
        server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(
                    service, {"Export": grpc.unary_unary_rpc_method_handler(self._export(signal))}
                )
                for signal, service in _SERVICES.items()
            )
        )
        try:
            if self._credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for gRPC: {error}") from error
        await server.start()
        self._server = server
        return int(port)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; those under way have `grace_s` to end. A second call does nothing."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    def _export(self, signal: Signal) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def export(body: bytes, context: Any) -> bytes:
            try:
                principal = await self._authenticate(by_name(_texts(context.invocation_metadata())))
                with self._in_flight.body() as room:
                    room.grow(len(body))
                    return success(await self._ingest.take(signal, body, "protobuf", principal), "protobuf")
            except Exception as error:
                refusal = refusal_of(error)
                if refusal is OUR_FAULT:
                    _LOG.exception("a request of %s was not taken", signal)
            await context.abort(
                _CODES[refusal.code],
                refusal.message,
                (("grpc-status-details-bin", status_message(refusal)),),
            )
            raise AssertionError("abort raises")

        return export


def _texts(metadata: Any) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, value in metadata or () if isinstance(value, str))
