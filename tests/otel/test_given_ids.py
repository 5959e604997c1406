from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otelprogress.otel.given_ids import with_ids

TRACE_ID, SPAN_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


def test_a_root_has_the_ids_that_were_settled_before_and_others_have_their_own(bind):
    binding = bind()
    opened = binding.open_span("job", given=(TRACE_ID, SPAN_ID), start_unix_ns=5)
    assert (opened.trace_id, opened.span_id, opened.span.start_time) == (TRACE_ID, SPAN_ID, 5)
    assert opened.recording
    assert binding.open_span("other").span_id != SPAN_ID


def test_below_a_parent_only_the_span_id_counts(bind):
    parent = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    opened = bind().open_span(
        "job", given=(0xABC, SPAN_ID), parent=set_span_in_context(NonRecordingSpan(parent))
    )
    assert (opened.trace_id, opened.span_id, opened.parent_span_id) == (0xABC, SPAN_ID, 0xDEF)


def test_a_disabled_sdk_keeps_them(bind, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    opened = bind().open_span("job", given=(TRACE_ID, SPAN_ID))
    assert (opened.trace_id, opened.span_id, opened.recording) == (TRACE_ID, SPAN_ID, False)


def test_the_application_s_tracer_is_left_as_it_is():
    tracer = TracerProvider().get_tracer("etl")
    with_ids(tracer, TRACE_ID, SPAN_ID)
    assert tracer.start_span("job").get_span_context().span_id != SPAN_ID


def test_a_tracer_that_is_not_the_sdk_s_is_used_as_it_is():
    tracer = trace.NoOpTracer()
    assert with_ids(tracer, TRACE_ID, SPAN_ID) is tracer
