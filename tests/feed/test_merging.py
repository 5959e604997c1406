from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from otelprogress.feed import merging
from otelprogress.feed.merging import Merge, first_hand
from otelprogress.model.events import FeedEvent, OperationView, State, StepView

RUN = f"{1:032x}-{1:016x}"
PROCESS, COLLECTOR = "process", "collector"


def view(
    at: int = 0, *, run: str = RUN, state: State = State.RUNNING, handle: str = "load-1"
) -> OperationView:
    return OperationView(
        id=run,
        handle=handle,
        name="load",
        state=state,
        revision=at,
        as_of_unix_ns=at,
        step=StepView(name="s", index=0, completed=float(at)),
    )


def note(
    at: int, *, run: str = RUN, kind: str = "operation.noted", state: State = State.RUNNING
) -> FeedEvent:
    return FeedEvent(kind=kind, operation=view(at, run=run, state=state), time_unix_ns=at, message=str(at))


def tick(at: int, *, run: str = RUN, kind: str = "operation.progressed") -> FeedEvent:
    return FeedEvent(kind=kind, operation=view(at, run=run), time_unix_ns=at)


def snapshot(at: int, *, state: State = State.RUNNING) -> FeedEvent:
    return FeedEvent(kind="snapshot", operation=view(at, state=state), time_unix_ns=at)


def ended(at: int, state: State) -> FeedEvent:
    return note(at, kind="operation.ended", state=state)


def lost_by(detector: str, at: int) -> FeedEvent:
    """`pid` is the reader's own verdict; the collector's has another time."""
    event = ended(at, State.LOST)
    return msgspec.structs.replace(
        event, operation=msgspec.structs.replace(event.operation, lost_detector=detector)
    )


class Heard:
    """What a merge gives on, as `process 3` or `collector 3`."""

    def __init__(self, awaited: dict[str, int] | None = None) -> None:
        self.merge = Merge(awaited)
        self.given: list[str] = []

    def process(self, *events: FeedEvent) -> Heard:
        return self._hear(PROCESS, events)

    def collector(self, *events: FeedEvent) -> Heard:
        return self._hear(COLLECTOR, events)

    def away(self) -> Heard:
        self.given += [f"{PROCESS} {owed.event.time_unix_ns}" for owed in self.merge.away(COLLECTOR)]
        return self

    def _hear(self, feed: str, events: tuple[FeedEvent, ...]) -> Heard:
        for event in events:
            if self.merge.take(feed, event, collector=feed == COLLECTOR):
                self.given.append(f"{feed} {event.time_unix_ns}")
            self.given += [f"{PROCESS} {owed.event.time_unix_ns}" for owed in self.merge.instead()]
        return self


def test_what_only_one_feed_tells_of_is_given_as_it_is():
    assert Heard().process(note(1), tick(2), note(3), note(3)).given == [
        "process 1",
        "process 2",
        "process 3",
        "process 3",
    ]
    assert Heard().collector(snapshot(1), tick(2), note(3)).given == [
        "collector 1",
        "collector 2",
        "collector 3",
    ]


def test_a_run_that_both_tell_of_comes_once_and_from_the_collector_once_it_has_caught_up():
    heard = Heard().process(note(1), note(2), tick(3)).collector(note(1))
    assert heard.given == ["process 1", "process 2", "process 3"]
    heard.process(tick(4)).collector(note(2)).process(tick(5), tick(6)).collector(tick(5), note(7)).process(
        note(7)
    )
    assert heard.given == ["process 1", "process 2", "process 3", "process 4", "collector 5", "collector 7"]


def test_what_the_state_of_the_process_includes_the_collector_does_not_tell_again():
    heard = Heard().process(snapshot(9)).collector(note(1), note(5, kind="operation.started"), note(10))
    assert heard.given == ["process 9", "collector 10"]
    heard = Heard().process(snapshot(9)).collector(ended(5, State.LOST))
    assert heard.given == ["process 9", "collector 5"]


def test_what_the_collector_says_first_is_not_heard_from_the_process():
    heard = Heard().collector(snapshot(5)).process(snapshot(6), note(7), tick(8)).collector(note(7))
    assert heard.given == ["collector 5", "collector 7"]


def test_a_collector_that_is_behind_takes_nothing_back():
    heard = Heard().process(snapshot(9)).collector(snapshot(3), tick(4)).process(tick(10))
    assert heard.given == ["process 9", "process 10"]
    heard = Heard().process(ended(9, State.SUCCEEDED)).collector(snapshot(3), tick(4))
    assert heard.given == ["process 9"]


def test_the_collectors_verdict_counts_whatever_the_process_says():
    heard = Heard().process(note(1), tick(8)).collector(ended(5, State.LOST)).process(tick(9), note(10))
    assert heard.given == ["process 1", "process 8", "collector 5"]
    heard.collector(note(6, kind="operation.state_changed"))  # the writer was heard again
    assert heard.given[-1] == "collector 6"


outcomes = pytest.mark.parametrize("outcome", [State.SUCCEEDED, State.FAILED, State.CANCELLED])


@outcomes
def test_no_verdict_of_a_collector_follows_an_outcome_that_the_process_said_itself(outcome: State):
    heard = Heard().process(note(1), ended(9, outcome)).collector(lost_by("link", 8))
    assert heard.given == ["process 1", "process 9"]
    # It is heard again, and then the truth: that was told.
    revived = note(10, kind="operation.state_changed")
    heard.collector(revived, tick(11), snapshot(12), snapshot(13, state=State.LOST), ended(9, outcome))
    assert heard.given == ["process 1", "process 9"]


@outcomes
def test_nor_where_that_outcome_is_only_the_state_in_which_the_process_shows_the_run(outcome: State):
    heard = Heard().process(snapshot(9, state=outcome)).collector(snapshot(3, state=State.LOST))
    assert heard.collector(lost_by("lease", 8)).given == ["process 9"]


@outcomes
def test_nor_after_a_cursor_was_saved(outcome: State):
    before = Heard().process(note(1), ended(9, outcome))
    after = Heard(before.merge.awaited()).collector(note(1), lost_by("link", 8), ended(9, outcome))
    assert after.given == []


@outcomes
def test_an_outcome_of_the_process_is_given_in_the_place_of_the_collectors_verdict(outcome: State):
    heard = Heard().process(note(1)).collector(note(1)).process(note(2), ended(5, outcome))
    heard.collector(lost_by("link", 7)).away().collector(note(2), ended(5, outcome))
    assert heard.given == ["process 1", "process 2", "process 5"]


@outcomes
def test_an_outcome_of_the_process_takes_the_collectors_verdict_back_at_once(outcome: State):
    heard = Heard().process(note(1)).collector(note(1), lost_by("link", 7)).process(ended(5, outcome))
    heard.collector(note(8, kind="operation.state_changed"), ended(5, outcome))
    assert heard.given == ["process 1", "collector 7", "process 5"]


def test_what_the_collector_says_itself_takes_its_own_verdict_back():
    heard = Heard().collector(note(1), lost_by("link", 8), ended(9, State.SUCCEEDED))
    assert heard.given == ["collector 1", "collector 8", "collector 9"]


def test_a_verdict_of_the_reader_itself_is_not_given_while_the_collector_speaks():
    heard = Heard().process(note(1)).collector(note(1))
    heard.process(ended(5, State.LOST)).collector(tick(6), ended(7, State.SUCCEEDED))
    assert heard.given == ["process 1", "collector 6", "collector 7"]


def test_without_the_collector_the_process_is_heard_from_where_the_collector_stopped():
    heard = Heard().process(note(1)).collector(note(1)).process(note(2), note(3), tick(4)).collector(note(2))
    assert heard.given == ["process 1", "collector 2"]
    heard.away().process(tick(5), note(6))
    assert heard.given == ["process 1", "collector 2", "process 3", "process 5", "process 6"]
    heard.collector(note(3)).process(tick(7)).collector(note(6), tick(8)).process(tick(9))
    assert heard.given[5:] == ["process 7", "collector 8"]


def test_a_verdict_that_waited_for_the_collector_is_given_once_that_cannot_be_reached():
    heard = Heard().process(note(1)).collector(note(1)).process(ended(5, State.LOST)).away()
    assert heard.given == ["process 1", "process 5"]
    # It comes back and knows better: a verdict is a guess, and its word counts.
    heard.collector(tick(6))
    assert heard.given[-1] == "collector 6"


@pytest.mark.parametrize("first", ["reader", "collector", "reader, once the collector is away"])
def test_a_verdict_of_the_reader_never_follows_the_collectors(first: str):
    heard = Heard().process(note(1)).collector(note(1))
    if first == "reader":
        heard.process(lost_by("pid", 5)).collector(lost_by("link", 7)).away()
    elif first == "collector":
        heard.collector(lost_by("link", 7)).process(lost_by("pid", 5)).away()
    else:
        heard.collector(lost_by("link", 7)).away().process(lost_by("pid", 5))
    assert heard.given == ["process 1", "collector 7"]


def test_the_collectors_verdict_is_no_second_one_where_the_reader_gave_its_own():
    heard = Heard().process(note(1), lost_by("pid", 5)).collector(note(1), lost_by("link", 7))
    assert heard.given == ["process 1", "process 5"]
    heard.collector(note(8, kind="operation.state_changed"), ended(9, State.SUCCEEDED))  # it lived after all
    assert heard.given[2:] == ["collector 8", "collector 9"]


def test_a_verdict_of_the_reader_is_forgotten_though_the_run_was_heard_again_after_the_collectors():
    heard = Heard().process(note(1)).collector(note(1)).process(lost_by("pid", 5))
    heard.collector(lost_by("link", 7), note(8, kind="operation.state_changed")).away()
    assert heard.given == ["process 1", "collector 7", "collector 8"]


def test_a_verdict_of_the_reader_and_the_collectors_are_one_also_if_a_cursor_was_saved_between_them():
    before = Heard().process(note(1), lost_by("pid", 5))
    after = Heard(before.merge.awaited()).collector(note(1), lost_by("link", 7), tick(8))
    assert after.given == ["collector 8"]
    before = Heard().collector(note(1), lost_by("link", 7))
    assert Heard(before.merge.awaited()).process(lost_by("pid", 5)).given == []


def test_a_second_verdict_after_a_cursor_is_given_where_the_run_was_heard_again():
    revived = note(8, kind="operation.state_changed")
    before = Heard().process(note(1), lost_by("pid", 5))
    after = Heard(before.merge.awaited()).collector(lost_by("link", 7), revived, lost_by("link", 9))
    assert after.given == ["collector 8", "collector 9"]
    before = Heard().collector(note(1), lost_by("link", 7), revived)
    assert Heard(before.merge.awaited()).collector(lost_by("link", 9)).given == ["collector 9"]


def test_what_the_collector_said_just_before_it_went_is_not_said_again_by_the_process():
    heard = Heard().collector(note(1), note(2)).away().process(note(1), note(2), note(3))
    assert heard.given == ["collector 1", "collector 2", "process 3"]


def test_only_the_first_of_two_collectors_is_heard_while_it_can_be():
    merge = Merge()
    assert merge.take("one", note(1), collector=True)
    assert not merge.take("two", note(2), collector=True)
    merge.away("one")
    assert merge.take("two", note(3), collector=True)


def test_what_was_given_of_a_process_before_a_cursor_was_saved_is_not_given_again_after_it():
    before = Heard().process(note(1), note(2)).collector(note(1))
    after = Heard(before.merge.awaited())
    after.collector(note(2), note(3))
    assert after.given == ["collector 3"]


def test_what_the_collector_said_in_several_visits_a_process_that_is_read_later_does_not_say_again():
    awaited: dict[str, int] = {}
    for visit in range(6):
        heard = Heard(awaited).collector(*(note(n) for n in range(visit * 10 + 1, visit * 10 + 11)))
        awaited = heard.merge.awaited()
    assert Heard(awaited).process(*(note(n) for n in range(1, 61))).given == []


def test_a_cursor_does_not_remember_for_long_what_no_collector_says():
    heard = Heard().process(*(note(n) for n in range(1, 1000)))
    assert len(heard.merge.awaited()) == merging.FOR_COLLECTOR.events
    heard.process(note(1000 + merging.FOR_COLLECTOR.for_ns))
    assert len(heard.merge.awaited()) == 1
    assert Heard({"of a later version": 1, "c also": 2, "": 3}).process(note(1)).given == ["process 1"]


def test_a_run_that_was_asked_for_goes_on_where_it_was_asked_for():
    heard = Heard()
    heard.merge.begin(COLLECTOR, view(5), collector=True)
    assert heard.process(snapshot(50), note(51)).collector(snapshot(6)).given == ["collector 6"]


def test_memory_is_bounded_however_many_runs_there_are(monkeypatch):
    monkeypatch.setattr(merging, "MAX_RUNS", 100)
    monkeypatch.setattr(merging, "MAX_GIVEN", 100)
    monkeypatch.setattr(merging, "MAX_OWED", 10)
    merge = Merge()
    for n in range(1, 1_000):
        run = f"{n:032x}-{1:016x}"
        merge.take(COLLECTOR, note(n, run=run), collector=True)
        merge.take(PROCESS, note(n + 1, run=run), collector=False)
    assert len(merge._runs) <= 100
    assert len(merge._given) <= 100
    assert len(merge._owed) <= 10


def test_two_answers_about_one_run_are_the_collectors_but_for_an_end_that_it_was_not_told_of_yet():
    running, lost = view(3, handle="load-7"), view(3, handle="load-7", state=State.LOST)
    assert first_hand(view(9), running) is running
    assert first_hand(view(9), lost) is lost
    for taken_for in (running, lost):
        seen = first_hand(view(9, state=State.SUCCEEDED), taken_for)
        assert (seen.state, seen.handle) == (State.SUCCEEDED, "load-7")
    failed = view(3, handle="load-7", state=State.FAILED)
    assert first_hand(view(9, state=State.SUCCEEDED), failed) is failed
    assert first_hand(view(9, state=State.LOST), running) is running


moves = st.lists(
    st.sampled_from(["say", "process", "collector", "tick by process", "tick by collector", "away", "save"]),
    max_size=120,
)


@given(moves)
def test_each_durable_event_comes_once_and_in_order_however_the_feeds_interleave(moves: list[str]):
    """A writer says; both feeds pass it on, each in order, the collector never ahead of the writer."""
    assume("save" not in moves or moves.count("collector") <= merging.FOR_PROCESS.events)
    heard, said, read = Heard(), 0, {PROCESS: 0, COLLECTOR: 0}
    given: list[str] = []
    for move in moves:
        if move == "say":
            said += 1
        elif move == "away":
            heard.away()
        elif move == "save":  # a new reader goes on from the cursors of the old one
            given += heard.given
            heard = Heard(heard.merge.awaited())
        elif move == "tick by process":
            heard.process(tick(said * 10))
        elif move == "tick by collector":
            heard.collector(tick(read[COLLECTOR] * 10))
        elif read[move] < said:
            read[move] += 1
            getattr(heard, move)(note(read[move] * 10 + 1))
    for _ in range(said - read[PROCESS]):
        read[PROCESS] += 1
        heard.process(note(read[PROCESS] * 10 + 1))
    for _ in range(said - read[COLLECTOR]):
        read[COLLECTOR] += 1
        heard.collector(note(read[COLLECTOR] * 10 + 1))
    given += heard.given
    durable = [int(each.partition(" ")[2]) for each in given if each.endswith("1")]
    if "save" not in moves:
        assert durable == [n * 10 + 1 for n in range(1, said + 1)]
    else:
        assert sorted(set(durable)) == [n * 10 + 1 for n in range(1, said + 1)]
        assert len(durable) == len(set(durable))


@given(
    st.lists(
        st.sampled_from(["process", "collector", "lost", "heard again", "pid", "away", "save"]), max_size=60
    )
)
def test_the_writers_own_end_comes_once_and_is_the_last_word_whoever_takes_it_for_lost(moves: list[str]):
    """The writer has said three things and its end; the collector hears of them late and judges from outside."""
    said = [note(1), note(2), note(3), ended(4, State.SUCCEEDED)]
    heard, read, lost, judged = Heard(), {PROCESS: 0, COLLECTOR: 0}, False, 100
    given: list[str] = []
    losses: set[int] = set()
    for move in [*moves, *["process"] * 4, *["collector"] * 4]:
        judged += 1
        if move == "away":
            heard.away()
        elif move == "save":
            given += heard.given
            heard = Heard(heard.merge.awaited())
        elif move == "pid":
            if read[PROCESS] < len(said):  # else there is nothing that could be lost
                losses.add(judged)
                heard.process(lost_by("pid", judged))
        elif move in ("lost", "heard again"):
            if read[COLLECTOR] < len(said) and lost == (move == "heard again"):
                lost = not lost
                if lost:
                    losses.add(judged)
                revived = note(judged, kind="operation.state_changed")
                heard.collector(lost_by("link", judged) if lost else revived)
        elif read[move] < len(said):
            read[move] += 1
            getattr(heard, move)(said[read[move] - 1])
    given += heard.given
    times = [int(each.partition(" ")[2]) for each in given]
    assert times.count(4) == 1
    assert all(at < 100 for at in times[times.index(4) :])
    assert not [pair for pair in pairwise(times) if losses.issuperset(pair)]


def test_what_led_to_the_state_that_a_collector_begins_with_after_a_gap_is_heard_of_the_process():
    begun = msgspec.structs.replace(snapshot(10), gap="invalid")
    heard = Heard().collector(begun).process(note(7), note(8), note(12)).collector(note(8), note(12))
    assert heard.given == ["collector 10", "process 7", "process 8", "collector 12"]


def test_without_a_gap_a_collector_that_speaks_for_a_run_is_waited_for():
    assert Heard().collector(snapshot(10)).process(note(7)).given == ["collector 10"]
