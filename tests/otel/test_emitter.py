from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, StatusCode

from otelprogress.model import semconv
from otelprogress.model.events import State, run_id
from otelprogress.otel import span_tap
from otelprogress.otel.emitter import ProgressEmitter, SpanLedger
from tests.otel.events import ended, event, started, step_ended, step_started


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


def a_span(exporter, limits: SpanLimits | None = None, name: str = "import flights"):
    provider = TracerProvider(shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("otelprogress").start_span(name)


def run(exporter, events, *, limits=None, budget=100, owned=True):
    """Emit `events` on one span to its end; the ended span."""
    span, ledger = a_span(exporter, limits), SpanLedger(owned=owned)
    emitter = ProgressEmitter([].append, span_event_budget=budget)
    for one in events:
        emitter.emit(one, span, ledger)
    emitter.finish(span, ledger)
    span.end()
    assert emitter.stats.span_errors == 0
    return exporter.get_finished_spans()[0]


def steps(count: int) -> list:
    return [made for index in range(count) for made in (step_started(index), step_ended(index))]


def test_each_event_is_submitted_once_and_as_it_is(exporter):
    submitted = []
    emitter = ProgressEmitter(submitted.append)
    span, ledger = a_span(exporter), SpanLedger()
    said = [started(), *steps(2), ended()]
    for one in said:
        emitter.emit(one, span, ledger)
    assert submitted == said


def test_steps_stand_on_the_span_as_events_of_the_same_name_and_time(exporter):
    span = run(exporter, [started(), *steps(2), ended()])
    assert [one.name for one in span.events] == [
        semconv.STEP_STARTED,
        semconv.STEP_ENDED,
        semconv.STEP_STARTED,
        semconv.STEP_ENDED,
        semconv.OPERATION_ENDED,
    ]
    assert [one.timestamp for one in span.events] == [one.time_unix_ns for one in [*steps(2), ended()]]
    assert span.events[0].attributes == {
        semconv.STEP_NAME: "step 0",
        semconv.STEP_INDEX: 0,
        semconv.STEP_STATE: "running",
    }


def test_the_plan_stands_on_the_span_from_its_start(exporter):
    span = run(exporter, [started(label="job-7", steps=("a", "b"), step_weights=(1.0, 2.0), attempt=2)])
    assert span.attributes == {
        semconv.OPERATION_ID: "job-7",
        semconv.OPERATION_STEPS: ("a", "b"),
        semconv.OPERATION_STEP_WEIGHTS: (1.0, 2.0),
        semconv.OPERATION_ATTEMPT: 2,
    }


def test_the_end_stands_on_the_span_as_attributes(exporter):
    span = run(
        exporter, [started(), ended(completed=9.0, total=9.0, unit="{row}", counters={"rejected": 2.0})]
    )
    assert span.attributes == {
        semconv.OPERATION_STATE: "succeeded",
        semconv.ITEMS_COMPLETED: 9.0,
        semconv.ITEMS_TOTAL: 9.0,
        semconv.ITEMS_UNIT: "{row}",
        semconv.COUNTER_PREFIX + "rejected": 2.0,
    }
    assert span.status.status_code is StatusCode.UNSET


def failure():
    return ended(
        state=State.FAILED, error_type="ValueError", error_message="no date", error_stacktrace="Traceback"
    )


def test_a_failure_gives_the_span_its_status_and_an_exception_event(exporter):
    span = run(exporter, [started(), failure()])
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no date")
    assert span.attributes[semconv.ERROR_TYPE] == "ValueError"
    [recorded] = [one for one in span.events if one.name == "exception"]
    assert recorded.attributes == {
        semconv.EXCEPTION_TYPE: "ValueError",
        semconv.EXCEPTION_MESSAGE: "no date",
        semconv.EXCEPTION_STACKTRACE: "Traceback",
    }


def test_a_cancelled_operation_is_no_error(exporter):
    assert run(exporter, [started(), ended(state=State.CANCELLED)]).status.status_code is StatusCode.UNSET


def test_an_adopted_span_keeps_the_status_that_its_opener_gives_it(exporter):
    span = run(exporter, [started(), failure()], owned=False)
    assert span.status.status_code is StatusCode.UNSET
    assert "exception" not in [one.name for one in span.events]
    assert span.attributes[semconv.OPERATION_STATE] == "failed"


@pytest.mark.parametrize("count", [10, 49, 50, 60, 500])
def test_ten_times_too_many_steps_leave_the_first_and_the_last_in_time_order(exporter, count):
    span = run(exporter, [started(), *steps(count), ended()])
    assert len(span.events) <= 100
    assert span.dropped_events == 0
    times = [one.timestamp for one in span.events]
    assert times == sorted(times)
    assert span.events[0].attributes[semconv.STEP_INDEX] == 0
    assert span.events[-2].attributes[semconv.STEP_INDEX] == count - 1
    assert span.events[-1].name == semconv.OPERATION_ENDED
    folded = [one for one in span.events if one.name == semconv.STEPS_FOLDED]
    kept = sum(one.name in (semconv.STEP_STARTED, semconv.STEP_ENDED) for one in span.events)
    if kept < 2 * count:
        assert folded[0].attributes == {semconv.STEP_FOLDED: 2 * count - kept}
        assert span.attributes[semconv.STEP_FOLDED] == 2 * count - kept
    else:
        assert folded == []


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 8, 20])
def test_a_span_with_a_tight_limit_loses_none_of_the_events_kept_for_it(exporter, limit):
    span = run(exporter, [started(), *steps(60), ended()], limits=SpanLimits(max_events=limit))
    assert len(span.events) <= limit
    if limit >= 3:
        assert span.dropped_events == 0
        assert span.events[-1].name == semconv.OPERATION_ENDED


def test_what_comes_after_the_end_is_submitted_and_left_off_the_span(exporter):
    submitted = []
    emitter = ProgressEmitter(submitted.append)
    span, ledger = a_span(exporter), SpanLedger()
    emitter.emit(ended(), span, ledger)
    emitter.emit(step_started(1), span, ledger)
    emitter.finish(span, ledger)
    emitter.finish(span, ledger)
    span.end()
    assert len(submitted) == 2
    assert [one.name for one in exporter.get_finished_spans()[0].events] == [semconv.OPERATION_ENDED]


def test_an_ended_span_is_not_written_to(exporter, caplog):
    emitter = ProgressEmitter([].append)
    span, ledger = a_span(exporter), SpanLedger()
    for one in steps(60):
        emitter.emit(one, span, ledger)
    span.end()
    emitter.emit(ended(), span, ledger)
    emitter.finish(span, ledger)
    assert caplog.records == []


def test_without_a_span_events_still_flow():
    submitted = []
    emitter = ProgressEmitter(submitted.append)
    emitter.emit(started(), None, None)
    emitter.emit(step_started(0), INVALID_SPAN, SpanLedger())
    emitter.finish(None, None)
    assert len(submitted) == 2


def test_nothing_that_fails_inside_reaches_the_application(exporter):
    class Broken:
        def __call__(self, *_):
            raise RuntimeError("broken")

    span, ledger = a_span(exporter), SpanLedger()
    span.add_event = Broken()
    emitter = ProgressEmitter(Broken(), user_logs=Broken())
    emitter.emit(step_started(0), span, ledger)
    emitter.finish(span, ledger)
    assert (emitter.stats.span_errors, emitter.stats.user_log_errors, emitter.stats.submit_errors) == (
        1,
        1,
        1,
    )


def test_our_own_span_events_do_not_come_back_through_the_tap(exporter):
    heard = []
    span, ledger = a_span(exporter), SpanLedger()
    span_tap.tap(span, lambda *said: heard.append(said))
    emitter = ProgressEmitter([].append)
    for one in (started(), *steps(60), failure()):
        emitter.emit(one, span, ledger)
    emitter.finish(span, ledger)
    assert heard == []


def test_records_go_to_the_applications_logger_in_the_spans_context(exporter, application):
    emitter = ProgressEmitter([].append, user_logs=lambda: application.loggers.get_logger("otelprogress"))
    span, ledger = a_span(exporter), SpanLedger()
    ids = span.get_span_context()
    emitter.emit(started(), span, ledger)
    emitter.emit(event(semconv.OPERATION_NOTED, message="slow disk", level="warning"), span, ledger)
    emitter.emit(failure(), span, ledger)
    said = [(one.event_name, one.severity_text, one.body) for one in application.records()]
    assert said == [
        (semconv.OPERATION_STARTED, "INFO", "operation.started import flights"),
        (semconv.OPERATION_NOTED, "WARN", "slow disk"),
        (semconv.OPERATION_ENDED, "ERROR", "operation.ended"),
    ]
    first = application.records()[0]
    assert (first.trace_id, first.span_id, first.timestamp) == (
        ids.trace_id,
        ids.span_id,
        started().time_unix_ns,
    )
    assert first.attributes[semconv.OPERATION_NAME] == "import flights"


def test_without_a_span_the_record_still_carries_the_events_ids(application):
    emitter = ProgressEmitter([].append, user_logs=lambda: application.loggers.get_logger("otelprogress"))
    emitter.emit(started(), None, None)
    [record] = application.records()
    assert run_id(record.trace_id, record.span_id) == started().run_id


def test_an_event_that_another_thread_holds_back_at_the_end_costs_the_span_nothing(exporter):
    span, ledger = a_span(exporter), SpanLedger()
    emitter = ProgressEmitter([].append, span_event_budget=10)
    for one in [started(), *steps(20)]:
        emitter.emit(one, span, ledger)
    held, add_event = ledger.held, span.add_event

    def add_while_another_thread_holds_back(*said: object) -> None:
        held.append(step_started(99))
        add_event(*said)

    span.add_event = add_while_another_thread_holds_back
    emitter.emit(ended(state=State.FAILED, error_type="ValueError"), span, ledger)
    del span.add_event
    span.end()
    assert emitter.stats.span_errors == 0
    assert span.events[-1].name == semconv.OPERATION_ENDED
    assert span.status.status_code is StatusCode.ERROR
