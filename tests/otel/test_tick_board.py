from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.otel.tick_board import Seen, TickBoard

RUN = f"{1:032x}-{1:016x}"
OTHER = f"{1:032x}-{2:016x}"


def event(kind: str, run: str = RUN, **said) -> Event:
    return Event(kind=kind, run_id=run, time_unix_ns=1, **said)


def tick(completed: float, run: str = RUN) -> Event:
    return event(semconv.OPERATION_PROGRESSED, run, completed=completed)


def test_only_the_latest_tick_of_a_run_is_kept():
    board = TickBoard()
    for completed in (1.0, 2.0, 3.0):
        assert board.see(tick(completed)) is not Seen.DURABLE
    assert [each.completed for each in board.take(0.0)] == [3.0]
    assert board.take(0.0) == []


def test_a_durable_event_makes_the_runs_waiting_tick_worthless():
    board = TickBoard()
    board.see(tick(1.0))
    assert board.see(event(semconv.STEP_ENDED, completed=2.0)) is Seen.DURABLE
    assert board.take(0.0) == []


def test_a_run_lives_from_its_start_to_its_end():
    board = TickBoard()
    board.see(event(semconv.OPERATION_STARTED))
    assert board.live == {RUN}
    board.see(event(semconv.OPERATION_ENDED))
    assert board.live == set()


def test_ticks_of_too_many_runs_are_not_taken():
    board = TickBoard(limit=2)
    for n in range(4):
        board.see(tick(1.0, f"{n:032x}-{1:016x}"))
    assert len(board) == 2


def test_nobody_watching_all_ticks_leave_together_once_a_second():
    board = TickBoard()
    board.see(tick(1.0))
    assert len(board.take(10.0)) == 1
    board.see(tick(2.0))
    board.see(tick(3.0, OTHER))
    assert board.due_at_s() == 11.0
    assert board.take(10.9) == []
    assert len(board.take(11.0)) == 2
    assert board.due_at_s() is None


def test_a_watched_run_leaves_as_often_as_was_asked_for_and_the_others_as_before():
    board = TickBoard()
    board.take_interest({RUN: 4.0})
    sent: dict[str, list[float]] = {RUN: [], OTHER: []}
    for n in range(129):
        now_s = n / 128
        board.see(tick(n))
        board.see(tick(n, OTHER))
        for each in board.take(now_s):
            sent[each.run_id].append(now_s)
    assert sent[RUN] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert sent[OTHER] == [0.0, 1.0]


def test_nobody_gets_more_than_ten_a_second_however_often_is_asked():
    for interest in ({RUN: 1e9}, {"*": 1e9}):
        board = TickBoard()
        board.take_interest(interest)
        sent = 0
        for n in range(100):
            board.see(tick(n))
            sent += len(board.take(n / 100))
        assert sent == 10


def test_who_watches_everything_watches_every_run():
    board = TickBoard()
    board.take_interest({"*": 4.0, RUN: 2.0})
    board.see(tick(1.0))
    board.see(tick(1.0, OTHER))
    assert len(board.take(1.0)) == 2
    board.see(tick(2.0))
    board.see(tick(2.0, OTHER))
    assert board.due_at_s() == 1.25


def test_an_interest_that_is_withdrawn_leaves_the_plain_rate():
    board = TickBoard()
    board.take_interest({"*": 10.0})
    board.see(tick(1.0))
    board.take(1.0)
    board.take_interest({})
    board.see(tick(2.0))
    assert len(board.take(1.1)) == 1  # the round that was promised
    board.see(tick(3.0))
    assert board.due_at_s() == 2.1


def test_who_sleeps_until_the_next_round_is_told_when_something_may_leave_before_it():
    board = TickBoard()
    board.take_interest({RUN: 10.0})
    assert board.see(tick(1.0, OTHER)) is Seen.SOONER  # nobody knew of a round
    assert board.see(tick(2.0, OTHER)) is Seen.WAITS
    assert board.see(tick(1.0)) is Seen.SOONER
    assert board.see(tick(2.0)) is Seen.WAITS


def test_an_interest_in_everything_may_let_leave_at_once_what_waited_for_a_round():
    board = TickBoard()
    board.see(tick(1.0))
    board.take(10.0)
    board.see(tick(2.0))
    board.take_interest({"*": 10.0})
    assert len(board.take(10.05)) == 1


@given(
    rates=st.dictionaries(st.sampled_from([RUN, OTHER, "*"]), st.floats(0.1, 50)),
    gaps_s=st.lists(st.floats(0.001, 2.0), max_size=60),
)
def test_what_is_due_is_taken_and_what_is_not_due_is_not(rates: dict[str, float], gaps_s: list[float]):
    board, now_s = TickBoard(), 100.0
    board.take_interest(rates)
    for n, gap_s in enumerate(gaps_s):
        now_s += gap_s
        board.see(tick(n, RUN if n % 2 else OTHER))
        due_at_s = board.due_at_s()
        assert due_at_s is not None
        assert bool(board.take(now_s)) == (now_s >= due_at_s)
        left = board.due_at_s()
        assert left is None or left > now_s  # whoever sleeps until then does not spin
