"""The span that ends for a process that died, and what becomes of the true one."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otelprogress.model import semconv
from otelprogress.model.applied import AnnouncedSpan
from otelprogress.model.events import OperationView, State, StepState, StepView
from otelprogress_collector.monitor.closing_span import CLOSES, closing_request, spans_in, under_new_ids

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
RUN = f"{TRACE}-{SPAN}"
T0 = 1_700_000_000_000_000_000
S = 10**9
NEW_ID = b"\x01" * 8


def a_lost_run(**said) -> OperationView:
    said = {
        "steps": (
            StepView(
                name="extract",
                index=0,
                state=StepState.SUCCEEDED,
                started_at_unix_ns=T0,
                ended_at_unix_ns=T0 + 2 * S,
                completed=12.0,
            ),
            StepView(name="load", index=1, state=StepState.RUNNING, started_at_unix_ns=T0 + 2 * S),
        ),
        "step": StepView(
            name="load", index=1, completed=3.0, total=9.0, unit="{row}", counters={"rejected": 1.0}
        ),
        "ended_at_unix_ns": T0 + 5 * S,
        **said,
    }
    return OperationView(
        id=RUN,
        handle="nightly-1",
        name="nightly load",
        state=State.LOST,
        revision=7,
        as_of_unix_ns=T0 + 9 * S,
        started_at_unix_ns=T0,
        lost_detector="link",
        lost_evidence_unix_ns=T0 + 5 * S,
        lost_cause="the connection was reset",
        **said,
    )


def announced(**said) -> AnnouncedSpan:
    return AnnouncedSpan(**{"parent_span_id": "", "kind": None, "trace_state": None, "sampled": True, **said})


def the_span(request: bytes) -> Span:
    [spans] = ExportTraceServiceRequest.FromString(request).resource_spans
    [span] = spans.scope_spans[0].spans
    return span


def said_by(attributes) -> dict:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def test_it_has_the_ids_and_the_start_that_were_announced_and_ends_at_the_last_sign_of_life():
    span = the_span(
        closing_request(
            a_lost_run(),
            announced(parent_span_id="00000000000000aa", kind="server", trace_state="vendor=1"),
            resource={},
        )
    )
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (
        TRACE,
        SPAN,
        "00000000000000aa",
    )
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (T0, T0 + 5 * S)
    assert (span.kind, span.trace_state, span.flags & 1) == (Span.SPAN_KIND_SERVER, "vendor=1", 1)


def test_it_says_that_the_run_was_lost_and_who_said_so_and_how_far_it_was():
    span = the_span(closing_request(a_lost_run(), announced(), resource={}))
    assert (span.status.code, span.status.message) == (
        Status.STATUS_CODE_ERROR,
        "lost: the connection was reset",
    )
    said = said_by(span.attributes)
    assert said[semconv.OPERATION_STATE] == "lost"
    assert said[semconv.LOST_DETECTOR] == "link"
    assert (said[semconv.ITEMS_COMPLETED], said[semconv.ITEMS_TOTAL]) == (3.0, 9.0)
    assert said[semconv.COUNTER_PREFIX + "rejected"] == 1.0


def test_its_steps_are_span_events_in_order_and_an_open_one_has_no_end():
    span = the_span(closing_request(a_lost_run(), announced(), resource={}))
    assert [(event.name, said_by(event.attributes)[semconv.STEP_NAME]) for event in span.events] == [
        (semconv.STEP_STARTED, "extract"),
        (semconv.STEP_ENDED, "extract"),
        (semconv.STEP_STARTED, "load"),
    ]


def test_many_steps_keep_the_first_and_the_last_within_the_budget():
    steps = tuple(
        StepView(name=f"s{n}", index=n, started_at_unix_ns=T0 + n, state=StepState.RUNNING)
        for n in range(300)
    )
    span = the_span(closing_request(a_lost_run(steps=steps), announced(), resource={}))
    names = [said_by(event.attributes)[semconv.STEP_NAME] for event in span.events]
    assert (len(names), names[0], names[-1]) == (100, "s0", "s299")


def test_a_run_whose_last_sign_of_life_was_before_its_start_ends_at_the_start():
    span = the_span(closing_request(a_lost_run(ended_at_unix_ns=T0 - S), announced(), resource={}))
    assert span.end_time_unix_nano == span.start_time_unix_nano


def test_its_resource_is_that_of_the_process_that_died():
    request = closing_request(a_lost_run(), announced(), resource={"service.name": "etl", "process.pid": 42})
    [spans] = ExportTraceServiceRequest.FromString(request).resource_spans
    assert said_by(spans.resource.attributes) == {"service.name": "etl", "process.pid": 42}


# --- the true span ---------------------------------------------------------------------------------------------------


def true_request() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.spans.add(trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN), name="nightly load")
    scope.spans.add(
        trace_id=bytes.fromhex(TRACE), span_id=b"\x09" * 8, parent_span_id=bytes.fromhex(SPAN), name="child"
    )
    return request


def test_the_true_span_of_a_closed_run_goes_on_under_a_new_id_linked_to_the_closing_one():
    body = true_request().SerializeToString()
    assert spans_in(body, "protobuf", {RUN}) == [RUN]
    scope = (
        ExportTraceServiceRequest.FromString(under_new_ids(body, "protobuf", {RUN}, lambda: NEW_ID))
        .resource_spans[0]
        .scope_spans[0]
    )
    true, child = scope.spans
    assert (true.span_id, true.links[0].span_id.hex()) == (NEW_ID, SPAN)
    assert said_by(true.links[0].attributes) == {CLOSES: True}
    # Its children stand under the span that is there: the closing one.
    assert (child.span_id, child.parent_span_id.hex()) == (b"\x09" * 8, SPAN)


def test_the_same_in_json():
    document = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {"spans": [{"traceId": TRACE.upper(), "spanId": SPAN, "name": "n", "links": []}]}
                ]
            }
        ]
    }
    body = json.dumps(document).encode()
    assert spans_in(body, "json", {RUN}) == [RUN]
    revised = json.loads(under_new_ids(body, "json", {RUN}, lambda: NEW_ID))
    [span] = revised["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert (span["spanId"], span["links"][0]["spanId"]) == (NEW_ID.hex(), SPAN)


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize(
    "body", [b"", b"\xff\xff", b"[]", b"{", b'{"resourceSpans": 3}', b'{"resourceSpans": [7]}']
)
def test_what_cannot_be_read_holds_no_such_span(encoding, body):
    assert spans_in(body, encoding, {RUN}) == []
