"""Which spans of this process are operations: looked up by span id, by every callback of the processors.

Own operations (`ProviderBinding.open_span`, `adopt`) and spans that a rule made operations stand here from
start to end. One process has one registry, because a span id is met in places that share nothing else: in a
processor, in a log record, in the current context.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry.trace import Span, SpanContext, get_current_span

from otelprogress.model.events import run_id as make_run_id
from otelprogress.model.rules import ChildrenBecome, SpanRule

if TYPE_CHECKING:
    from otelprogress.otel.notes import NoteGate

Role = Literal["own", "rule", "step"]


class TrackedSpan:
    """One span that is an operation, or a step of one.

    Attributes:
        run_id: `<trace id>-<span id>` in hex; of a step's span, its own.
        role: `own`: an operation of our API writes its events; `rule`: the span processor does; `step`: a child
            span that is a step of `operation`.
        owner: whatever the opener left here (`operation.Operation`); `None` until it does.
        rule: the rule that matched, for `rule`.
        operation: the operation, for `step`.
        step_index: from 0, for `step`.
        children: what child spans become.
        step_numbers: gives each child span that becomes a step its index, thread-safe.
        notes: the rate of its notes (`otel.notes`); `None` until the first one.
    """

    __slots__ = (
        "children",
        "notes",
        "operation",
        "owner",
        "reference",
        "role",
        "rule",
        "run_id",
        "sampled",
        "step_index",
        "step_numbers",
        "trace_id",
    )

    def __init__(
        self,
        span: Span,
        *,
        role: Role,
        owner: Any = None,
        rule: SpanRule | None = None,
        operation: TrackedSpan | None = None,
        step_index: int = 0,
    ) -> None:
        context = span.get_span_context()
        self.run_id = make_run_id(context.trace_id, context.span_id)
        self.trace_id = context.trace_id
        self.sampled = context.trace_flags.sampled
        self.role: Role = role
        self.owner = owner
        self.rule = rule
        self.operation = operation
        self.step_index = step_index
        self.children: ChildrenBecome = rule.children if rule is not None else "ignore"
        self.step_numbers: Iterator[int] = itertools.count()
        self.notes: NoteGate | None = None
        # Weak: a span that is never ended (some frameworks leave them open) must not stay in memory because of us.
        self.reference: weakref.ref[Span] = weakref.ref(span)

    @property
    def span(self) -> Span | None:
        """The live span; `None` once it was collected."""
        return self.reference()


class SpanRegistry:
    """Live operations and steps by span id. Every method is a few dict operations: no lock, safe from any thread."""

    def __init__(self) -> None:
        self.by_span_id: dict[int, TrackedSpan] = {}
        self.parents: dict[int, TrackedSpan] = {}
        """Those whose child spans become steps or operations; empty in most processes, which makes `on_start` fast."""

    def add(self, tracked: TrackedSpan, span: Span) -> None:
        """Track `span` until `discard`, or until nobody holds the span any more."""
        span_id = span.get_span_context().span_id
        tracked.reference = weakref.ref(span, lambda _: self.discard(span_id))
        self.by_span_id[span_id] = tracked
        if tracked.children != "ignore":
            self.parents[span_id] = tracked

    def discard(self, span_id: int) -> TrackedSpan | None:
        """Forget one span; `None`: it was not tracked."""
        self.parents.pop(span_id, None)
        return self.by_span_id.pop(span_id, None)

    def find(self, context: SpanContext) -> TrackedSpan | None:
        """The operation whose span, or whose step's span, has this context; `None`: no operation."""
        return self.operation_at(context.trace_id, context.span_id)

    def operation_at(self, trace_id: int, span_id: int) -> TrackedSpan | None:
        """As `find`, by the two ids."""
        tracked = self.by_span_id.get(span_id)
        if tracked is None or tracked.trace_id != trace_id:
            return None
        return tracked if tracked.operation is None else tracked.operation

    def current(self) -> TrackedSpan | None:
        """The operation whose span (or step's span) is current in this context; `None`: it is no operation's."""
        return self.find(get_current_span().get_span_context()) if self.by_span_id else None

    def clear(self) -> None:
        """Forget all: a forked child has none of its parent's operations."""
        for span_id in list(self.by_span_id):
            self.discard(span_id)


REGISTRY: Final = SpanRegistry()
"""The registry of this process."""
