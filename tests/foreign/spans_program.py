"""A plain OpenTelemetry program that knows of no conventions: spans only. Argument: `http` or `grpc`.

The children of its first span leave in a request before that of their parent; the second span fails. It prints the
trace id of each span before it ends, and goes on after a line on stdin.
"""

from __future__ import annotations

import importlib
import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, format_trace_id

exporter = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{sys.argv[1]}.trace_exporter")
provider = TracerProvider(resource=Resource.create({"service.name": "airport"}))
provider.add_span_processor(BatchSpanProcessor(exporter.OTLPSpanExporter()))
tracer = provider.get_tracer("my.airport")


def wait(span: Span) -> None:
    provider.force_flush()
    print(format_trace_id(span.get_span_context().trace_id), flush=True)
    sys.stdin.readline()


with tracer.start_as_current_span("import flights", attributes={"airport": "JFK"}) as span:
    with tracer.start_as_current_span("read"):
        with tracer.start_as_current_span("SELECT"):
            pass
    with tracer.start_as_current_span("write"):
        span.add_event("disk is slow", {"disk": "sda"})
    wait(span)
try:
    with tracer.start_as_current_span("import weather", attributes={"airport": "LGA"}) as span:
        wait(span)
        raise ConnectionError("no answer from the station")
except ConnectionError:
    pass
with tracer.start_as_current_span("GET /healthz"):
    pass
provider.shutdown()
