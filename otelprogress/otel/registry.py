"""Which spans of this process are operations: looked up by span id, by every callback of the processors.

Own operations (`ProviderBinding.open_span`, `adopt`) and spans that a rule made operations stand here from
start to end. One process has one registry, because a span id is met in places that share nothing else: in a
processor, in a log record, in the current context.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any, Final, Literal

from opentelemetry.trace import Span, SpanContext, get_current_span

from otelprogress.model.events import run_id as make_run_id

Role = Literal["own", "rule"]
Children = Literal["steps", "operations", "ignore"]


class TrackedSpan:
    """One span that is an operation.

    Attributes:
        run_id: `<trace id>-<span id>` in hex.
        role: `own`: an operation of our API writes its events; `rule`: the span processor does.
        owner: whatever the opener left here (`operation.Operation`); `None` until it does.
        children: what child spans become.
        step_numbers: gives each child span that becomes a step its index, thread-safe.
    """

    __slots__ = ("__weakref__", "_span", "children", "owner", "role", "run_id", "sampled", "step_numbers", "trace_id")

    def __init__(self, span: Span, *, role: Role, children: Children = "ignore", owner: Any = None) -> None:
        context = span.get_span_context()
        self.run_id = make_run_id(context.trace_id, context.span_id)
        self.trace_id = context.trace_id
        self.sampled = context.trace_flags.sampled
        self.role: Role = role
        self.children: Children = children
        self.owner = owner
        self.step_numbers: Iterator[int] = itertools.count()
        # A span that is never ended (some frameworks leave them open) must not stay in memory because of us.
        self._span = weakref.ref(span)

    @property
    def span(self) -> Span | None:
        """The live span; `None` once it was collected."""
        return self._span()


class SpanRegistry:
    """Live operations by span id. Every method is one dict operation: no lock, safe from any thread."""

    def __init__(self) -> None:
        self.by_span_id: dict[int, TrackedSpan] = {}
        self._finalizers: dict[int, weakref.finalize[Any, Any]] = {}

    def add(self, tracked: TrackedSpan, span: Span) -> None:
        """Track `span` until `discard`, or until nobody holds the span any more."""
        span_id = span.get_span_context().span_id
        self.by_span_id[span_id] = tracked
        finalizer = weakref.finalize(span, self.by_span_id.pop, span_id, None)
        finalizer.atexit = False
        self._finalizers[span_id] = finalizer

    def discard(self, span_id: int) -> TrackedSpan | None:
        """Forget one span; `None`: it was not tracked."""
        finalizer = self._finalizers.pop(span_id, None)
        if finalizer is not None:
            finalizer.detach()
        return self.by_span_id.pop(span_id, None)

    def find(self, context: SpanContext) -> TrackedSpan | None:
        """The operation whose span has this context; `None`: no operation."""
        tracked = self.by_span_id.get(context.span_id)
        return tracked if tracked is not None and tracked.trace_id == context.trace_id else None

    def current(self) -> TrackedSpan | None:
        """The operation whose span is the current span of this context; `None`: the current span is none."""
        return self.find(get_current_span().get_span_context()) if self.by_span_id else None

    def clear(self) -> None:
        """Forget all: a forked child has none of its parent's operations."""
        for span_id in list(self._finalizers):
            self.discard(span_id)
        self.by_span_id.clear()


REGISTRY: Final = SpanRegistry()
"""The registry of this process."""
