"""Spans that others show while they are open: Logfire's pending spans and partial-span heartbeat logs."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf.json_format import MessageToDict

from otelprogress.model import semconv
from otelprogress.model.events import Source, State, StepState
from otelprogress.model.rules import RuleSet, SpanRule
from otelprogress.model.tree import OperationTree
from otelprogress_collector.receivers.decoding import Decoder
from otelprogress_collector.receivers.foreign_spans import lease_of
from tests.collector.receivers.messages import (
    REQUESTS,
    START_NS,
    ASpan,
    Group,
    Log,
    a_run,
    protobuf,
    request,
    sender,
)

both = pytest.mark.parametrize("encoding", ["protobuf", "json"])
SECOND = 10**9


class Receiver:
    def __init__(self, encoding: str, *rules: SpanRule) -> None:
        self.encoding = encoding
        self.tree = OperationTree()
        self._decoder = Decoder(lambda run_id, _: run_id in self.tree, rules=RuleSet(rules))

    def take(self, signal: str, *records):
        body = request(signal, self.encoding, Group(list(records)))
        intake = self._decoder.decode(signal, body, self.encoding, sender())
        for event in intake.events:
            self.tree.apply(event, START_NS)
        return intake

    def view(self, number: int = 1):
        return self.tree.view(a_run(number), START_NS + SECOND, steps=True)


def pending(number: int = 1, name: str = "import flights", parent: int = 0, **said) -> ASpan:
    """What Logfire sends when the span of that number starts."""
    return ASpan(
        name,
        attributes=[
            ("logfire.span_type", "pending_span"),
            ("logfire.pending_parent_id", f"{parent:016x}"),
            ("db.namespace", "flights"),
        ],
        span_id=0xABC0 + number,
        parent_span_id=number,
        end_time_unix_nano=START_NS,
        **said,
    )


@both
def test_a_pending_span_starts_the_real_one(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    (started,) = receiver.take("traces", pending(parent=7)).events
    assert (started.kind, started.run_id, started.source) == (
        semconv.OPERATION_STARTED,
        a_run(1),
        Source.LOG,
    )
    assert (started.parent_span_id, started.name) == (f"{7:016x}", "import flights")
    assert receiver.view().state is State.RUNNING


@both
def test_the_real_span_ends_what_its_pending_span_started(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    receiver.take("traces", pending())
    (ended,) = receiver.take("traces", ASpan()).events
    assert (ended.kind, ended.source) == (semconv.OPERATION_ENDED, Source.LOG)
    assert receiver.view().state is State.SUCCEEDED


@both
def test_a_pending_span_without_a_parent_is_a_root(encoding):
    receiver = Receiver(encoding, SpanRule("import *", root_only=True))
    (started,) = receiver.take("traces", pending()).events
    assert started.parent_span_id == ""
    assert (
        Receiver(encoding, SpanRule("import *", root_only=True)).take("traces", pending(parent=7)).events
        == []
    )


@both
def test_the_suffix_of_old_versions_is_no_part_of_the_name(encoding):
    receiver = Receiver(encoding, SpanRule("import flights"))
    (started,) = receiver.take("traces", pending(name="import flights (pending)")).events
    assert started.name == "import flights"


@both
def test_without_a_rule_a_pending_span_is_nothing(encoding):
    assert Receiver(encoding).take("traces", pending()).events == []
    assert Receiver(encoding, SpanRule("other")).take("traces", pending()).events == []


@both
def test_pending_children_are_steps_while_they_run(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    receiver.take("traces", pending())
    receiver.take("traces", pending(2, "extract", parent=1))
    (step,) = receiver.view().steps
    assert (step.name, step.state) == ("extract", StepState.RUNNING)
    receiver.take("traces", ASpan("extract", span_id=2, parent_span_id=1))
    (step,) = receiver.view().steps
    assert (step.name, step.state) == ("extract", StepState.SUCCEEDED)
    receiver.take("traces", ASpan())
    assert [one.name for one in receiver.view().steps] == ["extract"]


@both
def test_pending_children_are_operations_where_the_rule_says_so(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="operations"))
    receiver.take("traces", pending(), pending(2, "extract", parent=1))
    assert (receiver.view(2).state, receiver.view(2).parent_id) == (State.RUNNING, a_run(1))


@both
def test_pending_spans_that_say_nonsense_are_refused_alone(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    orphan, nonsense = pending(), pending()
    orphan.parent_span_id = 0
    nonsense.attributes[1] = ("logfire.pending_parent_id", "the one above")
    intake = receiver.take("traces", orphan, nonsense, pending())
    assert (intake.rejected, len(intake.events)) == (2, 1)


# --- partial spans ---------------------------------------------------------------------------------------------------


def traces_data(span: ASpan) -> str:
    """As partial-span-processor writes it: protobuf's JSON, in which it mends the ids."""
    said = MessageToDict(REQUESTS["traces"].FromString(protobuf("traces", Group([span]))))
    inner = said["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    for key in ("traceId", "spanId", "parentSpanId"):
        if key in inner:
            inner[key] = base64.b64decode(inner[key]).hex()
    return json.dumps(said, separators=(",", ":"))


def heartbeat(span: ASpan | None = None, event: str = "heartbeat", frequency: str | None = "5000ms") -> Log:
    open_span = span or ASpan(end_time_unix_nano=0)
    said = [("partial.event", event), ("partial.body.type", "json/v1")]
    if frequency is not None:
        said.append(("partial.frequency", frequency))
    return Log("", said, severity_number=9, body=traces_data(open_span), time_unix_nano=START_NS + SECOND)


@both
def test_a_heartbeat_starts_an_operation_and_is_a_promise_to_be_heard(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    started, alive = receiver.take("logs", heartbeat()).events
    assert (started.kind, started.run_id, started.source) == (
        semconv.OPERATION_STARTED,
        a_run(1),
        Source.LOG,
    )
    assert (started.writer_id, started.lease_s) == (f"partial/{a_run(1)}", 15.0)
    assert (alive.kind, alive.writer_id, alive.lease_s) == (
        semconv.WRITER_ALIVE,
        started.writer_id,
        15.0,
    )
    assert receiver.view().state is State.RUNNING


@both
def test_the_next_heartbeats_only_say_that_it_lives(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    receiver.take("logs", heartbeat())
    intake = receiver.take("logs", heartbeat())
    assert [event.kind for event in intake.events] == [semconv.WRITER_ALIVE]


@both
def test_stop_ends_it(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    receiver.take("logs", heartbeat())
    intake = receiver.take("logs", heartbeat(ASpan(status_code=2), "stop", None))
    (ended,) = intake.events
    assert (ended.state, ended.source) == (State.FAILED, Source.LOG)
    receiver.take("traces", ASpan(status_code=2))
    assert receiver.view().state is State.FAILED


@both
def test_heartbeats_and_stops_of_its_children_are_steps_that_start_and_end(encoding):
    receiver = Receiver(encoding, SpanRule("import *", children="steps"))
    receiver.take("logs", heartbeat())
    receiver.take("logs", heartbeat(ASpan("read", span_id=2, parent_span_id=1, end_time_unix_nano=0)))
    assert receiver.view().step.state is StepState.RUNNING
    read = ASpan("read", span_id=2, parent_span_id=1, end_time_unix_nano=START_NS + SECOND // 2)
    receiver.take("logs", heartbeat(read, "stop", None))
    (step,) = receiver.view().steps
    assert (step.name, step.state, step.ended_at_unix_ns) == (
        "read",
        StepState.SUCCEEDED,
        START_NS + SECOND // 2,
    )
    receiver.take("traces", read)
    assert receiver.view().steps == (step,)


@both
def test_a_heartbeat_without_a_frequency_promises_nothing(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    (started,) = receiver.take("logs", heartbeat(frequency=None)).events
    assert (started.writer_id, started.lease_s) == ("", None)


@both
def test_without_a_rule_a_heartbeat_is_nothing(encoding):
    assert Receiver(encoding).take("logs", heartbeat()).events == []
    assert Receiver(encoding, SpanRule("other")).take("logs", heartbeat()).events == []


@both
@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"x"}]}]}]}', 7]
)
def test_a_heartbeat_with_a_body_that_is_no_span_is_refused_alone(encoding, body):
    receiver = Receiver(encoding, SpanRule("import *"))
    bad = heartbeat()
    bad.body = body
    intake = receiver.take("logs", bad, heartbeat())
    assert (intake.rejected, len(intake.events)) == (1, 2)


@both
def test_an_unknown_partial_event_is_refused(encoding):
    receiver = Receiver(encoding, SpanRule("import *"))
    assert receiver.take("logs", heartbeat(event="pause")).rejected == 1


@pytest.mark.parametrize(
    ("frequency", "lease_s"),
    [
        ("5000ms", 15.0),
        ("100ms", 5.0),
        ("10s", 30.0),
        ("2.5 s", 7.5),
        ("1m", 180.0),
        ("999999999s", 3_600.0),
        ("0ms", None),
        ("often", None),
        (5, None),
        (None, None),
    ],
)
def test_the_lease_is_three_heartbeats_within_bounds(frequency, lease_s):
    assert lease_of(frequency) == lease_s
