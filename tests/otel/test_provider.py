from __future__ import annotations

import logging

import opentelemetry._logs as logs_api
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, set_span_in_context, use_span

from otelprogress.model import semconv
from otelprogress.otel import global_providers
from otelprogress.otel.emitter import ProgressEmitter, SpanLedger
from otelprogress.otel.log_processor import ProgressLogProcessor
from otelprogress.otel.registry import REGISTRY
from otelprogress.otel.sender import Sender
from otelprogress.otel.span_processor import ProgressSpanProcessor
from otelprogress.otel.target import otlp_target
from tests.otel.events import ended, started
from tests.otel.otlp_server import HttpReceiver

set_tracer_provider_before_us = trace.set_tracer_provider
"""As `from opentelemetry.trace import set_tracer_provider` gives it to modules that are imported early."""


def test_operations_use_the_applications_provider(application, bind):
    trace.set_tracer_provider(application.tracers)
    opened = bind().open_span("import", attributes={"day": "monday"}, start_unix_ns=5)
    assert opened.recording
    assert opened.sampled
    opened.span.end()
    [span] = application.spans.get_finished_spans()
    assert (span.name, span.start_time, span.attributes) == ("import", 5, {"day": "monday"})
    assert span.instrumentation_scope.name == "otelprogress"
    assert (span.context.trace_id, span.context.span_id) == (opened.trace_id, opened.span_id)


@pytest.mark.parametrize("setter", [lambda p: trace.set_tracer_provider(p), set_tracer_provider_before_us])
def test_a_provider_that_comes_later_is_found_when_it_is_set(application, bind, setter):
    processor = ProgressSpanProcessor()
    binding = bind(span_processor=processor)
    private = binding.open_span("before")
    setter(application.tracers)
    assert processor in application.tracers._active_span_processor._span_processors
    opened = binding.open_span("after")
    opened.span.end()
    private.span.end()
    assert [span.name for span in application.spans.get_finished_spans()] == ["after"]


def test_we_never_set_a_global_provider(bind, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider")
    monkeypatch.setenv("OTEL_PYTHON_METER_PROVIDER", "sdk_meter_provider")
    binding = bind(span_processor=ProgressSpanProcessor(), log_processor=ProgressLogProcessor())
    binding.open_span("import").span.end()
    binding.poll()
    binding.providers()
    assert global_providers.tracer_provider() is None
    assert global_providers.logger_provider() is None
    assert global_providers.meter_provider() is None
    monkeypatch.delenv("OTEL_PYTHON_TRACER_PROVIDER")
    theirs = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(theirs)
    assert trace.get_tracer_provider() is theirs
    assert global_providers.meter_provider() is None  # theirs to set next
    assert caplog.records == []


def test_setting_a_provider_twice_warns_as_it_does_without_us(application, bind, caplog):
    bind()
    trace.set_tracer_provider(application.tracers)
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    assert "not allowed" in caplog.text
    assert trace.get_tracer_provider() is application.tracers


def test_after_shutdown_the_api_is_as_it_was(bind):
    before = trace._set_tracer_provider
    binding = bind()
    assert trace._set_tracer_provider is not before
    binding.shutdown()
    assert trace._set_tracer_provider is before


def test_a_hook_that_others_wrapped_stays_and_is_silent(application, bind, monkeypatch):
    binding = bind(span_processor=ProgressSpanProcessor())
    ours = trace._set_tracer_provider
    monkeypatch.setattr(trace, "_set_tracer_provider", lambda *args, **kwargs: ours(*args, **kwargs))
    binding.shutdown()
    trace.set_tracer_provider(application.tracers)
    assert trace.get_tracer_provider() is application.tracers


def test_a_log_provider_that_comes_later_is_found_too(application, bind):
    processor = ProgressLogProcessor()
    bind(log_processor=processor)
    logs_api.set_logger_provider(application.loggers)
    assert processor in application.loggers._multi_log_record_processor._log_record_processors


def test_processors_are_attached_once(application, bind):
    processor = ProgressSpanProcessor()
    binding = bind(span_processor=processor)
    trace.set_tracer_provider(application.tracers)
    binding.poll()
    assert binding.attach(application.tracers)
    assert application.tracers._active_span_processor._span_processors.count(processor) == 1


def test_a_provider_that_is_not_the_sdks_gives_spans_all_the_same(bind):
    class Theirs(trace.TracerProvider):
        def get_tracer(self, *_, **__):
            return trace.NoOpTracer()

    binding = bind(span_processor=ProgressSpanProcessor())
    assert not binding.attach(Theirs())
    trace.set_tracer_provider(Theirs())
    opened = binding.open_span("import")
    assert opened.trace_id
    assert opened.span_id
    assert not opened.recording


def test_parents_and_roots_are_told_apart(application, bind):
    trace.set_tracer_provider(application.tracers)
    binding = bind()
    with use_span(application.tracer.start_span("request")) as request:
        child = binding.open_span("import")
    root = binding.open_span("import")
    assert child.parent_span_id == request.get_span_context().span_id
    assert child.trace_id == request.get_span_context().trace_id
    assert root.parent_span_id == 0


def test_a_remote_parent_is_a_parent(bind):
    remote = NonRecordingSpan(SpanContext(11, 22, is_remote=True))
    opened = bind().open_span("import", parent=set_span_in_context(remote))
    assert (opened.trace_id, opened.parent_span_id) == (11, 22)


def test_an_unsampled_operation_has_the_ids_of_its_span(bind):
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False, sampler=ALWAYS_OFF))
    opened = bind().open_span("import")
    assert (opened.sampled, opened.recording) == (False, False)
    assert opened.span.get_span_context().span_id == opened.span_id != 0


def test_with_the_sdk_disabled_operations_have_random_ids_of_ours(bind, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    binding = bind()
    outer = binding.open_span("outer")
    with use_span(outer.span):
        inner = binding.open_span("inner")
    assert outer.trace_id == inner.trace_id != 0
    assert inner.parent_span_id == outer.span_id
    assert inner.span_id not in (0, outer.span_id)
    assert not inner.recording


def test_a_provider_that_raises_is_survived(bind):
    class Broken(TracerProvider):
        def get_tracer(self, *_, **__):
            raise RuntimeError("broken")

    binding = bind()
    trace.set_tracer_provider(Broken(shutdown_on_exit=False))
    opened = binding.open_span("import")
    assert opened.span_id
    assert binding.errors


def test_what_others_add_to_an_operations_span_is_a_note(application, bind, submitted):
    trace.set_tracer_provider(application.tracers)
    binding = bind(span_processor=ProgressSpanProcessor())
    opened = binding.open_span("import")
    with use_span(opened.span):
        trace.get_current_span().add_event("cache.miss")
    [note] = submitted
    assert (note.kind, note.message) == (semconv.OPERATION_NOTED, "cache.miss")


def test_notes_are_heard_on_unsampled_operations_too(bind, submitted):
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False, sampler=ALWAYS_OFF))
    opened = bind(span_processor=ProgressSpanProcessor()).open_span("import")
    opened.span.add_event("cache.miss")
    assert [(one.message, one.sampled) for one in submitted] == [("cache.miss", False)]


def test_an_operation_is_found_from_its_span_until_it_is_finished(application, bind):
    trace.set_tracer_provider(application.tracers)
    owner = object()
    opened = bind(span_processor=ProgressSpanProcessor()).open_span("import", owner=owner)
    with use_span(opened.span):
        assert REGISTRY.current().owner is owner
        ProgressEmitter([].append).finish(opened.span, SpanLedger())
        assert REGISTRY.current() is None


def test_a_span_is_adopted_once_and_its_end_is_heard_before_it_happens(application, bind):
    trace.set_tracer_provider(application.tracers)
    binding = bind(span_processor=ProgressSpanProcessor())
    span = application.tracer.start_span("theirs")
    emitter, ledger = ProgressEmitter([].append), SpanLedger(owned=False)

    def before_end() -> None:
        emitter.emit(ended(completed=3.0), span, ledger)
        emitter.finish(span, ledger)

    opened = binding.adopt(span, owner="me", before_end=before_end)
    assert opened.span is span
    assert binding.adopt(span) is None
    span.end()
    [seen] = application.spans.get_finished_spans()
    assert seen.attributes[semconv.ITEMS_COMPLETED] == 3.0
    assert REGISTRY.by_span_id == {}


def test_what_cannot_carry_an_operation_is_not_adopted(application, bind):
    binding = bind()
    span = application.tracer.start_span("over")
    span.end()
    assert binding.adopt(span) is None
    assert binding.adopt(INVALID_SPAN) is None
    assert "add_event" not in INVALID_SPAN.__dict__


def test_the_private_provider_exports_through_the_sender(bind):
    with HttpReceiver() as receiver:
        sender = sender_to(receiver.url)
        binding = bind(sender=sender, resource_attributes={"service.name": "etl"})
        opened = binding.open_span("import")
        opened.span.end()
        assert sender.flush(15)
        sender.shutdown(1)
        [span] = receiver.spans()
        assert span.name == "import"
        assert span.span_id.hex() == f"{opened.span_id:016x}"


def test_without_an_endpoint_the_private_provider_exports_nowhere(bind):
    binding = bind()
    binding.open_span("import").span.end()
    [report] = [one for one in binding.providers() if one.signal == "traces"]
    assert (report.origin, report.note) == ("private", "no endpoint: spans are not exported")


def sender_to(url: str) -> Sender:
    return Sender(otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": url}), resource={}, version="1")


# --- where our records go, once -------------------------------------------------------------------------------


def exporting_to(url: str, *more) -> LoggerProvider:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs")))
    for one in more:
        provider.add_log_record_processor(one)
    return provider


def test_without_a_logger_provider_there_is_no_logger(bind):
    assert bind().user_logger() is None


def test_a_pipeline_of_the_application_gets_our_records(application, bind):
    logs_api.set_logger_provider(application.loggers)
    binding = bind(log_processor=ProgressLogProcessor())
    ProgressEmitter([].append, user_logs=binding.user_logger).emit(started(), None, None)
    assert [one.event_name for one in application.records()] == [semconv.OPERATION_STARTED]


def test_a_provider_where_only_we_listen_gets_none(bind):
    logs_api.set_logger_provider(LoggerProvider(shutdown_on_exit=False))
    assert bind(log_processor=ProgressLogProcessor()).user_logger() is None


def test_an_exporter_that_comes_later_is_noticed(application, bind):
    provider = LoggerProvider(shutdown_on_exit=False)
    logs_api.set_logger_provider(provider)
    binding = bind(log_processor=ProgressLogProcessor())
    assert binding.user_logger() is None
    for one in application.loggers._multi_log_record_processor._log_record_processors:
        provider.add_log_record_processor(one)
    assert binding.user_logger() is not None


def test_records_for_one_place_are_sent_there_once(bind):
    with HttpReceiver() as receiver:
        provider = exporting_to(receiver.url)
        logs_api.set_logger_provider(provider)
        sender = sender_to(receiver.url)
        binding = bind(log_processor=ProgressLogProcessor(), sender=sender)
        ProgressEmitter(sender.submit, user_logs=binding.user_logger).emit(started(), None, None)
        provider.get_logger("app").emit(body="theirs")
        assert sender.flush(15)
        provider.force_flush()
        sender.shutdown(1)
        provider.shutdown()
        said = [one.event_name or one.body.string_value for one in receiver.log_records()]
        assert sorted(said) == [semconv.OPERATION_STARTED, "theirs"]


def test_records_for_two_places_reach_both_once(application, bind):
    with HttpReceiver() as receiver:
        provider = exporting_to(
            receiver.url, *application.loggers._multi_log_record_processor._log_record_processors
        )
        logs_api.set_logger_provider(provider)
        sender = sender_to(receiver.url)
        sender.writer_id = "writer"
        binding = bind(log_processor=ProgressLogProcessor(), sender=sender)
        ProgressEmitter(sender.submit, user_logs=binding.user_logger).emit(started(), None, None)
        assert sender.flush(15)
        provider.force_flush()
        sender.shutdown(1)
        provider.shutdown()
        assert [one.event_name for one in receiver.log_records()] == [semconv.OPERATION_STARTED]
        assert [one.event_name for one in application.records()] == [semconv.OPERATION_STARTED]


# --- the rest ---------------------------------------------------------------------------------------------------


def test_the_doctor_sees_providers_exporters_and_where_we_listen(application, bind):
    trace.set_tracer_provider(application.tracers)
    binding = bind(span_processor=ProgressSpanProcessor(), log_processor=ProgressLogProcessor())
    traces, logs, metrics = binding.providers()
    assert (traces.signal, traces.origin, traces.attached) == ("traces", "application", True)
    assert traces.exporters == ("InMemorySpanExporter",)
    assert (logs.origin, metrics.origin) == ("none", "none")


def test_the_doctor_sees_no_secret_of_an_endpoint(bind):
    provider = exporting_to("http://user:secret@127.0.0.1:9")
    logs_api.set_logger_provider(provider)
    [logs] = [one for one in bind(log_processor=ProgressLogProcessor()).providers() if one.signal == "logs"]
    assert logs.exporters == ("OTLPLogExporter to http://127.0.0.1:9/v1/logs",)
    provider.shutdown()


def test_the_resource_is_the_applications(application, bind):
    assert bind(resource_attributes={"service.name": "etl"}).resource()["service.name"] == "etl"
    trace.set_tracer_provider(application.tracers)
    assert bind().resource()["telemetry.sdk.name"] == "opentelemetry"


def test_a_forked_child_has_none_of_its_parents_operations(bind):
    binding = bind()
    before = binding.open_span("import")
    binding.reset_after_fork()
    assert REGISTRY.by_span_id == {}
    after = binding.open_span("import")
    assert after.span_id != before.span_id


def test_after_shutdown_operations_still_get_spans(bind, caplog):
    binding = bind(span_processor=ProgressSpanProcessor())
    binding.shutdown()
    assert binding.open_span("late").span_id
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
