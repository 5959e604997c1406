"""Spans of existing instrumentation that a rule makes operations, seen from outside their process."""

from __future__ import annotations

import pytest

from otelprogress.model import semconv
from otelprogress.model.events import Source, State, StepState
from otelprogress.model.rules import RuleSet, SpanRule
from otelprogress.model.tree import OperationTree
from otelprogress_collector.receivers import span_rules
from otelprogress_collector.receivers.decoding import Decoder
from tests.collector.receivers.messages import START_NS, ASpan, Group, SpanEvent, a_run, request, sender

both = pytest.mark.parametrize("encoding", ["protobuf", "json"])
SECOND = 10**9


class Receiver:
    """A decoder before a real model: what it knows is what the model knows."""

    def __init__(self, encoding: str, *rules: SpanRule) -> None:
        self.encoding = encoding
        self.tree = OperationTree()
        self.now_ns = START_NS
        self._decoder = Decoder(lambda run_id, _: run_id in self.tree, rules=RuleSet(rules))

    def read(self, *spans: ASpan, scope: str = "flask"):
        body = request("traces", self.encoding, Group(list(spans), scope=scope))
        return self._decoder.decode("traces", body, self.encoding, sender())

    def take(self, *spans: ASpan):
        intake = self.read(*spans)
        for event in intake.events:
            self.tree.apply(event, self.now_ns)
        return intake

    def view(self, number: int = 1):
        return self.tree.view(a_run(number), self.now_ns + 100 * SECOND, steps=True)


def child(number: int, name: str, parent: int = 1, *, at_s: float = 0.0, **said) -> ASpan:
    start_ns = START_NS + int(at_s * SECOND)
    return ASpan(
        name,
        span_id=number,
        parent_span_id=parent,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + SECOND // 10,
        **said,
    )


@both
def test_a_span_that_a_rule_names_is_told_whole(encoding):
    receiver = Receiver(encoding, SpanRule("import *", title="Import of {db.namespace}"))
    intake = receiver.take(
        ASpan(
            attributes=[("db.namespace", "flights"), ("db.password", "x")],
            events=[SpanEvent("cache.miss"), SpanEvent("exception", [("exception.type", "KeyError")])],
            status_code=2,
            status_message="bad",
            parent_span_id=9,
            flags=0x300,
        )
    )
    started, first_note, second_note, ended = intake.events
    assert (started.kind, started.source, started.title) == (
        semconv.OPERATION_STARTED,
        Source.LOG,
        "Import of flights",
    )
    assert (started.parent_span_id, started.attributes) == (f"{9:016x}", {"db.namespace": "flights"})
    assert (first_note.message, second_note.message) == ("cache.miss", "KeyError")
    assert (ended.state, ended.error_type, ended.source) == (State.FAILED, "KeyError", Source.LOG)
    assert receiver.view().state is State.FAILED


@both
def test_other_spans_and_those_of_excluded_scopes_are_no_operations(encoding):
    receiver = Receiver(encoding, SpanRule("*"))
    assert receiver.read(ASpan(), scope="mcp-python-sdk").events == []
    assert receiver.read(ASpan(), scope="otelprogress").events == []
    assert Receiver(encoding, SpanRule("import *")).read(ASpan("GET /")).events == []


@both
def test_root_only_takes_a_remote_parent_for_none(encoding):
    receiver = Receiver(encoding, SpanRule("*", root_only=True))
    assert receiver.read(ASpan(parent_span_id=9, flags=0x300)).events
    assert not receiver.read(ASpan(parent_span_id=9, flags=0x100)).events
    assert not receiver.read(ASpan(parent_span_id=9)).events


@both
def test_a_span_that_has_not_ended_only_starts(encoding):
    receiver = Receiver(encoding, SpanRule("*"))
    assert [event.kind for event in receiver.take(ASpan(end_time_unix_nano=0)).events] == [
        semconv.OPERATION_STARTED
    ]


@both
def test_a_retry_changes_nothing(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    spans = [child(2, "extract"), ASpan()]
    receiver.take(*spans)
    before = receiver.view()
    receiver.take(*spans)
    after = receiver.view()
    assert (after.revision, after.state) == (before.revision, State.SUCCEEDED)


@both
def test_an_operation_that_speaks_for_itself_is_only_closed_by_its_span(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    from tests.collector.receivers.saying import started

    receiver.tree.apply(started(), START_NS)
    intake = receiver.read(child(2, "extract"), ASpan(events=[SpanEvent("cache.miss")]))
    assert [(event.kind, event.source) for event in intake.events] == [
        (semconv.OPERATION_ENDED, Source.SPAN_END)
    ]


@both
def test_children_of_the_same_request_become_steps_in_the_order_of_their_start(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    receiver.take(
        child(3, "load", at_s=2),
        child(2, "extract", at_s=1, status_code=2, status_message="no such file"),
        child(4, "inner", parent=3),
        ASpan(),
    )
    steps = receiver.view().steps
    assert [(step.name, step.state) for step in steps] == [
        ("extract", StepState.FAILED),
        ("load", StepState.SUCCEEDED),
    ]


@both
def test_children_of_earlier_requests_become_steps_too(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    assert receiver.take(child(2, "extract")).events == []
    assert receiver.take(child(3, "load", at_s=1)).events == []
    receiver.take(ASpan())
    assert [step.name for step in receiver.view().steps] == ["extract", "load"]


@both
def test_children_become_operations_where_the_rule_says_so(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="operations"))
    receiver.take(child(2, "extract", status_code=2), child(4, "inner", parent=2), ASpan())
    assert receiver.view(2).state is State.FAILED
    assert receiver.view(2).parent_id == a_run(1)
    assert receiver.view(4) is None


@both
def test_an_operation_hangs_below_the_nearest_one_past_ordinary_spans(encoding):
    receiver = Receiver(encoding, SpanRule("job *"))
    receiver.take(
        child(4, "job inner", parent=3),
        child(3, "http", parent=2),
        child(2, "middleware", parent=1),
        ASpan("job outer"),
    )
    assert receiver.view(4).parent_id == a_run(1)


@both
def test_a_circle_of_parents_ends(encoding):
    receiver = Receiver(encoding, SpanRule("job *"))
    receiver.take(child(4, "job inner", parent=2), child(2, "a", parent=3), child(3, "b", parent=2))
    assert receiver.view(4).parent_id is None


@both
def test_what_waits_for_a_parent_is_bounded(encoding, monkeypatch):
    monkeypatch.setattr(span_rules, "MAX_REMEMBERED", 10)
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    for number in range(2, 30):
        receiver.take(child(number, f"step {number}", parent=number + 1000))
    receiver.take(child(50, "extract"))
    receiver.take(ASpan())
    assert [step.name for step in receiver.view().steps] == ["extract"]
    spans = receiver._decoder._readers[encoding]._spans
    assert spans._waiting_count <= 10
    assert spans._waiting_count == sum(map(len, spans._waiting.values()))


@both
def test_the_bytes_of_what_waits_are_bounded(encoding, monkeypatch):
    monkeypatch.setattr(span_rules, "MAX_WAITING_BYTES", 4_000)
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    for number in range(2, 30):
        receiver.take(child(number, "x" * 1_000, parent=number + 1000))
    spans = receiver._decoder._readers[encoding]._spans
    assert 0 < spans._waiting_bytes <= 4_000


@both
def test_a_match_that_cannot_be_read_is_refused_alone(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    deep = [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]
    intake = receiver.take(ASpan(attributes=[("a", deep)]), ASpan(span_id=2))
    assert (intake.rejected, len(intake.events)) == (1, 2)


@both
def test_without_rules_no_span_is_remembered(encoding):
    receiver = Receiver(encoding)
    receiver.take(child(2, "extract"), ASpan())
    assert receiver._decoder._readers[encoding]._spans._waiting == {}
