"""Spans of the collector's own work, sent to an endpoint of their own; off unless one is given.

They go through a provider of their own, never through what the collector forwards, and say nothing of the operations in
it: the collector's own work is no progress of anybody's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from otelprogress_collector import __version__
from otelprogress_collector.receivers.ingest import Ingest

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from otelprogress_collector.auth.principal import Principal
    from otelprogress_collector.receivers.intake import Encoding, Intake, Signal

SCOPE: Final = "otelprogress_collector"
_EXPORT_TIMEOUT_S: Final = 5.0


class SelfTraces:
    """See the module.

    Args:
        endpoint: base URL of an OTLP/HTTP endpoint.
    """

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # An endpoint that is away is no news each second: the exporters it forwards with say so.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.ERROR)
        resource = Resource.create({"service.name": "otelprogress-collector", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: Tracer = self._provider.get_tracer(SCOPE, __version__)

    def close(self) -> None:
        """Send what is left, as far as it goes; blocks for up to some seconds."""
        self._provider.shutdown()


class TracedIngest(Ingest):
    """An `Ingest` that leaves a span for each request.

    Args:
        traces: where to.
        settings: of `Ingest`.
    """

    def __init__(self, traces: SelfTraces, *settings: Any, **more: Any) -> None:
        super().__init__(*settings, **more)
        self._tracer = traces.tracer

    async def take(self, signal: Signal, body: bytes, encoding: Encoding, principal: Principal) -> Intake:
        """Take one request; see `Ingest.take`, also for what it raises."""
        with self._tracer.start_as_current_span(
            f"ingest {signal}", attributes={"otlp.encoding": encoding, "otlp.size_bytes": len(body)}
        ) as span:
            intake = await super().take(signal, body, encoding, principal)
            span.set_attributes(
                {
                    "otlp.records": intake.records,
                    "otlp.rejected": intake.rejected,
                    "otelprogress.events": len(intake.events),
                }
            )
            return intake
