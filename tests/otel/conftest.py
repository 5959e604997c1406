"""Providers of a real SDK, set globally for one test and forgotten after it; an outlet that collects."""

from __future__ import annotations

import opentelemetry._logs._internal as logs_internal
import opentelemetry.metrics._internal as metrics_internal
import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.provider import ProviderBinding
from otelprogress.otel.registry import REGISTRY


@pytest.fixture(autouse=True)
def clean_globals():
    """No global provider before, none after: OpenTelemetry lets each be set once per process."""

    def forget() -> None:
        trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
        logs_internal._LOGGER_PROVIDER, logs_internal._LOGGER_PROVIDER_SET_ONCE = None, Once()
        metrics_internal._METER_PROVIDER, metrics_internal._METER_PROVIDER_SET_ONCE = None, Once()
        REGISTRY.clear()
        OUTLET.close()

    forget()
    yield
    forget()


@pytest.fixture
def submitted():
    """What the processors submit."""
    events: list = []
    OUTLET.open(events.append, writer_id="watcher", lease_s=90.0, service="etl", process_id=7)
    return events


class Application:
    """What an application sets up for itself: traces and logs kept in memory."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.logs = InMemoryLogRecordExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.loggers = LoggerProvider(shutdown_on_exit=False)
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs))

    @property
    def tracer(self):
        return self.tracers.get_tracer("app")

    def records(self) -> list:
        return [one.log_record for one in self.logs.get_finished_logs()]


@pytest.fixture
def application():
    made = Application()
    yield made
    made.tracers.shutdown()
    made.loggers.shutdown()


@pytest.fixture
def bind():
    made = []

    def make(**settings) -> ProviderBinding:
        binding = ProviderBinding(version="1", **settings)
        made.append(binding)
        return binding

    yield make
    for binding in made:
        binding.shutdown()
