"""The one file that leans on the SDK's privates: these tests say which, for each SDK they run with."""

from __future__ import annotations

import gc
import weakref

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, use_span

from otelprogress.otel import span_tap


@pytest.fixture
def tracer():
    return TracerProvider(shutdown_on_exit=False).get_tracer("app")


def test_add_event_is_heard_after_it_stands_on_the_span(tracer):
    span = tracer.start_span("s")
    heard = []
    assert span_tap.tap(
        span, lambda name, attributes, time: heard.append((name, attributes, time, len(span.events)))
    )
    span.add_event("cache.miss", {"key": "a"}, timestamp=5)
    span.add_event(name="late")
    assert heard == [("cache.miss", {"key": "a"}, 5, 1), ("late", None, None, 2)]


def test_record_exception_is_heard_too(tracer):
    span = tracer.start_span("s")
    heard = []
    span_tap.tap(span, lambda name, attributes, _: heard.append((name, attributes["exception.type"])))
    span.record_exception(ValueError("no"))
    assert heard == [("exception", "ValueError")]


def test_an_exception_that_leaves_a_with_block_is_heard(tracer):
    heard = []
    with pytest.raises(ValueError):
        with use_span(tracer.start_span("s"), end_on_exit=True) as span:
            span_tap.tap(span, lambda name, *_: heard.append(name))
            raise ValueError
    assert heard == ["exception"]


def test_our_own_events_are_not_heard(tracer):
    span = tracer.start_span("s")
    heard = []
    span_tap.tap(span, lambda *said: heard.append(said))
    span_tap.add_own_event(span, "ours", {"a": 1}, 7)
    assert heard == []
    assert [(one.name, one.timestamp) for one in span.events] == [("ours", 7)]


def test_a_second_listener_is_refused(tracer):
    span = tracer.start_span("s")
    assert span_tap.tap(span, lambda *_: None)
    assert not span_tap.tap(span, lambda *_: None)


def test_an_untapped_span_is_as_it_was_and_freed_at_once(tracer):
    span = tracer.start_span("s")
    span_tap.tap(span, lambda *_: None)
    span_tap.tap_end(span, lambda: None)
    span_tap.untap(span)
    assert "add_event" not in span.__dict__
    assert "end" not in span.__dict__
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(span)
        del span
        assert gone() is None
    finally:
        gc.enable()


def test_the_end_is_heard_once_and_before_it_happens(tracer):
    span = tracer.start_span("s")
    recording = []
    span_tap.tap_end(span, lambda: recording.append(span.is_recording()))
    with use_span(span, end_on_exit=True):
        pass
    assert recording == [True]
    assert not span.is_recording()


def test_a_raise_before_the_end_does_not_keep_the_span_open(tracer):
    span = tracer.start_span("s")
    span_tap.tap_end(span, lambda: 1 / 0)
    span.end(end_time=span.start_time + 1)
    assert span.end_time == span.start_time + 1


def test_a_span_that_takes_no_attributes_is_not_heard():
    class Slotted:
        __slots__ = ()

        def add_event(self, *_):
            pass

    assert not span_tap.tap(Slotted(), lambda *_: None)
    span_tap.untap(Slotted())
    span_tap.add_own_event(Slotted(), "ours", {}, 1)


def test_the_limit_of_a_span_is_known():
    provider = TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits(max_events=7))
    assert span_tap.event_limit(provider.get_tracer("a").start_span("s")) == 7
    assert span_tap.event_limit(INVALID_SPAN) is None


def test_exporters_and_their_endpoints_are_seen_through_processors():
    traces = TracerProvider(shutdown_on_exit=False)
    memory = InMemorySpanExporter()
    traces.add_span_processor(SimpleSpanProcessor(memory))
    over_grpc = GrpcSpanExporter(endpoint="http://127.0.0.1:4317")
    traces.add_span_processor(BatchSpanProcessor(over_grpc))
    simple, batch = span_tap.processors_of(traces)
    assert span_tap.exporter_of(simple) is memory
    assert span_tap.endpoint_of(memory) is None
    assert span_tap.exporter_of(batch) is over_grpc
    assert span_tap.endpoint_of(over_grpc) == "127.0.0.1:4317"
    traces.shutdown()

    logs = LoggerProvider(shutdown_on_exit=False)
    over_http = OTLPLogExporter(endpoint="http://127.0.0.1:4318/v1/logs")
    logs.add_log_record_processor(BatchLogRecordProcessor(over_http))
    [batch] = span_tap.processors_of(logs)
    assert span_tap.exporter_of(batch) is over_http
    assert span_tap.endpoint_of(over_http) == "http://127.0.0.1:4318/v1/logs"
    logs.shutdown()


def test_strangers_are_seen_through_as_nothing():
    assert span_tap.processors_of(object()) == ()
    assert span_tap.exporter_of(object()) is None
    assert span_tap.endpoint_of(object()) is None
