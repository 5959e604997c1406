"""The span of a process that died, as OTLP: the ids and the start it announced, the end its last sign of life. Pure.

Also what becomes of the true span, should it arrive after all: one span id is never sent twice (a backend that has it
keeps both), so the true one goes on under a new id, linked to the one that closed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otelprogress.model import semconv
from otelprogress.model.applied import AnnouncedSpan
from otelprogress.model.events import OperationView, StepState, StepView
from otelprogress.otel.otlp_encode import key_values

_KINDS: Final = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
_SAMPLED: Final = 1
_MAX_STEP_EVENTS: Final = 100
"""As on every span of ours: the SDKs' default limit is 128, and the oldest go without a word."""
CLOSED_BY: Final = semconv.PREFIX + "span.closed_by"
"""On a closing span: that a collector ended it."""
CLOSES: Final = "otelprogress.closed_span"
"""On the link of a true span that came late: what it points to."""


def closing_request(view: OperationView, span: AnnouncedSpan, *, resource: Mapping[str, Any]) -> bytes:
    """The OTLP request that ends the span of a lost run.

    Args:
        view: of the lost run, with its steps.
        span: what its start announced.
        resource: of the process that died, as far as it is known.
    """
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add(resource=Resource(attributes=key_values(resource)))
    scope = spans.scope_spans.add(scope=InstrumentationScope(name=semconv.SCOPE_NAME))
    end_unix_ns = max(view.ended_at_unix_ns or 0, view.started_at_unix_ns)
    cause = view.lost_cause or "lost"
    scope.spans.append(
        Span(
            trace_id=bytes.fromhex(view.id[:32]),
            span_id=bytes.fromhex(view.id[33:]),
            parent_span_id=bytes.fromhex(span.parent_span_id) if span.parent_span_id else b"",
            trace_state=span.trace_state or "",
            flags=_SAMPLED,
            name=view.name,
            kind=_KINDS.get(span.kind or "", Span.SPAN_KIND_INTERNAL),
            start_time_unix_nano=view.started_at_unix_ns,
            end_time_unix_nano=end_unix_ns,
            attributes=key_values(_attributes(view)),
            events=_step_events(view, end_unix_ns),
            status=Status(code=Status.STATUS_CODE_ERROR, message=f"lost: {cause}"),
        )
    )
    return request.SerializeToString()


def _attributes(view: OperationView) -> dict[str, Any]:
    said: dict[str, Any] = {
        semconv.OPERATION_STATE: view.state.value,
        CLOSED_BY: "collector",
    }
    perhaps: dict[str, Any] = {
        semconv.OPERATION_ID: view.label,
        semconv.OPERATION_TITLE: view.title or None,
        semconv.OPERATION_RATIO: view.ratio,
        semconv.OPERATION_RATIO_SOURCE: view.ratio_source,
        semconv.LOST_DETECTOR: view.lost_detector,
        semconv.LOST_EVIDENCE_TIME: view.lost_evidence_unix_ns,
        semconv.LOST_CAUSE: view.lost_cause,
    }
    said |= {key: value for key, value in perhaps.items() if value is not None}
    if view.attempt > 1:
        said[semconv.OPERATION_ATTEMPT] = view.attempt
    if view.step is not None:
        said |= _counts(view.step)
    return said


def _counts(step: StepView) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if step.completed is not None:
        said[semconv.ITEMS_COMPLETED] = step.completed
    if step.total is not None:
        said[semconv.ITEMS_TOTAL] = step.total
    if step.unit is not None:
        said[semconv.ITEMS_UNIT] = step.unit
    return said | {semconv.COUNTER_PREFIX + name: count for name, count in step.counters.items()}


def _step_events(view: OperationView, end_unix_ns: int) -> list[Span.Event]:
    found: list[tuple[int, str, StepView]] = []
    for step in view.steps:
        if step.started_at_unix_ns is not None:
            found.append((step.started_at_unix_ns, semconv.STEP_STARTED, step))
        if step.ended_at_unix_ns is not None and step.state is not StepState.RUNNING:
            found.append((step.ended_at_unix_ns, semconv.STEP_ENDED, step))
    found.sort(key=lambda each: each[0])
    if len(found) > _MAX_STEP_EVENTS:
        half = _MAX_STEP_EVENTS // 2
        found = found[:half] + found[-half:]
    return [
        Span.Event(
            time_unix_nano=min(time_unix_ns, end_unix_ns),
            name=name,
            attributes=key_values(
                {semconv.STEP_NAME: step.name, semconv.STEP_INDEX: step.index}
                | (
                    {semconv.STEP_STATE: step.state.value} | _counts(step)
                    if name == semconv.STEP_ENDED
                    else {}
                )
            ),
        )
        for time_unix_ns, name, step in found
    ]


# --- the true span, after all -------------------------------------------------------------------------------------


def spans_in(body: bytes, encoding: str, wanted: Collection[str]) -> list[str]:
    """Which of these runs' spans a trace request holds; empty also for one that cannot be read."""
    if encoding == "protobuf":
        try:
            request = ExportTraceServiceRequest.FromString(body)
        except Exception:  # the receiver has judged it by then; protobuf has several errors, and none is ours
            return []
        return [
            run_id
            for spans in request.resource_spans
            for scope in spans.scope_spans
            for span in scope.spans
            if (run_id := f"{span.trace_id.hex()}-{span.span_id.hex()}") in wanted
        ]
    try:
        return [run_id for span in _json_spans(json.loads(body)) if (run_id := _json_run(span)) in wanted]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []


def under_new_ids(
    body: bytes, encoding: str, closed: Collection[str], new_span_id: Callable[[], bytes]
) -> bytes:
    """The same request, the spans of these runs under new ids, each linked to the span that closed it.

    Args:
        body: a request that `spans_in` has read.
        encoding: `protobuf` or `json`.
        closed: ids of the runs.
        new_span_id: 8 bytes, not all zero.
    """
    if encoding == "protobuf":
        request = ExportTraceServiceRequest.FromString(body)
        for spans in request.resource_spans:
            for scope in spans.scope_spans:
                for span in scope.spans:
                    if f"{span.trace_id.hex()}-{span.span_id.hex()}" in closed:
                        link = span.links.add(trace_id=span.trace_id, span_id=span.span_id)
                        link.attributes.extend(key_values({CLOSES: True}))
                        span.span_id = new_span_id()
        return request.SerializeToString()
    document = json.loads(body)
    for span in _json_spans(document):
        if _json_run(span) in closed:
            pointer = {
                "traceId": span["traceId"],
                "spanId": span["spanId"],
                "attributes": [{"key": CLOSES, "value": {"boolValue": True}}],
            }
            span["links"] = [*span.get("links", ()), pointer]
            span["spanId"] = new_span_id().hex()
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _json_spans(document: Any) -> list[Any]:
    return [
        span
        for spans in document.get("resourceSpans") or ()
        for scope in spans.get("scopeSpans") or ()
        for span in scope.get("spans") or ()
    ]


def _json_run(span: Any) -> str:
    return f"{str(span.get('traceId')).lower()}-{str(span.get('spanId')).lower()}"
