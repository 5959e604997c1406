"""Hypothesis strategies for events, hostile texts included."""

from __future__ import annotations

from hypothesis import strategies as st

from otelprogress.model import semconv
from otelprogress.model.events import Event, Source, State, StepState, run_id

any_text = st.text(alphabet=st.characters(codec=None), max_size=40)
maybe_text = st.none() | any_text
whole = st.none() | st.integers(0, 2**62)
number = st.none() | st.floats(0, 1e15)
json_text = st.none() | st.sampled_from(
    ['{"rows":9}', "[1,2]", "null", '"x"', "{", "[" * 100, '{"a": 1}', '"\\ud800"']
)

run_ids = st.builds(run_id, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
scalars = any_text | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)

events = st.builds(
    Event,
    kind=st.sampled_from(sorted(semconv.DURABLE_EVENTS | {semconv.OPERATION_PROGRESSED})),
    run_id=run_ids,
    time_unix_ns=st.integers(0, 2**63 - 1),
    source=st.sampled_from([Source.LOG, Source.SPAN_EVENT]),
    tenant=st.sampled_from(["", "acme"]),
    writer_id=any_text,
    sequence=whole,
    lease_s=number,
    service=maybe_text,
    process_id=st.none() | st.integers(1, 2**31 - 1),
    name=maybe_text,
    title=maybe_text,
    label=maybe_text,
    parent_span_id=st.sampled_from([None, "", "00000000000000ab"]),
    start_unix_ns=whole,
    span_kind=st.sampled_from([None, "internal", "server"]),
    trace_state=maybe_text,
    sampled=st.booleans(),
    steps=st.none() | st.lists(any_text, max_size=4).map(tuple),
    step_weights=st.none() | st.lists(st.floats(0, 100), max_size=4).map(tuple),
    expected_children=whole,
    attempt=whole,
    weight=number,
    controls=st.none() | st.lists(any_text, max_size=3).map(tuple),
    stall_after_s=number,
    attributes=st.none() | st.dictionaries(any_text, scalars, max_size=4),
    step_name=maybe_text,
    step_index=whole,
    step_state=st.none() | st.sampled_from(StepState),
    completed=number,
    total=number,
    unit=maybe_text,
    initial=number,
    counters=st.none() | st.dictionaries(any_text, st.floats(0, 1e9), max_size=10),
    ratio=st.none() | st.floats(0, 1),
    ratio_source=st.sampled_from([None, "measured", "estimated"]),
    state=st.none() | st.sampled_from(State),
    stalled=st.none() | st.booleans(),
    message=maybe_text,
    level=st.sampled_from([None, "info", "warning", "error"]),
    error_type=maybe_text,
    error_message=maybe_text,
    error_stacktrace=maybe_text,
    result=json_text,
    lost_detector=st.sampled_from([None, "link", "pid"]),
    lost_evidence_unix_ns=whole,
    lost_cause=maybe_text,
    control_id=maybe_text,
    control_action=maybe_text,
    control_actor=maybe_text,
    control_reason=maybe_text,
    control_refusal=maybe_text,
    input_id=maybe_text,
    input_prompt=maybe_text,
    input_schema=json_text,
    input_default=maybe_text,
    input_deadline_unix_ns=whole,
    folded=whole,
)
