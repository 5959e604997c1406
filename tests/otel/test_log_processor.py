from __future__ import annotations

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import Logger, LoggerProvider, LogRecordProcessor
from opentelemetry.trace import use_span

from otelprogress.model import semconv
from otelprogress.model.events import Source, run_id
from otelprogress.model.rules import SpanRule
from otelprogress.otel.log_processor import ProgressLogProcessor
from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.span_processor import ProgressSpanProcessor


@pytest.fixture
def processor(application):
    made = ProgressLogProcessor()
    made.attach_to(application.loggers)
    application.tracers.add_span_processor(ProgressSpanProcessor([SpanRule("import *", children="steps")]))
    return made


@pytest.fixture
def logger(application, processor):
    return application.loggers.get_logger("app")


def notes(submitted) -> list:
    return [one for one in submitted if one.kind == semconv.OPERATION_NOTED]


def test_an_event_on_an_operations_span_is_a_note_at_once(application, logger, submitted):
    with application.tracer.start_as_current_span("import a") as span:
        logger.emit(event_name="cache.miss", body="key a", severity_number=SeverityNumber.WARN, timestamp=5)
        [note] = notes(submitted)
    ids = span.get_span_context()
    assert note.run_id == run_id(ids.trace_id, ids.span_id)
    assert (note.source, note.message, note.level, note.time_unix_ns) == (
        Source.FOREIGN,
        "key a",
        "warning",
        5,
    )


def test_an_event_on_a_steps_span_is_a_note_of_the_operation(application, logger, submitted):
    with (
        application.tracer.start_as_current_span("import a"),
        application.tracer.start_as_current_span("parse"),
    ):
        logger.emit(event_name="cache.miss")
    [note] = notes(submitted)
    assert note.run_id == submitted[0].run_id
    assert note.message == "cache.miss"
    assert note.time_unix_ns > 0


def test_plain_logging_is_no_note(application, logger, submitted):
    with application.tracer.start_as_current_span("import a"):
        logger.emit(body="plain")
    assert notes(submitted) == []


def test_events_outside_any_operation_are_left_alone(application, logger, submitted):
    logger.emit(event_name="cache.miss")
    with application.tracer.start_as_current_span("query"):
        logger.emit(event_name="cache.miss")
    assert submitted == []


def test_records_of_our_own_scope_are_ignored(application, processor, submitted):
    ours = application.loggers.get_logger("otelprogress")
    with application.tracer.start_as_current_span("import a"):
        ours.emit(event_name=semconv.STEP_STARTED, attributes={semconv.STEP_NAME: "load"})
        ours.emit(event_name="cache.miss")
    assert [one.kind for one in submitted] == [semconv.OPERATION_STARTED, semconv.OPERATION_ENDED]


def test_code_that_speaks_the_conventions_is_taken_at_its_word(application, logger, submitted):
    with use_span(application.tracer.start_span("hand made")):
        logger.emit(
            event_name=semconv.OPERATION_STARTED,
            attributes={semconv.OPERATION_NAME: "by hand", semconv.WRITER_ID: "theirs"},
            timestamp=5,
        )
    [event] = submitted
    assert (event.kind, event.name, event.writer_id, event.source) == (
        semconv.OPERATION_STARTED,
        "by hand",
        "theirs",
        Source.LOG,
    )
    assert event.service.startswith("unknown_service")


def test_a_record_that_breaks_the_conventions_is_counted(application, logger, processor, submitted):
    logger.emit(event_name="otelprogress.nonsense")
    assert submitted == []
    assert processor.errors == 1


def test_the_record_is_left_as_it_is(application, logger, submitted):
    with application.tracer.start_as_current_span("import a"):
        logger.emit(event_name="cache.miss", attributes={"key": "a"})
    [record] = application.records()
    assert record.attributes == {"key": "a"}


@pytest.mark.skipif(not hasattr(Logger, "enabled"), reason="this SDK has no Logger.enabled yet")
def test_it_makes_no_logger_enabled_that_nobody_else_wants(application, submitted):
    class Nobody(LogRecordProcessor):
        def on_emit(self, log_record):
            pass

        def enabled(self, **_):
            return False

        def shutdown(self):
            pass

        def force_flush(self, timeout_millis=0):
            return True

    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(Nobody())
    processor = ProgressLogProcessor()
    processor.attach_to(provider)
    application.tracers.add_span_processor(ProgressSpanProcessor([SpanRule("import *")]))
    logger = provider.get_logger("app")
    assert not logger.enabled(event_name="x")
    with application.tracer.start_as_current_span("import a"):
        assert not logger.enabled()
        assert logger.enabled(event_name="x")
    OUTLET.close()
    assert not processor.enabled(event_name="x")


def test_it_is_attached_once(application, processor):
    ProgressLogProcessor().attach_to(application.loggers)
    kinds = [type(one) for one in application.loggers._multi_log_record_processor._log_record_processors]
    assert kinds.count(ProgressLogProcessor) == 1


def test_a_failing_host_is_not_the_applications_trouble(application, logger, processor):
    OUTLET.open(lambda _: 1 / 0)
    with application.tracer.start_as_current_span("import a"):
        logger.emit(event_name="cache.miss")
    assert processor.errors == 1
    assert len(application.records()) == 1
