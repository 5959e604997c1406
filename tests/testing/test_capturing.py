from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

import otelprogress as progress
from otelprogress.otel.outlet import OUTLET
from otelprogress.testing.capturing import capture


@pytest.fixture
def tracer(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    return trace.get_tracer("existing")


def test_the_first_inner_span_is_adopted_and_its_events_are_notes(tracer):
    @progress.operation("report", adopt="inner")
    def report() -> str:
        with tracer.start_as_current_span("existing report") as span:
            span.add_event("cache is cold")
            return f"{span.get_span_context().span_id:016x}"

    with capture() as captured:
        span_id = report()
    operation = captured.one("report")
    assert operation.id.endswith(span_id)
    assert operation.outcome == "succeeded"
    assert operation.notes == ["cache is cold"]


def test_what_was_open_before_a_capture_is_open_after_it():
    heard: list = []
    OUTLET.open(heard.append, writer_id="before")
    try:
        with capture():
            assert OUTLET.writer_id != "before"
        assert (OUTLET.writer_id, OUTLET.submit) == ("before", heard.append)
    finally:
        OUTLET.close()
