"""Spans of existing instrumentation that a rule makes operations, seen while they run.

``provider.add_span_processor(ProgressSpanProcessor(rules=[SpanRule(name="import *", children="steps")]))`` works
before or after `configure()`, which otherwise attaches a processor of its own. What an SDK processor cannot
see: a span that the sampler dropped (make `AlwaysRecordSampler` the outermost sampler for that), a span that
started before the processor was added, anything between start and end but events (`span_tap`).

`children="steps"` makes each direct child span a step, `"operations"` an operation of its own; what those
open is nobody's, unless a rule matches it.

**Adopting the first span that a function opens** (`@operation(adopt="inner")`)::

    claim = claim_next_span(on_span)   # this context only: the thread, the task and what it starts
    try:
        function()
    finally:
        claim.release()                # a second release, and one after the claim was taken, do nothing

`on_span(span)` is called once, on the thread that starts it, with the first recording span that is not ours;
it usually calls `ProviderBinding.adopt`. `claim.taken` says afterwards whether there was one. A rule that
matches the same span goes second: an adopted span is tracked already.

Every callback counts what goes wrong inside and returns; none waits, takes a span's lock, or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Span as ApiSpan

from otelprogress.model import mapping, semconv
from otelprogress.model.events import Source
from otelprogress.model.rules import RuleSet, SpanFacts, SpanRule
from otelprogress.otel import span_tap
from otelprogress.otel.notes import flush_notes, note
from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.registry import REGISTRY, TrackedSpan
from otelprogress.otel.span_facts import facts_of, scope_of

_TRACKED: Final = REGISTRY.by_span_id
_PARENTS: Final = REGISTRY.parents
_MAX_UNNAMED: Final = 4096


class Claim:
    """The right to the next span of this context; see `claim_next_span`."""

    __slots__ = ("_on_span", "_token", "taken")

    def __init__(self, on_span: Callable[[ApiSpan], object]) -> None:
        self._on_span: Callable[[ApiSpan], object] | None = on_span
        self.taken = False
        """Whether a span came."""
        self._token: Token[Claim | None] | None = _CLAIM.set(self)
        _OPEN_CLAIMS.add(self)

    def offer(self, span: ApiSpan) -> None:
        """Take the span, if none was taken and the claim was not released."""
        on_span, self._on_span = self._on_span, None
        if on_span is not None:
            self.taken = True
            _OPEN_CLAIMS.discard(self)
            on_span(span)

    def release(self) -> None:
        """Claim nothing any more. Call it in the context of `claim_next_span`."""
        self._on_span = None
        _OPEN_CLAIMS.discard(self)
        token, self._token = self._token, None
        if token is not None:
            try:
                _CLAIM.reset(token)
            except (
                ValueError
            ):  # released in another context: what is left there finds a claim that takes nothing
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


_CLAIM: Final[ContextVar[Claim | None]] = ContextVar("otelprogress-claim", default=None)
_OPEN_CLAIMS: Final[set[Claim]] = set()
"""Not empty: a claim is open somewhere in this process. A look at it is cheaper than at the context variable."""


def claim_next_span(on_span: Callable[[ApiSpan], object]) -> Claim:
    """Give the next recording span that starts in this context, and is not ours, to `on_span`; see the module."""
    return Claim(on_span)


class ProgressSpanProcessor(SpanProcessor):
    """See the module.

    Args:
        rules: which spans are operations; none: only spans that are claimed or adopted are looked at.
    """

    def __init__(self, rules: Iterable[SpanRule] = ()) -> None:
        self.rules = RuleSet(rules)
        self.errors = 0
        """Callbacks that went wrong inside."""
        self.seen = 0
        """Spans that a rule made operations: 0 is `doctor`'s hint that the rules match nothing."""
        self._has_rules = bool(self.rules.rules)
        self._unnamed: set[str] = set()
        """Names that no rule could match, met before: the way out for nearly every span of a process."""
        self._stopped = False

    # --- set-up -------------------------------------------------------------------------------------------

    bind = staticmethod(OUTLET.open)
    """Open the outlet of every processor of this process, also of those that the application made."""
    unbind = staticmethod(OUTLET.close)
    """Close it: all processors fall silent."""

    def attach_to(self, provider: Any) -> None:
        """Add this processor to an SDK TracerProvider, unless one of the application's own does its work there."""
        for other in span_tap.processors_of(provider):
            if other is self or (isinstance(other, ProgressSpanProcessor) and not self._has_rules):
                return
        provider.add_span_processor(self)

    # --- callbacks of the SDK -------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See `SpanProcessor.on_start`."""
        try:
            if _OPEN_CLAIMS:
                self._offer(span)
            if _PARENTS:
                parent = span.parent
                if parent is not None and (above := _PARENTS.get(parent.span_id)) is not None:
                    self._start_child(span, above, parent_context)
                    return
            if self._has_rules and span.name not in self._unnamed:
                self._start_if_matched(span, parent_context)
        except Exception:
            self.errors += 1

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor.on_end`. Called after the provider's shutdown too: what started is still ended."""
        try:
            if _TRACKED and (context := span.context) is not None and context.span_id in _TRACKED:
                self._end(span, context.span_id)
        except Exception:
            self.errors += 1

    def shutdown(self) -> None:
        """See `SpanProcessor.shutdown`. Spans that start afterwards are not looked at."""
        self._stopped = True

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True

    # --- what happens to a span that is one of ours -----------------------------------------------------------

    def _offer(self, span: Span) -> None:
        claim = _CLAIM.get()
        if claim is not None and scope_of(span) != semconv.SCOPE_NAME:
            claim.offer(span)

    def _start_if_matched(self, span: Span, context: Context | None) -> None:
        if not self.rules.candidates(span.name):
            if len(self._unnamed) >= _MAX_UNNAMED:  # names with ids in them: start again
                self._unnamed.clear()
            self._unnamed.add(span.name)
            return
        if OUTLET.submit is None or self._stopped:
            return
        facts = facts_of(span)
        rule = self.rules.match(facts)
        if rule is None or facts.span_id in REGISTRY.by_span_id:
            return
        self._start_operation(span, facts, rule, context)

    def _start_operation(self, span: Span, facts: SpanFacts, rule: SpanRule, context: Context | None) -> None:
        self.seen += 1
        if not facts.root and REGISTRY.operation_at(facts.trace_id, facts.parent_span_id or 0) is None:
            # Its parent is an ordinary span. The tree of operations passes over those.
            around = OUTLET.enclosing(context) if OUTLET.enclosing is not None else None
            facts = msgspec.structs.replace(facts, parent_span_id=around)
        tracked = TrackedSpan(span, role="rule", rule=rule)
        REGISTRY.add(tracked, span)
        OUTLET.put(mapping.span_started(facts, rule), sampled=tracked.sampled)
        self.hear_events_of(tracked, span)

    def _start_child(self, span: Span, above: TrackedSpan, context: Context | None) -> None:
        facts = facts_of(span)
        if OUTLET.submit is None or facts.scope == semconv.SCOPE_NAME or facts.span_id in REGISTRY.by_span_id:
            return
        if above.children == "operations":
            self._start_operation(span, facts, self.rules.match(facts) or _CHILD, context)
            return
        tracked = TrackedSpan(span, role="step", operation=above, step_index=next(above.step_numbers))
        REGISTRY.add(tracked, span)
        OUTLET.put(mapping.child_step_started(above.run_id, facts, tracked.step_index), sampled=above.sampled)
        self.hear_events_of(above, span)

    def _end(self, span: ReadableSpan, span_id: int) -> None:
        tracked = REGISTRY.by_span_id[span_id]
        live = tracked.span
        REGISTRY.discard(span_id)
        if live is not None:
            span_tap.untap(live)
        if tracked.role == "rule":
            flush_notes(tracked)
            # Nobody else speaks for this operation: its span's end is the word itself, not a hint.
            OUTLET.put(
                mapping.span_ended(facts_of(span, events=True), source=Source.LOG),
                sampled=tracked.sampled,
            )
        elif tracked.role == "step" and tracked.operation is not None:
            operation = tracked.operation
            OUTLET.put(
                mapping.child_step_ended(operation.run_id, facts_of(span), tracked.step_index),
                sampled=operation.sampled,
            )

    def hear_events_of(self, tracked: TrackedSpan, span: ApiSpan) -> None:
        """Turn what others add to `span` (`add_event`, `record_exception`) into notes of `tracked`, at once."""

        def on_event(name: str, attributes: Mapping[str, Any] | None, time_unix_ns: int | None) -> None:
            try:
                note(tracked, name, attributes, time_unix_ns)
            except Exception:
                self.errors += 1

        span_tap.tap(span, on_event)


_CHILD: Final = SpanRule()
"""What a child is that no rule names: an operation whose own children are nobody's."""
