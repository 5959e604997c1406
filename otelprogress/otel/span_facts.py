"""An SDK span as the plain facts that rules and the mapping look at."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from otelprogress.model.rules import SpanFacts

_KINDS: Final = {kind: kind.name.lower() for kind in SpanKind}
_STATUS: Final = {code: code.name.lower() for code in StatusCode}


def scope_of(span: Any) -> str:
    """The name of the instrumentation scope that opened the span; empty when it has none."""
    scope = span.instrumentation_scope
    return scope.name if scope is not None else ""


def facts_of(span: ReadableSpan, *, events: bool = False) -> SpanFacts:
    """The facts of a span that starts or has ended.

    Args:
        span: of the SDK.
        events: with what was recorded on it, for a span that has ended: an error's details stand there.
    """
    context, parent = span.context, span.parent
    return SpanFacts(
        name=span.name,
        scope=scope_of(span),
        kind=_KINDS[span.kind],
        attributes=dict(span.attributes or {}),
        trace_id=context.trace_id if context is not None else 0,
        span_id=context.span_id if context is not None else 0,
        parent_span_id=parent.span_id if parent is not None else None,
        root=parent is None or parent.is_remote,
        trace_state=context.trace_state.to_header() if context is not None and context.trace_state else "",
        sampled=context is None or context.trace_flags.sampled,
        start_unix_ns=span.start_time or 0,
        end_unix_ns=span.end_time,
        status=_STATUS[span.status.status_code],
        status_description=span.status.description,
        events=tuple((one.name, one.timestamp, one.attributes or {}) for one in span.events)
        if events
        else (),
    )
