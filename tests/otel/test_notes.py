from __future__ import annotations

import pytest
from opentelemetry import trace

from otelprogress.model import semconv
from otelprogress.model.events import Source
from otelprogress.model.rules import SpanRule
from otelprogress.otel import notes
from otelprogress.otel.emitter import ProgressEmitter, SpanLedger
from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.span_processor import ProgressSpanProcessor
from tests.otel.events import ended


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now_s = 100.0

        def monotonic(self) -> float:
            return self.now_s

        def time_ns(self) -> int:
            return int(self.now_s * 1e9)

    made = Clock()
    monkeypatch.setattr(notes, "time", made)
    return made


@pytest.fixture
def opened(application, bind):
    trace.set_tracer_provider(application.tracers)
    return bind(span_processor=ProgressSpanProcessor()).open_span("import")


def test_a_flood_of_events_becomes_few_notes_that_carry_its_count(opened, submitted, clock):
    for number in range(1000):
        opened.span.add_event(f"row {number}")
    assert len(submitted) == 200
    clock.now_s += 1.0
    opened.span.add_event("after a while")
    assert submitted[-1].message == "after a while"
    assert submitted[-1].folded == 800
    assert all(one.source is Source.FOREIGN for one in submitted)


def test_the_last_folded_note_comes_before_the_end(opened, submitted, clock):
    emitter = ProgressEmitter(OUTLET.submit)
    for number in range(300):
        opened.span.add_event(f"row {number}")
    emitter.emit(ended(), opened.span, SpanLedger())
    assert [one.kind for one in submitted[-2:]] == [semconv.OPERATION_NOTED, semconv.OPERATION_ENDED]
    assert (submitted[-2].message, submitted[-2].folded) == ("row 299", 99)


def test_a_rules_operation_says_its_last_folded_note_too(application, submitted, clock):
    application.tracers.add_span_processor(ProgressSpanProcessor([SpanRule("import *")]))
    with application.tracer.start_as_current_span("import a") as span:
        for number in range(300):
            span.add_event(f"row {number}")
    assert [one.kind for one in submitted[-2:]] == [semconv.OPERATION_NOTED, semconv.OPERATION_ENDED]
    assert sum(1 + (one.folded or 0) for one in submitted if one.kind == semconv.OPERATION_NOTED) == 300


def test_slow_events_are_all_notes(opened, submitted, clock):
    for number in range(500):
        clock.now_s += 0.06
        opened.span.add_event(f"row {number}")
    assert len(submitted) == 500
    assert not any(one.folded for one in submitted)
