"""What holds whatever arrives in whatever order."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otelprogress.model import semconv
from otelprogress.model.applied import Applied
from otelprogress.model.events import OUTCOMES, Event, State, StepState
from otelprogress.model.tree import OperationTree, TreeLimits
from tests.model.saying import T0, S, Saying, SpanOf, run_id

PATH_DEPENDENT = {
    "revision",
    "as_of_unix_ns",
    "updated_at_unix_ns",
    # What was shown is held, and rates are made from when something was seen.
    "ratio",
    "raw_ratio",
    "ratio_source",
    "rate",
    "eta",
    "usual_interval_s",
}


@st.composite
def scripts(draw: st.DrawFn) -> list[Event]:
    """One run as our own SDK says it: sequenced durable events, ticks between them, within 0.9 s."""
    run = Saying()
    names = ["a", "b", "c", "d"]
    open_steps: list[str] = []
    counts: dict[str, float] = defaultdict(float)
    state = State.RUNNING
    at = 0.0
    events = [run.started(0, steps=tuple(names))]
    for _ in range(draw(st.integers(0, 14))):
        at += 0.05
        action = draw(st.sampled_from(["start", "end", "tick", "tick", "note", "state"]))
        if action == "start" and len(open_steps) < len(names):
            name = draw(st.sampled_from([name for name in names if name not in open_steps]))
            open_steps.append(name)
            events.append(
                run.step(name, at, completed=counts[name], total=10.0, step_index=names.index(name))
            )
        elif action == "end" and open_steps:
            name = open_steps.pop(draw(st.integers(0, len(open_steps) - 1)))
            outcome = draw(st.sampled_from([StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED]))
            events.append(run.step_ended(name, at, outcome, completed=counts[name], total=10.0))
        elif action == "tick" and open_steps:
            name = draw(st.sampled_from(open_steps))
            counts[name] += draw(st.integers(0, 3))
            events.append(run.tick(at, counts[name], 10.0, step_name=name, state=state))
        elif action == "note":
            events.append(run.note(f"at {at}", at, level=draw(st.sampled_from(["info", "warning"]))))
        elif action == "state":
            state = draw(st.sampled_from([State.RUNNING, State.WAITING, State.PAUSED]))
            events.append(run.state(state, at))
    if draw(st.booleans()):
        for name in open_steps:
            at += 0.001
            events.append(run.step_ended(name, at, completed=counts[name], total=10.0))
        events.append(run.ended(at + 0.001, draw(st.sampled_from(sorted(OUTCOMES - {State.LOST})))))
    return events


def said(events: list[Event]) -> dict[str, Any]:
    tree = OperationTree()
    now = T0
    for event in events:
        now += 1
        tree.apply(event, now)
    assert not tree.stats.incomplete
    view = msgspec.to_builtins(tree.view(run_id(1), now, steps=True))
    for step in (view.get("step", {}), *view.get("steps", ())):
        step.pop("ratio", None)
    return {name: value for name, value in view.items() if name not in PATH_DEPENDENT}


@given(scripts(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_any_order_within_the_window_ends_in_the_same_state(events: list[Event], rng: random.Random):
    shuffled = list(events)
    rng.shuffle(shuffled)
    assert said(shuffled) == said(events)


@given(scripts(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_any_repetition_ends_in_the_same_state(events: list[Event], rng: random.Random):
    repeated = list(events)
    for event in events:
        repeated.insert(rng.randrange(len(repeated) + 1), event)
    assert said(repeated) == said(events)


@given(scripts(), st.sets(st.integers(1, 13)), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_what_was_lost_and_comes_late_never_moves_a_run_backwards(events, missing, rng: random.Random):
    kept = [event for event in events if event.sequence is None or event.sequence not in missing]
    late = [event for event in events if event.sequence in missing]
    rng.shuffle(late)
    tree = OperationTree()
    for event in kept:
        tree.apply(event, T0)
    tree.advance(T0 + 2 * S)
    before = tree.view(run_id(1), T0, steps=True)
    for event in late:
        tree.apply(event, T0 + 3 * S)
    after = tree.view(run_id(1), T0, steps=True)
    assert before is None or (after.ratio or 0.0) >= (before.ratio or 0.0)
    assert before is None or before.live or after.state is before.state


@given(scripts(), st.data())
@settings(deadline=None, max_examples=100)
def test_a_span_that_comes_before_or_amid_its_log_events_changes_nothing(events, data):
    first = events[0]
    run = Saying()
    of_span = [
        *(SpanOf(run).started(0, steps=first.steps), SpanOf(run).step("a", 0.1), SpanOf(run).step("z", 0.2)),
        *(SpanOf(run).said_end(1, message="as the span has it"), SpanOf(run).ended(1, State.FAILED)),
    ]
    published = told(events)
    mixed = list(events)
    position = data.draw(st.integers(0, len(mixed)))
    mixed[position:position] = of_span
    with_span = told(mixed)
    alike = with_span[: len(published)]
    assert [(each.event.kind, each.event.late) for each in alike] == [
        (each.event.kind, False) for each in published
    ]
    # Only where no log event said how it ended, its span does.
    unsaid = events[-1].kind != semconv.OPERATION_ENDED
    assert [each.event.kind for each in with_span[len(published) :]] == ["operation.ended"] * unsaid


def told(events: list[Event]) -> list[Applied]:
    """What is published of events that come at once, and in the minute after that; no ticks, no stalls."""
    tree = OperationTree()
    published = [each for event in events for each in tree.apply(event, T0)] + tree.advance(T0 + 60 * S)
    return [each for each in published if each.durable and each.source.stalled is None]


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.none()
TIMES = st.integers(-(2**63), 2**64) | st.integers(T0, T0 + 100 * S)


@given(
    st.lists(
        st.builds(
            Event,
            kind=st.sampled_from(sorted(semconv.DURABLE_EVENTS | semconv.CONFLATED_EVENTS)),
            run_id=st.sampled_from([run_id(1), run_id(2), run_id(3)]),
            time_unix_ns=TIMES,
            name=st.sampled_from([None, "n", "x" * 1000]),
            parent_span_id=st.sampled_from([None, "", *(f"{n:016x}" for n in (1, 2, 3))]),
            start_unix_ns=TIMES | st.none(),
            completed=NUMBERS,
            total=NUMBERS,
            initial=NUMBERS,
            ratio=NUMBERS,
            weight=NUMBERS,
            stall_after_s=NUMBERS,
            counters=st.none() | st.dictionaries(st.sampled_from("abcdefghijkl"), st.floats(), max_size=12),
            expected_children=st.none() | st.integers(-5, 2**70),
            steps=st.none() | st.lists(st.sampled_from("abc"), max_size=4).map(tuple),
            step_weights=st.none() | st.lists(st.floats(), max_size=4).map(tuple),
            step_name=st.none() | st.sampled_from(["", "a", "b", "z"]),
            step_index=st.none() | st.integers(-3, 300),
            lost_evidence_unix_ns=TIMES | st.none(),
            input_deadline_unix_ns=TIMES | st.none(),
        ),
        max_size=25,
    )
)
@settings(deadline=None, max_examples=80)
def test_no_numbers_however_wrong_corrupt_the_state(events: list[Event]):
    tree = OperationTree()
    for event in events:
        tree.apply(event, T0)
        tree.advance(T0)
    tree.advance(T0 + 10_000 * S)
    for run in tree.run_ids():
        view = tree.view(run, T0 + 10_000 * S, steps=True)
        for part in (view, *view.steps, *((view.step,) if view.step else ())):
            assert part.ratio is None or 0.0 <= part.ratio <= 1.0
        assert view.rate is None or (math.isfinite(view.rate) and view.rate >= 0)
        assert view.eta is None or 0 <= view.eta.low_s <= view.eta.high_s < math.inf
        assert view.ended_at_unix_ns is None or view.ended_at_unix_ns >= view.started_at_unix_ns
        assert not view.step or len(view.step.counters) <= 8


class Forest(RuleBasedStateMachine):
    """Six runs below one another, said by three writers, with everything that can go wrong."""

    numbers = st.integers(1, 6)

    def __init__(self) -> None:
        super().__init__()
        self.tree = OperationTree(limits=TreeLimits(keep_ended_s=500.0))
        self.at = 0.0
        self.writers = {n: Saying(n, writer=f"w{n % 3}", parent=n // 2 or None) for n in range(1, 7)}
        self.revisions: dict[str, int] = defaultdict(int)
        self.durable: dict[str, int] = defaultdict(int)
        self.ratios: dict[str, float] = defaultdict(float)
        self.history: list[Event] = []

    def take(self, published) -> None:
        for each in published:
            run = each.event.operation.id
            assert each.event.revision == each.event.operation.revision > self.revisions[run]
            assert each.event.previous_durable == self.durable[run]
            assert each.durable == each.source.durable
            self.revisions[run] = each.event.revision
            if each.durable:
                self.durable[run] = each.event.revision

    def hear(self, event: Event) -> None:
        self.at += 0.01
        self.history.append(event)
        self.take(self.tree.apply(event, T0 + round(self.at * S)))

    @rule(
        n=numbers,
        steps=st.sampled_from([None, ("a", "b"), ("a", "b", "c")]),
        expected=st.none() | st.integers(0, 4),
    )
    def start(self, n, steps, expected) -> None:
        if self.writers[n].sequence == 0:
            self.hear(self.writers[n].started(self.at, steps=steps, expected_children=expected))

    @rule(n=numbers, name=st.sampled_from("abcd"))
    def step(self, n, name) -> None:
        self.hear(self.writers[n].step(name, self.at))

    @rule(n=numbers, name=st.sampled_from("abcd"), state=st.sampled_from(list(StepState)))
    def step_ended(self, n, name, state) -> None:
        self.hear(self.writers[n].step_ended(name, self.at, state))

    @rule(
        n=numbers,
        name=st.none() | st.sampled_from("abcd"),
        completed=st.floats(0, 20),
        total=st.none() | st.floats(0, 20),
    )
    def tick(self, n, name, completed, total) -> None:
        self.hear(self.writers[n].tick(self.at, completed, total, step_name=name))

    @rule(n=numbers, state=st.sampled_from([State.RUNNING, State.WAITING, State.PAUSED]))
    def state(self, n, state) -> None:
        self.hear(self.writers[n].state(state, self.at))

    @rule(n=numbers, state=st.sampled_from(sorted(OUTCOMES)))
    def end(self, n, state) -> None:
        self.hear(self.writers[n].ended(self.at, state))

    @rule(n=numbers)
    def lose(self, n) -> None:
        self.hear(self.writers[n].lost(self.at))

    @rule(n=numbers)
    def drop_one(self, n) -> None:
        self.writers[n].sequence += 1

    @rule(n=numbers)
    def foreign(self, n) -> None:
        self.hear(self.writers[n].foreign("hm", self.at))

    @rule(n=numbers)
    def span(self, n) -> None:
        for event in SpanOf(self.writers[n]).whole(self.at):
            self.hear(event)

    @rule(writer=st.sampled_from(["w0", "w1", "w2"]))
    def alive(self, writer) -> None:
        self.hear(
            Event(
                kind=semconv.WRITER_ALIVE, run_id="", time_unix_ns=T0 + round(self.at * S), writer_id=writer
            )
        )

    @rule(seconds=st.sampled_from([0.5, 1.5, 6.0, 40.0]))
    def wait(self, seconds) -> None:
        self.at += seconds
        self.take(self.tree.advance(T0 + round(self.at * S)))

    @rule()
    def evict(self) -> None:
        for run in self.tree.evict(T0 + round(self.at * S)):
            self.revisions.pop(run, None)
            self.durable.pop(run, None)
            self.ratios.pop(run, None)

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def repeat(self, data) -> None:
        event = data.draw(st.sampled_from(self.history[-8:]))
        if event.kind != semconv.WRITER_ALIVE and event.kind not in (semconv.OPERATION_PROGRESSED,):
            before = [self.tree.view(run, 0, steps=True) for run in self.tree.run_ids()]
            assert self.tree.apply(event, T0 + round(self.at * S)) == []
            after = [self.tree.view(run, 0, steps=True) for run in self.tree.run_ids()]
            assert [self.timeless(view) for view in before] == [self.timeless(view) for view in after]

    @staticmethod
    def timeless(view):
        return msgspec.structs.replace(view, updated_at_unix_ns=0)

    @invariant()
    def ratios_never_go_back(self) -> None:
        for run in self.tree.run_ids():
            ratio = self.tree.view(run, T0).ratio or 0.0
            assert ratio >= self.ratios[run]
            self.ratios[run] = ratio

    @invariant()
    def families_add_up(self) -> None:
        for run in self.tree.run_ids():
            children = self.tree.view(run, T0).children
            if children is not None:
                ended = children.succeeded + children.failed + children.cancelled + children.lost
                assert children.total == children.live + ended
                kept = [self.tree.view(child, T0) for child in self.tree.children(run)]
                assert children.live == sum(child.live for child in kept)
                assert all(child.parent_id == run for child in kept)

    @invariant()
    def writers_hold_their_live_runs(self) -> None:
        held = [run for writer in ("w0", "w1", "w2") for run in self.tree.runs_of_writer(writer)]
        live = [run for run in self.tree.run_ids() if self.tree.view(run, T0).live]
        assert sorted(held) == sorted(live)

    @invariant()
    def what_waits_is_counted(self) -> None:
        states = self.tree._runs.values()
        held = [len(state.carrier.hearsay) for state in states if state.carrier is not None]
        assert len(self.tree._hearsay) == sum(held)

    @invariant()
    def sums_kept_equal_sums_computed(self) -> None:
        for state in self.tree._runs.values():
            plan = state.plan
            if plan is not None:
                assert plan.weight == pytest.approx(sum(step.weight for step in plan.steps))
                assert plan.done == pytest.approx(sum(step.weight * (step.ratio or 0) for step in plan.steps))
                done = (StepState.SUCCEEDED, StepState.SKIPPED)
                assert plan.finished == sum(step.state in done for step in plan.steps)
                assert plan.soft == sum(step.soft for step in plan.steps)
                assert sorted(plan.open) == [s.index for s in plan.steps if s.state is StepState.RUNNING]


Forest.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestForest = Forest.TestCase
