"""Progress by the conventions (docs/semconv/README.md) from a plain OpenTelemetry program, js/invoices.cjs in Python.

Arguments: `http` or `grpc`; `writer` (with a writer id, sequence and lease) or `anonymous`. It prints the root's trace
id and span id once the first step is under way, and goes on after a line on stdin.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable

from opentelemetry import _logs, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

P = "otelprogress."
ENCODING, IDENTITY = sys.argv[1:3]
SEQUENCES: Counter[int] = Counter()


def set_up() -> tuple[TracerProvider, LoggerProvider]:
    resource = Resource.create({"service.name": "billing", "process.pid": os.getpid()})
    exporters = f"opentelemetry.exporter.otlp.proto.{ENCODING}"
    tracers = TracerProvider(resource=resource)
    exporter = importlib.import_module(f"{exporters}.trace_exporter").OTLPSpanExporter()
    tracers.add_span_processor(BatchSpanProcessor(exporter))
    loggers = LoggerProvider(resource=resource)
    exporter = importlib.import_module(f"{exporters}._log_exporter").OTLPLogExporter()
    loggers.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=100))
    trace.set_tracer_provider(tracers)
    _logs.set_logger_provider(loggers)
    return tracers, loggers


PROVIDERS = set_up()
TRACER = trace.get_tracer("my.billing")
LOGGER = _logs.get_logger("my.billing", "1.0")


def emit(event: str, severity: SeverityNumber = SeverityNumber.INFO, **said: object) -> None:
    attributes = {P + name.replace("__", "."): value for name, value in said.items()}
    if IDENTITY == "writer" and event != "operation.progressed":
        span_id = trace.get_current_span().get_span_context().span_id
        SEQUENCES[span_id] += 1
        attributes |= {f"{P}writer.id": f"python-{os.getpid()}", f"{P}writer.sequence": SEQUENCES[span_id]}
        if event == "operation.started":
            attributes[f"{P}writer.lease"] = 60
    LOGGER.emit(
        timestamp=time.time_ns(), event_name=P + event, severity_number=severity, attributes=attributes
    )


def operation(name: str, body: Callable[[], dict[str, object]], **said: object) -> None:
    above = trace.get_current_span().get_span_context().span_id
    with TRACER.start_as_current_span(name):
        above_hex = f"{above:016x}" if above else ""
        emit("operation.started", operation__name=name, operation__parent_span_id=above_hex, **said)
        try:
            emit("operation.ended", operation__state="succeeded", **body())
        except ValueError as error:
            span = trace.get_current_span()
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR, str(error))
            LOGGER.emit(
                timestamp=time.time_ns(),
                event_name=f"{P}operation.ended",
                severity_number=SeverityNumber.ERROR,
                attributes={
                    f"{P}operation.state": "failed",
                    "error.type": "RangeError",
                    "exception.message": str(error),
                },
            )


def send_batch() -> dict[str, object]:
    return {"items__completed": 7}


def send_another() -> dict[str, object]:
    raise ValueError("no stamp left")


def invoices() -> dict[str, object]:
    emit("step.started", step__name="fetch", step__index=0)
    counts: dict[str, object] = {"items__total": 120, "items__unit": "{invoice}"}
    emit("operation.progressed", step__name="fetch", step__index=0, items__completed=40, **counts)
    context = trace.get_current_span().get_span_context()
    print(f"{context.trace_id:032x} {context.span_id:016x}", flush=True)
    sys.stdin.readline()
    done = {"step__name": "fetch", "step__index": 0, "step__state": "succeeded", "items__completed": 120}
    emit("step.ended", **done, **counts, counter__rejected=2.5)
    emit("operation.noted", SeverityNumber.WARN, message="3 addresses are incomplete")
    emit("step.started", step__name="send", step__index=1)
    LOGGER.emit(timestamp=time.time_ns(), severity_number=SeverityNumber.INFO, body="mail server says hello")
    operation("send batch", send_batch)
    operation("send batch", send_another)
    emit("step.ended", step__name="send", step__index=1, step__state="succeeded")
    return {}


if __name__ == "__main__":
    operation("invoices", invoices, operation__steps=["fetch", "send"], operation__title="Invoices of May")
    for provider in PROVIDERS:
        provider.shutdown()
    assert not [name for name in sys.modules if name.partition(".")[0].startswith("otelprogress")]
