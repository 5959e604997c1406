from __future__ import annotations

import msgspec
import pytest

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event, Source, State, StepState
from otelprogress.model.mapping import (
    child_step_ended,
    child_step_started,
    note_from_foreign,
    span_ended,
    span_started,
)
from otelprogress.model.rules import SpanFacts, SpanRule

RUN = f"{1:032x}-{2:016x}"
SPAN = SpanFacts(
    name="import flights",
    trace_id=1,
    span_id=2,
    root=True,
    start_unix_ns=10,
    attributes={"db.collection.name": "flights", "db.statement": "SELECT secret", "enduser.id": "anna"},
)
ENDED = msgspec.structs.replace(SPAN, end_unix_ns=20)


def with_status_error(**fields: object) -> SpanFacts:
    return msgspec.structs.replace(ENDED, status="error", **fields)


def test_a_span_that_starts_is_an_operation_that_starts() -> None:
    event = span_started(
        SPAN,
        SpanRule(title="import {db.collection.name}"),
        writer_id="w",
        lease_s=90,
        service="etl",
        process_id=7,
    )
    assert event == Event(
        kind=semconv.OPERATION_STARTED,
        run_id=RUN,
        time_unix_ns=10,
        writer_id="w",
        lease_s=90,
        service="etl",
        process_id=7,
        name="import flights",
        title="import flights",
        parent_span_id="",
        start_unix_ns=10,
        span_kind="internal",
        attributes={"db.collection.name": "flights"},
    )


def test_a_child_names_its_parent() -> None:
    assert (
        span_started(msgspec.structs.replace(SPAN, parent_span_id=171)).parent_span_id == "00000000000000ab"
    )


def test_a_span_that_ends_is_an_operation_that_succeeded() -> None:
    event = span_ended(ENDED)
    assert (event.kind, event.run_id, event.time_unix_ns, event.state) == (
        semconv.OPERATION_ENDED,
        RUN,
        20,
        State.SUCCEEDED,
    )
    assert event.source is Source.SPAN_END
    assert span_ended(ENDED, source=Source.LOG).source is Source.LOG


def test_an_error_status_is_a_failure_with_what_was_recorded() -> None:
    recorded = {
        "exception.type": "ValueError",
        "exception.message": "password=hunter2",
        "exception.stacktrace": "a\nb",
    }
    event = span_ended(with_status_error(status_description="bad", events=(("exception", 15, recorded),)))
    assert (event.state, event.error_type, event.error_message) == (
        State.FAILED,
        "ValueError",
        "password=[redacted]",
    )
    assert event.error_stacktrace == "a\nb"
    event = span_ended(with_status_error(status_description="bad"))
    assert (event.error_type, event.error_message) == (None, "bad")


def test_the_outcome_and_counts_that_stand_on_the_span_count() -> None:
    said = {
        "otelprogress.operation.state": "cancelled",
        "otelprogress.items.completed": 3,
        "otelprogress.items.total": "many",
        "otelprogress.items.unit": "{row}",
        "otelprogress.counter.rejected": 1,
    }
    event = span_ended(with_status_error(attributes=said))
    assert (event.state, event.completed, event.total, event.unit) == (State.CANCELLED, 3.0, None, "{row}")
    assert event.counters == {"rejected": 1.0}
    assert (
        span_ended(
            msgspec.structs.replace(ENDED, attributes={"otelprogress.operation.state": "running"})
        ).state
        is State.SUCCEEDED
    )


def test_an_end_before_the_start_is_moved_to_the_start() -> None:
    assert span_ended(msgspec.structs.replace(ENDED, end_unix_ns=1)).time_unix_ns == 10


def test_children_are_steps() -> None:
    started = child_step_started(RUN, SPAN, 0)
    assert (started.kind, started.run_id, started.step_name, started.step_index) == (
        semconv.STEP_STARTED,
        RUN,
        "import flights",
        0,
    )
    assert child_step_ended(RUN, ENDED, 0).step_state is StepState.SUCCEEDED
    failed = child_step_ended(RUN, with_status_error(status_description="bad\x1b[2J"), None)
    assert (failed.step_state, failed.message, failed.step_index) == (StepState.FAILED, "bad", None)


def test_what_existing_code_says_is_a_note() -> None:
    note = note_from_foreign(RUN, "cache miss", {"key": "x"}, 12)
    assert (note.kind, note.source, note.message, note.level) == (
        semconv.OPERATION_NOTED,
        Source.FOREIGN,
        "cache miss",
        None,
    )
    assert (
        note_from_foreign(RUN, "", None, 12, body="disk almost full", severity_number=13).message
        == "disk almost full"
    )
    assert note_from_foreign(RUN, "", None, 12, body={"a": 1}).message == "unnamed"
    note = note_from_foreign(RUN, "exception", {"exception.type": "KeyError", "exception.message": "'x'"}, 12)
    assert (note.message, note.level) == ("KeyError: 'x'", "error")


@pytest.mark.parametrize(("severity", "level"), [(9, None), (13, "warning"), (17, "error"), (24, "error")])
def test_the_severity_of_a_foreign_record_is_the_level(severity: int, level: str | None) -> None:
    assert note_from_foreign(RUN, "x", None, 12, severity_number=severity).level == level


def test_a_span_without_ids_or_end_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="no valid trace id"):
        span_started(msgspec.structs.replace(SPAN, trace_id=0))
    with pytest.raises(InvalidRecord, match="has not ended"):
        span_ended(SPAN)
