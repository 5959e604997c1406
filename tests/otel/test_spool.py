from __future__ import annotations

from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.otel.spool import Spool, TickBoard

RUN = "0" * 31 + "1-" + "0" * 15 + "1"


def event(kind: str, run: str = RUN, **said) -> Event:
    return Event(kind=kind, run_id=run, time_unix_ns=1, **said)


def test_entries_leave_in_the_order_they_came():
    spool = Spool(10)
    for n in range(5):
        spool.put(n)
    assert spool.take(2) == [0, 1]
    assert spool.take(10) == [2, 3, 4]
    assert spool.take(10) == []


def test_a_full_spool_drops_the_oldest_and_counts_them():
    spool = Spool(3)
    for n in range(5):
        spool.put(n)
    assert spool.dropped == 2
    assert spool.take(10) == [2, 3, 4]


def test_what_was_not_used_goes_back_to_the_front():
    spool = Spool(10)
    for n in range(4):
        spool.put(n)
    taken = spool.take(3)
    spool.put_back(taken[1:])
    assert spool.take(10) == [1, 2, 3]


def test_only_the_latest_tick_of_a_run_is_kept():
    board = TickBoard()
    for completed in (1.0, 2.0, 3.0):
        assert not board.see(event(semconv.OPERATION_PROGRESSED, completed=completed))
    assert [tick.completed for tick in board.take()] == [3.0]
    assert board.take() == []


def test_a_durable_event_makes_the_runs_waiting_tick_worthless():
    board = TickBoard()
    board.see(event(semconv.OPERATION_PROGRESSED, completed=1.0))
    assert board.see(event(semconv.STEP_ENDED, completed=2.0))
    assert board.take() == []


def test_a_run_lives_from_its_start_to_its_end():
    board = TickBoard()
    board.see(event(semconv.OPERATION_STARTED))
    assert board.live == {RUN}
    board.see(event(semconv.OPERATION_ENDED))
    assert board.live == set()


def test_ticks_of_too_many_runs_are_not_taken():
    board = TickBoard(limit=2)
    for n in range(4):
        board.see(event(semconv.OPERATION_PROGRESSED, run=f"{n:032x}-{1:016x}"))
    assert len(board) == 2
