"""A program with a partial-span-processor, as its documentation says: heartbeat logs of spans that are open.

It prints the trace id once its spans are open, and goes on after a line on stdin.
"""

from __future__ import annotations

import sys

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from partial_span_processor import PartialSpanProcessor

resource = Resource.create({"service.name": "harbour"})
provider = TracerProvider(resource=resource)
provider.add_span_processor(
    PartialSpanProcessor(
        OTLPLogExporter(),
        heartbeat_interval_millis=1000,
        initial_heartbeat_delay_millis=0,
        process_interval_millis=100,
        resource=resource,
    )
)
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("my.harbour")

with tracer.start_as_current_span("import ships") as span:
    with tracer.start_as_current_span("read"):
        print(f"{span.get_span_context().trace_id:032x}", flush=True)
        sys.stdin.readline()
    with tracer.start_as_current_span("write"):
        span.add_event("quay is full", {"ships": 4})
provider.shutdown()
