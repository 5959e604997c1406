from __future__ import annotations

import msgspec
import pytest

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event, Source, State, StepState
from otelprogress.model.tree import OperationTree, TreeLimits
from tests.model.saying import T0, S, Saying, SpanOf, run_id


class Host:
    """A tree with a clock that the test moves."""

    def __init__(self, **limits) -> None:
        self.tree = OperationTree(limits=TreeLimits(**limits))
        self.now = T0

    def hear(self, event: Event, at: float | None = None):
        self.now = max(self.now, event.time_unix_ns) if at is None else T0 + round(at * S)
        return self.tree.apply(event, self.now)

    def hear_all(self, *events: Event):
        return [applied for event in events for applied in self.hear(event)]

    def wait_until(self, at: float):
        self.now = T0 + round(at * S)
        return self.tree.advance(self.now)

    def view(self, number: int = 1, *, steps: bool = True):
        return self.tree.view(run_id(number), self.now, steps=steps)


@pytest.fixture
def host() -> Host:
    return Host()


def kinds(applied) -> list[str]:
    return [each.event.kind for each in applied]


# --- a run, from start to end ------------------------------------------------------------------------------------


def test_a_run_is_published_from_its_start_to_its_end(host):
    run = Saying()
    published = host.hear_all(
        run.started(0, steps=("extract", "load"), step_weights=(1.0, 3.0)),
        run.step("extract", 1),
        run.step_ended("extract", 2),
        run.step("load", 2),
        run.tick(4, 30.0, 60.0, step_name="load"),
        run.ended(9),
    )
    assert kinds(published) == [
        "operation.started",
        "step.started",
        "step.ended",
        "step.started",
        "operation.progressed",
        "operation.ended",
    ]
    assert [each.event.revision for each in published] == [1, 2, 3, 4, 5, 6]
    assert [each.event.previous_durable for each in published] == [0, 1, 2, 3, 4, 4]
    assert [each.durable for each in published] == [True] * 4 + [False, True]
    assert [each.terminal for each in published] == [False] * 5 + [True]
    assert [each.event.operation.ratio for each in published] == [0.0, 0.0, 0.25, 0.25, 0.625, 1.0]
    assert published[2].event.step.name == "extract"
    assert published[2].event.operation.steps == ()
    view = host.view()
    assert (view.handle, view.state, view.elapsed_s) == ("nightly_load-1", State.SUCCEEDED, 9.0)
    assert [step.state for step in view.steps] == [StepState.SUCCEEDED, StepState.SUCCEEDED]


def test_a_failed_run_leaves_its_open_step_failed(host):
    run = Saying()
    host.hear_all(run.started(), run.step("load", 1), run.ended(2, State.FAILED, error_type="ValueError"))
    assert host.view().steps[0].state is StepState.FAILED
    assert host.view().error_type == "ValueError"


def test_a_lost_run_shows_the_step_in_which_it_died(host):
    run = Saying()
    host.hear_all(run.started(), run.step("load", 1), run.tick(2, 5, 10, step_name="load"), run.lost(5))
    view = host.view()
    assert (view.state, view.step.state, view.step.completed) == (State.LOST, StepState.RUNNING, 5)
    assert (view.lost_detector, view.ratio) == ("link", None)


def test_waiting_and_back_is_in_no_rate_and_never_stalls(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(10, 10, 100), run.state(State.WAITING, 10))
    assert host.view().eta is None
    assert host.wait_until(5_000) == []
    host.hear_all(run.state(State.RUNNING, 5_000), run.tick(5_010, 20, 100))
    assert host.view().rate == pytest.approx(1.0)
    assert host.view().eta.high_s < 200


def test_an_input_request_is_forgotten_once_it_runs_again(host):
    run = Saying()
    host.hear_all(
        run.started(),
        run.event(semconv.INPUT_REQUESTED, 1, input_id="in1", input_prompt="lr?", state=State.WAITING),
    )
    assert (host.view().state, host.view().input_id) == (State.WAITING, "in1")
    host.hear(run.state(State.RUNNING, 2))
    assert (host.view().input_id, host.view().input_prompt) == (None, None)


def test_an_end_that_was_before_the_start_ends_at_the_start(host):
    run = Saying()
    host.hear_all(run.started(10), run.ended(3))
    assert host.view().ended_at_unix_ns == host.view().started_at_unix_ns == T0 + 10 * S


# --- what a writer may not do --------------------------------------------------------------------------------------


def test_an_outcome_is_final(host):
    run = Saying()
    host.hear_all(run.started(), run.ended(1, State.FAILED))
    assert host.hear(run.state(State.RUNNING, 2)) == []
    assert host.tree.stats.illegal == 1
    assert host.hear(run.tick(3, 1, 2)) == []
    host.hear(run.ended(4, State.SUCCEEDED))
    assert host.view().state is State.FAILED


def test_a_later_end_only_fills_what_is_missing(host):
    run = Saying()
    host.hear_all(run.started(), run.ended(1, State.FAILED, error_type="OSError"))
    (filled,) = host.hear(run.ended(2, State.SUCCEEDED, error_type="ValueError", error_message="disk full"))
    assert filled.event.late
    view = host.view()
    assert (view.state, view.error_type, view.error_message) == (State.FAILED, "OSError", "disk full")


def test_a_lost_run_that_is_heard_again_lives_again(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, 1, 10), run.lost(5))
    revived, tick = host.hear(run.tick(8, 2, 10))
    assert (revived.event.kind, revived.durable) == ("operation.state_changed", True)
    assert revived.source.state is State.RUNNING
    assert tick.event.operation.state is State.RUNNING
    assert (host.view().ended_at_unix_ns, host.view().lost_detector) == (None, None)


def test_what_a_lost_run_said_before_it_was_lost_does_not_revive_it(host):
    run = Saying()
    host.hear_all(run.started(), run.lost(5))
    host.hear(run.step("load", 3))
    assert host.view().state is State.LOST


def test_a_true_outcome_replaces_lost_once(host):
    run = Saying()
    first = host.hear_all(run.started(), run.lost(5))[-1]
    (second,) = host.hear(run.ended(6, State.SUCCEEDED))
    assert second.terminal
    assert second.event.previous_terminal == first.event.revision
    host.hear(run.lost(7))
    assert (host.view().state, host.view().lost_detector) == (State.SUCCEEDED, None)


def test_a_writer_that_is_alive_revives_what_others_gave_up_but_not_what_it_left_itself(host):
    judged, left = Saying(1), Saying(2)
    host.hear_all(judged.started(), left.started(), judged.lost(5, "lease"), left.lost(5, "atexit"))
    alive = Event(kind=semconv.WRITER_ALIVE, run_id="", time_unix_ns=T0 + 9 * S, writer_id="w1")
    assert kinds(host.hear(alive)) == ["operation.state_changed"]
    assert (host.view(1).state, host.view(2).state) == (State.RUNNING, State.LOST)


def test_a_lost_run_whose_writer_becomes_known_afterwards_is_revived_by_it(host):
    run = Saying()
    host.hear(run.started(writer_id="", sequence=None))
    host.hear(run.lost(5))
    host.hear(run.tick(1, 1, writer_id="w1"))  # older than the verdict: no sign of life
    alive = Event(kind=semconv.WRITER_ALIVE, run_id="", time_unix_ns=T0 + 9 * S, writer_id="w1")
    assert kinds(host.hear(alive)) == ["operation.state_changed"]
    assert list(host.tree.runs_of_writer("w1")) == [run.id]


def test_a_writer_that_is_alive_is_heard_for_all_its_live_runs(host):
    first, second, other = Saying(1), Saying(2), Saying(3, writer="w2")
    host.hear_all(first.started(), second.started(), other.started())
    assert (
        host.hear(Event(kind=semconv.WRITER_ALIVE, run_id="", time_unix_ns=T0, writer_id="w1"), at=30) == []
    )
    assert [host.view(n).updated_at_unix_ns - T0 for n in (1, 2, 3)] == [30 * S, 30 * S, 0]
    assert set(host.tree.runs_of_writer("w1")) == {first.id, second.id}
    host.hear(first.ended(31))
    assert set(host.tree.runs_of_writer("w1")) == {second.id}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"kind": "otelprogress.nonsense"}, "unknown event"),
        ({"sequence": 0}, "writer.sequence"),
        ({"run_id": "r1"}, "run id"),
        ({"run_id": "A" * 32 + "-" + "a" * 16}, "run id"),
        ({"parent_span_id": "xyz"}, "parent_span_id"),
        ({"kind": semconv.OPERATION_ENDED, "state": State.RUNNING}, "operation.state"),
        ({"kind": semconv.OPERATION_STATE_CHANGED, "state": State.LOST}, "operation.state"),
    ],
)
def test_a_malformed_event_is_refused_by_name(host, fields, what):
    with pytest.raises(InvalidRecord, match=what):
        host.hear(msgspec.structs.replace(Saying().started(), **fields))
    assert len(host.tree) == 0


def test_a_run_cannot_be_written_by_another_tenant(host):
    run = Saying()
    host.hear(run.started(tenant="a"))
    with pytest.raises(InvalidRecord) as theirs:
        host.hear(run.ended(1, tenant="b"))
    assert host.view().live
    # Nobody learns what another has: the words are those about an id that no run can have.
    with pytest.raises(InvalidRecord) as impossible:
        host.hear(msgspec.structs.replace(Saying().started(tenant="b"), run_id="x"))
    assert str(theirs.value).replace(run.id, "x") == str(impossible.value)


# --- the same thing twice, and out of order -------------------------------------------------------------------------


def test_a_repeated_event_is_not_published_again(host):
    run = Saying()
    events = [
        run.started(),
        run.step("load", 1),
        run.tick(2, 1, 2, step_name="load"),
        run.note("hm", 3),
        run.ended(4),
    ]
    host.hear_all(*events)
    before = host.view()
    assert host.hear_all(*events) == []
    assert host.view() == before


def test_foreign_events_without_sequence_are_known_by_their_content(host):
    run = Saying()
    note = run.note("hm", 1, sequence=None)
    host.hear(run.started(sequence=None))
    assert kinds(host.hear(note)) == ["operation.noted"]
    assert host.hear(note) == []
    assert kinds(host.hear(run.note("hm", 2, sequence=None))) == ["operation.noted"]


def test_the_same_event_from_another_carrier_is_the_same_event(host):
    run = Saying()
    started, ended = run.started(sequence=None), run.ended(1, sequence=None)
    host.hear_all(started, ended)
    of_span = [msgspec.structs.replace(event, source=Source.SPAN_END) for event in (started, ended)]
    assert host.hear_all(*of_span) == []
    assert (host.tree.stats.overruled, host.tree.stats.duplicates) == (1, 1)


def test_a_hole_is_waited_for_and_filled(host):
    run = Saying()
    start, step, end = run.started(), run.step("load", 1), run.step_ended("load", 2)
    host.hear(start)
    assert host.hear(end) == []
    assert host.tree.next_deadline_unix_ns() is not None
    assert kinds(host.hear(step)) == ["step.started", "step.ended"]
    assert not host.view().incomplete
    assert host.wait_until(10) == []


def test_a_hole_that_stays_open_marks_the_run_and_what_comes_then_is_late(host):
    run = Saying()
    host.hear(run.started())
    lost_step, lost_end = run.step("a", 1), run.step_ended("a", 2, completed=5.0)
    assert host.hear(run.step("b", 3), at=3) == []
    assert host.wait_until(3.9) == []
    assert kinds(host.wait_until(4.0)) == ["step.started"]
    assert host.view().incomplete
    late = host.hear_all(lost_end, lost_step)
    assert [each.event.late for each in late] == [True, True]
    view = host.view()
    assert (view.step.name, {step.name: step.state for step in view.steps}["a"]) == ("b", StepState.SUCCEEDED)
    assert host.hear(lost_step) == []


def test_what_comes_before_the_start_waits_for_it(host):
    run = Saying()
    start = run.started()
    assert host.hear(run.tick(0.1, 1, 10)) == []
    assert host.view() is None
    assert len(host.tree) == 0
    assert list(host.tree.roots()) == []
    assert kinds(host.hear(start)) == ["operation.started", "operation.progressed"]
    assert host.view().step.completed == 1


def test_a_run_whose_start_never_comes_appears_after_the_window(host):
    run = Saying()
    host.hear(run.tick(0, 1, 10))
    (tick,) = host.wait_until(1.0)
    assert tick.event.operation.handle == "operation-1"
    host.hear(run.started(0))
    assert (host.view().name, host.view().handle) == ("nightly load", "operation-1")


def test_an_older_tick_changes_nothing(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(5, 50, 100), run.tick(4, 40, 100))
    assert host.view().step.completed == 50
    assert host.tree.stats.stale == 1


def test_a_clock_that_stepped_back_by_an_hour_is_followed(host):
    run = Saying()
    host.hear_all(run.started(0), run.tick(7200, 50, 100))
    host.hear(run.tick(3600, 60, 100), at=7201)
    assert host.view().step.completed == 60


def test_a_run_with_two_writers_keeps_both_sequences(host):
    parent, fork = Saying(writer="w1"), Saying(writer="w2")
    host.hear_all(parent.started(), parent.note("a", 1))
    fork_first, fork_second = fork.note("b", 2), fork.note("c", 3)
    assert host.hear(fork_second) == []
    assert kinds(host.hear(fork_first)) == ["operation.noted", "operation.noted"]
    assert kinds(host.hear(parent.note("d", 4))) == ["operation.noted"]
    assert host.hear(fork_first) == []


def test_too_many_held_events_end_the_wait():
    host = Host(max_held=3)
    run = Saying()
    host.hear(run.started())
    run.sequence += 1
    published = host.hear_all(*(run.note(str(n), n) for n in range(5)))
    assert len(published) == 5
    assert host.view().incomplete


# --- carriers -------------------------------------------------------------------------------------------------------


WHOLE = ["operation.started", "step.started", "step.started", "operation.ended"]


def test_what_only_a_span_says_is_told_once_log_events_had_their_time(host):
    run = Saying()
    assert host.hear_all(*SpanOf(run).whole()) == []
    assert (host.view(), len(host.tree), list(host.tree.run_ids())) == (None, 0, [])
    assert host.wait_until(7.9) == []
    published = host.wait_until(8.0)
    assert kinds(published) == WHOLE
    assert not any(each.event.late for each in published)
    view = host.view()
    assert (view.handle, view.state, view.ended_at_unix_ns) == (
        "nightly_load-1",
        State.SUCCEEDED,
        T0 + 3 * S,
    )
    assert host.wait_until(60) == []


def test_a_host_is_woken_when_the_time_of_log_events_is_over(host):
    host.hear(SpanOf(Saying()).started())
    woken_ns = host.tree.next_deadline_unix_ns()
    assert T0 + 5 * S <= woken_ns < T0 + 5 * S + S // 5
    assert kinds(host.tree.advance(woken_ns)) == ["operation.started"]


def test_log_events_that_come_after_their_span_are_told_once_and_are_not_late(host):
    run = Saying()
    host.hear_all(*SpanOf(run).whole())
    published = host.hear_all(
        *(run.started(0), run.step("a", 1), run.step("b", 2), run.note("hm", 2.5), run.ended(3, result="1")),
    )
    assert kinds(published) == [*WHOLE[:-1], "operation.noted", "operation.ended"]
    assert not any(each.event.late for each in published)
    assert host.wait_until(60) == []
    assert host.tree.stats.overruled == 4
    assert host.view().result == "1"


def test_the_end_of_a_span_waits_on_when_log_events_say_all_but_that(host):
    run = Saying()
    host.hear_all(*SpanOf(run).whole())
    assert kinds(host.hear_all(run.started(0), run.step("a", 1))) == WHOLE[:2]
    assert host.wait_until(7.9) == []
    assert kinds(host.wait_until(8)) == ["operation.ended"]


def test_a_span_that_comes_amid_log_events_repeats_nothing(host):
    run = Saying()
    start, note = run.started(0), run.note("hm", 1)
    assert host.hear(note) == []  # its start is on the way
    assert host.hear_all(*SpanOf(run).whole()) == []
    assert kinds(host.hear(start)) == ["operation.started", "operation.noted"]
    assert kinds(host.wait_until(60)) == ["operation.ended"]


def test_a_run_whose_start_was_lost_starts_as_its_span_says(host):
    run = Saying()
    run.sequence = 1
    host.hear_all(*SpanOf(run).whole(), run.note("hm", 3))
    assert kinds(host.wait_until(4)) == ["operation.started", "operation.noted"]
    assert host.view().handle == "nightly_load-1"
    assert kinds(host.wait_until(8)) == ["operation.ended"]


def test_a_log_event_that_says_the_very_same_is_no_duplicate_of_the_span(host):
    """Some emitters write both from the same attributes."""
    run = Saying()
    of_span = SpanOf(run).whole()
    host.hear_all(*of_span)
    by_log = [msgspec.structs.replace(event, source=Source.LOG) for event in of_span[:3]]
    assert kinds(host.hear_all(*by_log)) == WHOLE[:3]


def test_a_span_that_comes_twice_is_told_once(host):
    run = Saying()
    whole = SpanOf(run).whole()
    host.hear_all(*whole, *whole)
    assert host.tree.stats.duplicates == len(whole)
    assert kinds(host.wait_until(8)) == WHOLE
    assert host.hear_all(*whole) == []


def test_the_end_of_a_span_counts_before_the_event_on_it_which_fills_what_it_leaves_out(host):
    run = Saying()
    span = SpanOf(run)
    host.hear_all(
        span.started(),
        span.said_end(1, state=State.SUCCEEDED, message="12 rows rejected", step_name="load", completed=3.0),
        span.ended(1, State.FAILED, completed=4.0),
    )
    published = host.wait_until(60)
    assert kinds(published) == ["operation.started", "operation.ended"]
    view = host.view()
    assert (view.state, view.message, view.step.name, view.step.completed) == (
        State.FAILED,
        "12 rows rejected",
        "load",
        4.0,
    )


def test_an_open_span_is_told_and_its_end_waits_again(host):
    span = SpanOf(Saying())
    host.hear(span.started())
    assert kinds(host.wait_until(5)) == ["operation.started"]
    assert host.hear_all(span.step("a", 6), span.ended(7)) == []
    assert kinds(host.wait_until(12)) == ["step.started", "operation.ended"]


def test_numbered_span_events_are_known_by_their_numbers(host):
    span = SpanOf(Saying())
    numbered = [msgspec.structs.replace(span.step(name, n), sequence=n) for n, name in ((1, "a"), (2, "b"))]
    host.hear_all(span.started(), *numbered)
    assert kinds(host.wait_until(60)) == WHOLE[:3]
    assert not host.view().incomplete
    assert host.hear(msgspec.structs.replace(numbered[0], source=Source.LOG)) == []


def test_ticks_on_a_span_wait_like_the_rest(host):
    run = Saying()
    host.hear_all(SpanOf(run).started(), run.tick(1, 5, 10, source=Source.SPAN_EVENT, writer_id=""))
    assert kinds(host.wait_until(5)) == ["operation.started", "operation.progressed"]


def test_notes_of_others_do_not_make_a_span_be_told_sooner(host):
    run = Saying()
    host.hear_all(*SpanOf(run).whole())
    assert host.tree.tenant_of(run.id) == ""
    notes = [run.foreign(f"note {n}", 3, writer_id="") for n in range(102)]
    assert host.hear_all(*notes) == []
    assert host.wait_until(7.9) == []
    published = host.wait_until(8) + host.wait_until(10)
    assert kinds(published)[:2] == ["operation.started", "operation.noted"]
    assert kinds(published).count("operation.noted") == 101
    assert host.view().state is State.SUCCEEDED
    assert sum(each.event.folded or 0 for each in published) == 1


def test_notes_that_waited_with_a_span_follow_the_start_that_a_log_event_says(host):
    run = Saying()
    host.hear_all(*SpanOf(run).whole(), run.foreign("hm", 3, writer_id=""))
    assert kinds(host.hear(run.started(sequence=None))) == ["operation.started", "operation.noted"]


def test_a_span_that_says_too_much_waits_no_longer():
    host = Host(max_held=3)
    span = SpanOf(Saying())
    said = [span.started(), *(span.step(f"s{n}", n) for n in range(6)), span.ended(6)]
    assert len(host.hear_all(*said)) == 4
    assert kinds(host.wait_until(60)) == ["step.started"] * 3 + ["operation.ended"]


def test_beyond_the_bound_over_all_runs_those_that_wait_longest_are_told(host, monkeypatch):
    monkeypatch.setattr("otelprogress.model.hearsay.MAX_EVENTS", 6)
    first, second, third = (SpanOf(Saying(n)) for n in (1, 2, 3))
    assert host.hear_all(*second.whole()[:3], *first.whole()[:3]) == []
    (oldest, *rest) = host.hear(third.started())
    assert [oldest.event.operation.id] == [each.event.operation.id for each in rest[:1]] == [run_id(2)]
    assert host.view(1) is None
    assert len(host.tree._hearsay) == 4


def test_the_span_of_a_run_that_was_forgotten_brings_it_not_back():
    host = Host(keep_ended_s=1)
    run = Saying()
    host.hear_all(run.started(), run.ended(1))
    assert host.tree.evict(T0 + 10 * S) == [run.id]
    assert host.hear_all(*SpanOf(run).whole()) == []
    assert host.wait_until(60) == []


def test_the_span_of_a_lost_run_that_was_forgotten_goes_on_from_there():
    host = Host(keep_ended_s=1)
    run = Saying()
    host.hear_all(run.started(), run.lost(1))
    assert host.tree.evict(T0 + 10 * S) == [run.id]
    host.hear_all(*SpanOf(run).whole())
    assert [each.event.revision for each in host.wait_until(60)] == [3, 4, 5, 6]


def test_span_events_of_ours_count_only_where_no_log_event_came(host):
    run = Saying()
    span = SpanOf(run)
    host.hear(span.started())
    host.wait_until(5)
    host.hear(span.step("a", 6))
    host.hear(run.note("by log", 7, sequence=None))
    assert host.hear(span.step("b", 8)) == []
    assert host.tree.stats.overruled == 2
    assert host.view().step is None


def test_the_end_of_a_span_closes_the_run_after_five_seconds(host):
    run = Saying()
    host.hear(run.started())
    assert host.hear(run.ended(1, sequence=None, source=Source.SPAN_END), at=1) == []
    assert host.wait_until(5.9) == []
    (ended,) = host.wait_until(6.0)
    assert (ended.terminal, host.view().ended_at_unix_ns) == (True, T0 + S)


def test_the_end_of_a_span_gives_way_to_the_event_that_says_more(host):
    run = Saying()
    host.hear(run.started())
    host.hear(run.ended(1, sequence=None, source=Source.SPAN_END))
    assert kinds(host.hear(run.ended(1, State.CANCELLED))) == ["operation.ended"]
    assert host.wait_until(60) == []
    assert host.view().state is State.CANCELLED


def test_a_verdict_does_not_silence_the_end_of_a_span_that_waits(host):
    """Its process ended the span, sent it, and died with its last log events."""
    run = Saying()
    host.hear(run.started())
    host.hear(SpanOf(run).ended(1))
    assert [each.event.operation.state for each in host.hear(run.lost(2))] == [State.LOST]
    (ended,) = host.wait_until(6)
    assert (ended.event.kind, ended.event.late, ended.event.operation.state) == (
        "operation.ended",
        False,
        State.SUCCEEDED,
    )
    assert host.wait_until(60) == []


def test_the_last_word_of_a_process_is_not_repeated_by_its_span(host):
    run = Saying()
    host.hear(run.started())
    host.hear(SpanOf(run).ended(1, State.LOST, error_type="SystemExit"))
    assert kinds(host.hear(run.ended(1, State.LOST, lost_detector="atexit"))) == ["operation.ended"]
    assert host.wait_until(60) == []


def test_foreign_notes_are_folded_beyond_their_rate(host):
    run = Saying()
    host.hear(run.started())
    published = [each for n in range(500) for each in host.hear(run.foreign(f"note {n}", n / 1000), at=0)]
    assert len(published) == 100
    (folded,) = host.wait_until(1.0)
    assert (folded.event.folded, folded.event.message) == (399, "note 499")
    assert host.tree.stats.foreign_folded == 400
    assert host.wait_until(9) == []
    assert kinds(host.hear(run.foreign("again", 10))) == ["operation.noted"]


def test_what_the_writers_process_folded_already_is_in_the_count(host):
    run = Saying()
    host.hear(run.started())
    for n in range(102):
        host.hear(run.foreign(f"note {n}", n / 1000, folded=9), at=0)
    (folded,) = host.wait_until(1.0)
    assert folded.event.folded == 19


def test_foreign_notes_move_no_counts(host):
    run = Saying()
    host.hear_all(run.started(), run.foreign("hm", 1, completed=5.0, total=10.0))
    assert (host.view().step, host.view().message) == (None, "hm")


# --- steps, items, ratio --------------------------------------------------------------------------------------------


def test_an_unknown_step_is_appended_and_the_ratio_does_not_go_back(host):
    run = Saying()
    host.hear_all(run.started(steps=("a", "b")), run.step("a", 1), run.step_ended("a", 2), run.step("c", 3))
    view = host.view()
    assert [step.name for step in view.steps] == ["a", "b", "c"]
    assert (view.ratio, view.raw_ratio) == (0.5, pytest.approx(1 / 3))


def test_a_step_that_is_entered_again_continues(host):
    run = Saying()
    host.hear_all(
        run.started(steps=("a", "b")),
        run.step("a", 1),
        run.step_ended("a", 2, completed=5.0),
        run.step("a", 3),
    )
    (step, _) = host.view().steps
    assert (step.state, step.completed, step.ended_at_unix_ns) == (StepState.RUNNING, 5.0, None)
    assert step.started_at_unix_ns == T0 + S
    host.hear(run.step_ended("a", 4))
    assert host.view().ratio == 0.5


def test_steps_that_nobody_planned_give_no_ratio_before_the_end(host):
    run = Saying()
    host.hear_all(run.started(), run.step("a", 1), run.step_ended("a", 2))
    assert host.view().ratio is None
    host.hear(run.ended(3))
    assert host.view().ratio == 1.0


def test_a_skipped_step_counts_as_done(host):
    run = Saying()
    host.hear_all(run.started(steps=("a", "b")), run.step_ended("a", 1, StepState.SKIPPED))
    assert host.view().ratio == 0.5


def test_a_step_whose_start_was_never_heard_can_end(host):
    run = Saying()
    host.hear_all(run.started(steps=("a", "b")), run.step_ended("a", 1))
    assert host.view().steps[0].state is StepState.SUCCEEDED


def test_a_step_by_its_index_alone(host):
    run = Saying()
    host.hear_all(run.started(steps=("a", "b")), run.event(semconv.STEP_STARTED, 1, step_index=1))
    assert host.view().step.name == "b"
    host.hear(run.tick(2, 1, 2, step_index=7))
    assert len(host.view().steps) == 2


def test_of_several_open_steps_the_one_that_moved_last_is_current(host):
    run = Saying()
    host.hear_all(run.started(), run.step("a", 1), run.step("b", 2), run.tick(3, 1, 2, step_name="a"))
    assert host.view().step.name == "a"
    host.hear(run.step_ended("a", 4))
    assert host.view().step.name == "b"


def test_counts_without_steps_stand_as_a_step_without_a_name(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, 3, 12, unit="{row}"))
    step = host.view().step
    assert (step.name, step.index, step.completed, step.total, step.unit) == ("", -1, 3, 12, "{row}")
    assert (host.view().ratio, host.view().ratio_source) == (0.25, "measured")


def test_a_running_step_without_counts_makes_the_ratio_an_estimate(host):
    run = Saying()
    host.hear_all(run.started(steps=("a", "b")), run.step("a", 1))
    assert host.view().ratio_source == "estimated"
    host.hear(run.tick(2, 1, 2, step_name="a"))
    assert (host.view().ratio, host.view().ratio_source) == (0.25, "measured")


def test_what_the_writer_says_is_used_where_nothing_can_be_computed(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, ratio=0.3, ratio_source="measured"))
    assert (host.view().ratio, host.view().ratio_source) == (0.3, "measured")
    host.hear(run.tick(2, ratio=0.2))
    assert (host.view().ratio, host.view().raw_ratio) == (0.3, 0.2)


def test_a_growing_total_holds_the_ratio_and_shows_the_raw_one(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, 50, 100), run.tick(2, 60, 240))
    assert (host.view().ratio, host.view().raw_ratio) == (0.5, 0.25)
    host.hear(run.tick(3, 180, 240))
    assert (host.view().ratio, host.view().raw_ratio) == (0.75, None)


def test_no_more_than_eight_counters(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, counters={f"c{n}": float(n) for n in range(12)}))
    assert len(host.view().step.counters) == 8
    host.hear(run.tick(2, counters={"c1": 5.0}))
    assert host.view().step.counters["c1"] == 5.0
    assert len(host.view().step.counters) == 8


def test_a_snapshot_carries_256_steps_and_says_how_many_it_folds(host):
    run = Saying()
    host.hear(run.started())
    for n in range(2_000):
        host.hear_all(run.step(f"s{n}", n), run.step_ended(f"s{n}", n + 0.5))
    view = host.view()
    assert (len(view.steps), view.step_count, view.steps_folded) == (256, 2_000, 1_744)
    assert view.step.name == "s1999"
    assert view.steps[-1].name == "s1999"


def test_an_eta_of_the_last_step_is_the_operations(host):
    run = Saying()
    host.hear_all(
        run.started(steps=("a", "b")), run.step("a", 0), run.step_ended("a", 100), run.step("b", 100)
    )
    for at in range(101, 150):
        host.hear(run.tick(at, float(at - 100), 100.0, step_name="b"))
    eta = host.view().eta
    assert eta.low_s < 51 < eta.high_s < 60


def test_an_eta_before_the_last_step_covers_the_steps_to_come(host):
    run = Saying()
    host.hear_all(run.started(steps=("a", "b"), step_weights=(1.0, 3.0)), run.step("a", 0))
    for at in range(1, 51):
        host.hear(run.tick(at, float(at), 100.0, step_name="a"))
    eta = host.view().eta
    assert eta.low_s < 350 < eta.high_s


@pytest.mark.parametrize("steps", [(), ("a", "b")])
def test_what_goes_on_after_all_is_counted_has_no_eta(host, steps):
    run = Saying()
    name = {"step_name": steps[-1]} if steps else {}
    host.hear(run.started(steps=steps))
    if steps:
        host.hear_all(run.step("a", 0), run.step_ended("a", 1), run.step("b", 1))
    host.hear_all(run.tick(2, 50.0, 100.0, **name), run.tick(3, 99.0, 100.0, **name))
    assert host.view().eta is not None
    host.hear(run.tick(4, 100.0, 100.0, **name))
    assert (host.view().ratio, host.view().eta) == (1.0, None)


# --- bad numbers ------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -1.0, 1e300])
@pytest.mark.parametrize(
    "field", ["completed", "total", "ratio", "initial", "weight", "stall_after_s", "expected_children"]
)
def test_a_number_that_cannot_be_meant_is_taken_as_not_said(host, field, bad):
    run = Saying()
    host.hear(run.started(**{field: bad}))
    assert host.tree.stats.repairs.numbers == 1
    assert host.view().ratio is None


def test_bad_counters_and_weights_are_left_out(host):
    run = Saying()
    host.hear_all(
        run.started(steps=("a", "b"), step_weights=(NAN, -3.0)),
        run.tick(1, counters={"bad": NAN, "good": 1.0}),
    )
    assert [step.weight for step in host.view().steps] == [1.0, 1.0]
    assert host.tree.stats.repairs.numbers == 2
    assert host.view().steps[0].counters in ({}, {"good": 1.0})


def test_more_done_than_there_is_is_shown_and_the_ratio_stays_one(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, 120, 100))
    assert (host.view().step.completed, host.view().ratio) == (120, 1.0)


def test_an_end_with_bad_numbers_still_ends_the_run(host):
    run = Saying()
    host.hear_all(run.started(), run.ended(1, completed=NAN, total=-1.0))
    assert host.view().state is State.SUCCEEDED


@pytest.mark.parametrize("time_ns", [-1, 0, 1, 4_102_444_800 * S, 2**70])
def test_a_time_of_1970_or_2100_is_replaced_by_the_hosts_clock(host, time_ns):
    run = Saying()
    host.hear(msgspec.structs.replace(run.started(), time_unix_ns=time_ns, start_unix_ns=time_ns), at=5)
    assert host.view().started_at_unix_ns == T0 + 5 * S
    assert host.tree.stats.repairs.times == 2


# --- stalls -------------------------------------------------------------------------------------------------------------


def test_a_run_whose_counts_stop_moving_is_stalled_until_they_move(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, 1, 10), run.tick(2, 2, 10))
    assert host.wait_until(31.9) == []
    (stalled,) = host.wait_until(32.0)
    assert (stalled.durable, stalled.event.kind) == (True, "operation.state_changed")
    assert (stalled.source.stalled, stalled.source.sequence) == (True, None)
    assert stalled.event.operation.stalled_since_unix_ns == T0 + 2 * S
    assert host.wait_until(500) == []
    moved = host.hear(run.tick(600, 3, 10))
    assert [each.source.stalled for each in moved] == [False, None]
    assert not host.view().stalled


def test_the_default_follows_the_usual_interval(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(20, 1, 10), run.tick(40, 2, 10))
    assert host.wait_until(139.9) == []
    assert len(host.wait_until(140.0)) == 1


def test_a_run_that_never_counted_stalls_only_by_its_own_value(host):
    silent, declared = Saying(1), Saying(2)
    host.hear_all(silent.started(), declared.started(stall_after_s=5.0))
    stalled = host.wait_until(100_000)
    assert [each.event.operation.id for each in stalled] == [declared.id]


def test_a_parent_with_live_children_leaves_it_to_them_to_stall(host):
    parent, child = Saying(1), Saying(2, parent=1)
    host.hear_all(
        parent.started(), parent.tick(1, 1, 10), child.started(1), child.tick(2, 1), child.tick(3, 2)
    )
    assert [each.event.operation.id for each in host.wait_until(1_000)] == [child.id]
    host.hear(child.ended(1_000))
    assert [each.event.operation.id for each in host.wait_until(1_031)] == [parent.id]


def test_a_parent_whose_child_moves_or_waits_is_not_stalled_even_by_its_own_value(host):
    parent, child = Saying(1), Saying(2, parent=1)
    host.hear_all(parent.started(stall_after_s=20.0), child.started(1))
    for at in range(2, 200, 10):
        host.hear(child.tick(at, float(at)))
        assert host.wait_until(at + 1) == []
    host.hear(child.state(State.WAITING, 200))
    assert host.wait_until(10_000) == []
    host.hear(child.state(State.RUNNING, 10_000))
    assert [each.event.operation.id for each in host.wait_until(10_020)] == [parent.id]


def test_a_stalled_parent_wakes_when_a_child_moves(host):
    parent, child = Saying(1), Saying(2, parent=1)
    host.hear_all(parent.started(), parent.tick(1, 1, 10))
    host.wait_until(60)
    assert host.view().stalled
    host.hear(child.started(61))
    published = host.hear(child.tick(62, 1, 10))
    assert [(each.event.operation.id, each.event.kind) for each in published] == [
        (child.id, "operation.progressed"),
        (parent.id, "operation.state_changed"),
    ]


def test_the_next_deadline_is_never_missed(host):
    run = Saying()
    host.hear_all(run.started(), run.tick(1, 1, 10))
    for _ in range(5):
        deadline = host.tree.next_deadline_unix_ns()
        if host.tree.advance(deadline):
            break
    assert deadline - (T0 + 31 * S) < 0.2 * S
    assert host.tree.next_deadline_unix_ns() is None


# --- views and forgetting -------------------------------------------------------------------------------------------------


def test_a_view_has_no_side_effects(host):
    run = Saying()
    host.hear_all(run.started(steps=("a",)), run.tick(1, 1, 10, step_name="a"))
    host.hear(run.tick(2, 2, 10, step_name="a"))
    before = host.view()
    assert host.tree.view(run.id, host.now + 25 * S).rate < before.rate
    assert host.view() == before


def test_ended_runs_are_forgotten_after_a_while_and_live_ones_never():
    host = Host(keep_ended_s=10)
    ended, live = Saying(1), Saying(2)
    host.hear_all(ended.started(), live.started(), ended.ended(5))
    assert host.tree.evict(T0 + 14 * S) == []
    assert host.tree.evict(T0 + 15 * S) == [ended.id]
    assert list(host.tree.run_ids()) == [live.id]
    assert ended.id not in host.tree
    assert host.hear(ended.note("too late", 16)) == []
    assert host.tree.evict(T0 + 10**9 * S) == []


def test_beyond_the_limit_the_oldest_ended_go_first():
    host = Host(max_runs=3)
    runs = [Saying(n) for n in range(1, 7)]
    for run in runs:
        host.hear(run.started())
    host.hear_all(runs[3].ended(1), runs[1].ended(2), runs[5].ended(3), runs[0].ended(4))
    assert host.tree.evict(host.now) == [runs[3].id, runs[1].id, runs[5].id]
    assert len(host.tree) == 3


def test_an_ended_parent_stays_while_a_child_lives():
    host = Host(keep_ended_s=0)
    parent, child = Saying(1), Saying(2, parent=1)
    host.hear_all(parent.started(), child.started(), parent.ended(1))
    assert host.tree.evict(T0 + 100 * S) == []
    host.hear(child.ended(2))
    assert set(host.tree.evict(T0 + 100 * S)) == {parent.id, child.id}
    assert len(host.tree) == 0


def test_a_limit_for_standing_still_that_is_said_late_counts_from_then_on(host):
    run = Saying()
    host.hear_all(run.tick(0, 1, 10), run.step("load", 0, sequence=2))
    host.wait_until(1.5)
    host.hear(run.tick(2, 3, 10, step_name="load", step_index=0))
    host.hear(run.started(0, sequence=1, stall_after_s=3.0), at=2)
    assert not any(one.event.operation.stalled for one in host.wait_until(4.5))
    assert any(one.event.operation.stalled for one in host.wait_until(6))


# --- who answers for what -------------------------------------------------------------------------------------------


def test_a_tree_knows_when_each_writer_that_answers_for_a_live_run_was_last_heard(host):
    first, second = Saying(1), Saying(2)
    host.hear_all(first.started(), first.tick(3, 1, 10), second.started(), second.ended(1))
    (writer,) = host.tree.writers()
    assert list(writer.live) == [first.id]
    assert writer.heard_ns == T0 + 3 * S


def test_what_a_start_said_of_its_span_can_be_asked_for(host):
    run = Saying()
    host.hear(run.started(parent_span_id="00000000000000aa", span_kind="server", sampled=False))
    said = host.tree.span_facts(run.id)
    assert (said.parent_span_id, said.kind, said.trace_state, said.sampled) == (
        "00000000000000aa",
        "server",
        None,
        False,
    )
    assert host.tree.span_facts("0" * 49) is None


def test_what_a_cancelled_run_said_last_is_not_taken_for_the_reason():
    tree, one = OperationTree(), Saying(1)
    tree.apply(one.started(0), T0)
    tree.apply(one.note("disk almost full", 1, level="warning"), T0 + S)
    tree.apply(one.ended(2, State.CANCELLED), T0 + 2 * S)
    view = tree.view(one.id, T0 + 2 * S)
    assert (view.state, view.message, view.level, view.warnings) == (State.CANCELLED, None, None, 1)
