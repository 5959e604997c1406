"""Spans of existing instrumentation that a rule makes operations, as far as they are seen from outside their process.

A stock SDK sends a span once it has ended, and the children of a span before it, often in earlier requests. So a
match is told whole when it comes: started, what its children were, ended. Where rules make steps or operations of
children, spans whose parent is not known wait for it, in a bounded memory: raw, read only when their parent comes.
A span that is seen while it is open (`foreign_spans`) starts its operation at once, and its children follow as they
end. No log events of ours will ever say it better, as they may of a span that carries our conventions: so a match is
a writer's own word (`Source.LOG`), for which no host waits.

What is remembered here only helps to recognise; it may be lost. Nothing is taken out when it is used: a request that
the host refuses comes again, and must be read the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import mapping
from otelprogress.model.events import Source
from otelprogress.model.rules import RuleSet, SpanFacts, SpanRule
from otelprogress_collector.receivers.origin import Origin
from otelprogress_collector.receivers.reading import Reading, check_ids

Key = tuple[str, str]
"""Tenant and run id."""

MAX_REMEMBERED: Final = 65_536
"""Matches whose children matter, and spans that wait for a parent: of each."""
MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
_MAX_CLIMB: Final = 64
_SLICE: Final = 128
_CHILD: Final = SpanRule()
"""What a child is that no rule names: an operation whose own children are nobody's."""


class SpanSketch(msgspec.Struct, gc=False):
    """What is needed of a span to know whether it matters."""

    key: Key
    parent: Key | None
    name: str
    origin: Origin
    facts: Callable[[], SpanFacts]
    """Reads all of it. Raises InvalidRecord."""
    size_bytes: int


class _Match(msgspec.Struct, gc=False):
    sketch: SpanSketch
    span: SpanFacts
    rule: SpanRule


class SpanRules:
    """The rules, and what is remembered between requests.

    Args:
        rules: which spans are operations; none: nothing of this module costs anything.
    """

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.active = bool(rules.rules)
        self._follows_children = any(rule.children != "ignore" for rule in rules.rules)
        self._ours: dict[Key, SpanRule] = {}
        """Operations that are operations only by a rule of ours: nobody else speaks for them."""
        self._waiting: dict[Key, dict[Key, SpanSketch]] = {}
        self._waiting_count = 0
        self._waiting_bytes = 0

    # --- spans that have ended --------------------------------------------------------------------------------

    def conclude(self, sketches: list[SpanSketch], reading: Reading) -> Iterator[None]:
        """Turn the spans of one request into events; pauses now and then, so that others get a turn.

        Args:
            sketches: all of the request's spans, but for those that speak for themselves.
            reading: of the request.
        """
        matches: dict[Key, _Match] = {}
        for count, sketch in enumerate(sketches, 1):
            if self.rules.candidates(sketch.name):
                match = self._match(sketch, reading)
                if match is not None:
                    matches[sketch.key] = match
            if not count % _SLICE:
                yield
        yield from self._tell(sketches, matches, reading)
        if self._follows_children:
            for sketch in sketches:
                if sketch.parent is not None and sketch.key not in matches:
                    self._let_wait(sketch.parent, sketch)

    def _match(self, sketch: SpanSketch, reading: Reading) -> _Match | None:
        try:
            span = sketch.facts()
            rule = self.rules.match(span)
            if rule is not None:
                check_ids(span)
                return _Match(sketch, span, rule)
        except InvalidRecord as error:
            reading.reject(str(error))
        return None

    def _tell(
        self, sketches: list[SpanSketch], matches: dict[Key, _Match], reading: Reading
    ) -> Iterator[None]:
        children: dict[Key, dict[Key, SpanSketch]] = {}
        for sketch in sketches if self._follows_children else ():
            parent = sketch.parent
            if (
                parent is not None
                and sketch.key not in matches
                and (parent in matches or parent in self._ours)
            ):
                children.setdefault(parent, {})[sketch.key] = sketch
        for parent, found in children.items():
            if parent not in matches:
                self._tell_children(parent, self._ours[parent], found, reading)
                yield
        parents = {sketch.key: sketch.parent for sketch in sketches} if matches else {}
        for key, match in matches.items():
            try:
                self._tell_match(match, children.get(key, {}), parents, matches, reading)
            except InvalidRecord as error:
                reading.reject(str(error))
            yield

    def _tell_match(
        self,
        match: _Match,
        children: dict[Key, SpanSketch],
        parents: dict[Key, Key | None],
        matches: dict[Key, _Match],
        reading: Reading,
    ) -> None:
        key, origin, rule = match.sketch.key, match.sketch.origin, match.rule
        span = self._below_an_operation(match, parents, matches, reading)
        heard = reading.knows(key[1], key[0])
        spoken_for = heard and key not in self._ours
        if not spoken_for:
            self.remember(key, rule)
        if not heard:
            reading.add(_started(span, rule, origin))
        if not spoken_for:
            self._tell_children(key, rule, {**self._waiting.get(key, {}), **children}, reading)
            reading.notes_of_span(origin, span)
        if span.end_unix_ns is not None:
            # Where somebody else speaks for it, its span's end is a hint only.
            source = Source.SPAN_END if spoken_for else Source.LOG
            reading.add(mapping.span_ended(span, tenant=origin.tenant, source=source))

    def _below_an_operation(
        self, match: _Match, parents: dict[Key, Key | None], matches: dict[Key, _Match], reading: Reading
    ) -> SpanFacts:
        """The span with the nearest operation above it as its parent, past ordinary spans of the same request."""
        above = match.sketch.parent
        for _ in range(_MAX_CLIMB):
            if above is None:
                break
            if above in matches or reading.knows(above[1], above[0]):
                return msgspec.structs.replace(match.span, parent_span_id=int(above[1][33:], 16))
            above = parents.get(above)
        return match.span

    def _tell_children(
        self, parent: Key, rule: SpanRule, children: dict[Key, SpanSketch], reading: Reading
    ) -> None:
        if rule.children == "ignore" or not children:
            return
        spans: list[tuple[SpanFacts, Origin]] = []
        for sketch in children.values():
            try:
                span = sketch.facts()
                check_ids(span)
            except InvalidRecord as error:
                reading.reject(str(error))
                continue
            spans.append((span, sketch.origin))
        spans.sort(key=lambda pair: pair[0].start_unix_ns)
        for span, origin in spans:
            if rule.children == "operations":
                reading.add(_started(span, _CHILD, origin))
                if span.end_unix_ns is not None:
                    reading.add(mapping.span_ended(span, tenant=origin.tenant, source=Source.LOG))
                continue
            said: dict[str, Any] = {"tenant": parent[0]}
            reading.add(msgspec.structs.replace(mapping.child_step_started(parent[1], span, None), **said))
            if span.end_unix_ns is not None:
                reading.add(msgspec.structs.replace(mapping.child_step_ended(parent[1], span, None), **said))

    # --- spans that are still open ----------------------------------------------------------------------------

    def open_span(
        self,
        span: SpanFacts,
        origin: Origin,
        reading: Reading,
        *,
        writer_id: str = "",
        lease_s: float | None = None,
    ) -> bool:
        """A span that was seen while it runs.

        Args:
            span: as it stands.
            origin: of its record.
            reading: of the request.
            writer_id: who promises to be heard about it; empty: nobody.
            lease_s: how often, in seconds.

        Returns:
            Whether it is an operation.

        Raises:
            InvalidRecord: no valid ids.
        """
        check_ids(span)
        key = (origin.tenant, _run_id(span.trace_id, span.span_id))
        rule = self.rules.match(span)
        if rule is None and span.parent_span_id:
            parent = (origin.tenant, _run_id(span.trace_id, span.parent_span_id))
            above = self._ours.get(parent)
            if above is not None and above.children == "steps":
                reading.add(
                    msgspec.structs.replace(
                        mapping.child_step_started(parent[1], span, None), tenant=parent[0]
                    )
                )
            elif above is not None and above.children == "operations":
                rule = _CHILD
        if rule is None:
            return False
        if not reading.knows(key[1], key[0]):
            self.remember(key, rule)
            reading.add(_started(span, rule, origin, writer_id=writer_id, lease_s=lease_s))
        return True

    def stopped_span(self, span: SpanFacts, origin: Origin, reading: Reading) -> None:
        """The last word of a span that was seen while it ran: it has ended now.

        Raises:
            InvalidRecord: no valid ids.
        """
        check_ids(span)
        if span.end_unix_ns is None:
            return
        key = (origin.tenant, _run_id(span.trace_id, span.span_id))
        if key in self._ours or self.rules.match(span) is not None:
            reading.add(mapping.span_ended(span, tenant=origin.tenant, source=Source.LOG))
        elif span.parent_span_id:
            parent = (origin.tenant, _run_id(span.trace_id, span.parent_span_id))
            above = self._ours.get(parent)
            if above is not None and above.children == "steps":
                reading.add(
                    msgspec.structs.replace(mapping.child_step_ended(parent[1], span, None), tenant=parent[0])
                )

    # --- memory -------------------------------------------------------------------------------------------------

    def remember(self, key: Key, rule: SpanRule) -> None:
        """That span is an operation by a rule of ours."""
        self._ours.pop(key, None)
        self._ours[key] = rule
        if len(self._ours) > MAX_REMEMBERED:
            del self._ours[next(iter(self._ours))]

    def _let_wait(self, parent: Key, sketch: SpanSketch) -> None:
        siblings = self._waiting.setdefault(parent, {})
        if sketch.key in siblings:
            return
        siblings[sketch.key] = sketch
        self._waiting_count += 1
        self._waiting_bytes += sketch.size_bytes
        while self._waiting_count > MAX_REMEMBERED or self._waiting_bytes > MAX_WAITING_BYTES:
            gone = self._waiting.pop(next(iter(self._waiting)))
            self._waiting_count -= len(gone)
            self._waiting_bytes -= sum(one.size_bytes for one in gone.values())


def _started(
    span: SpanFacts,
    rule: SpanRule,
    origin: Origin,
    *,
    writer_id: str = "",
    lease_s: float | None = None,
) -> Any:
    return mapping.span_started(
        span,
        rule,
        writer_id=writer_id,
        lease_s=lease_s,
        service=origin.said.get("service"),
        process_id=origin.said.get("process_id"),
        tenant=origin.tenant,
    )


def _run_id(trace_id: int, span_id: int) -> str:
    return f"{trace_id:032x}-{span_id:016x}"
