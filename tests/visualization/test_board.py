from __future__ import annotations

import msgspec

from otelprogress.model.events import FeedEvent, State, StepState
from otelprogress.visualization.board import Board
from tests.visualization.screen import NOW, SECOND, make_step, make_view, nightly_load


def event(kind: str, view, **fields: object) -> FeedEvent:
    return FeedEvent(kind=kind, operation=view, **fields)


def test_the_newest_view_of_each_operation_is_kept():
    board = Board()
    board.apply(event("operation.started", make_view(1)))
    board.apply(event("operation.progressed", make_view(1, ratio=0.5)))
    assert [view.ratio for view in board.views(NOW)] == [0.5]


def test_steps_of_a_snapshot_outlive_events_that_carry_only_the_current_one():
    board = Board()
    board.apply(event("snapshot", nightly_load()))
    ended = make_step("load", 2, StepState.SUCCEEDED)
    board.apply(
        event("step.ended", msgspec.structs.replace(nightly_load(), steps=(), step=ended), step=ended)
    )
    (view,) = board.views(NOW)
    assert [(step.name, step.state) for step in view.steps] == [
        ("extract", "succeeded"),
        ("clean", "succeeded"),
        ("load", "succeeded"),
    ]


def test_the_counts_of_an_operation_without_steps_are_no_step():
    board = Board()
    board.apply(
        event("operation.progressed", make_view(1, step=make_step("", -1, StepState.RUNNING, completed=1)))
    )
    assert board.views(NOW)[0].steps == ()


def test_what_left_is_forgotten():
    board = Board()
    board.apply(event("operation.started", make_view(1)))
    board.apply(event("left", make_view(1)))
    assert len(board) == 0


def test_what_ended_long_ago_is_forgotten():
    board = Board(keep_ended_s=10)
    board.apply(event("operation.ended", make_view(1, state=State.LOST, ended_at_unix_ns=NOW)))
    assert len(board.views(NOW + 9 * SECOND)) == 1
    assert board.views(NOW + 11 * SECOND) == []


def test_a_board_has_a_bound_and_keeps_what_lives():
    board = Board(max_operations=10)
    for number in range(30):
        ended = {"state": State.SUCCEEDED, "ended_at_unix_ns": NOW} if number % 3 else {}
        board.apply(event("snapshot", make_view(number, **ended)))
    assert len(board.views(NOW)) == 10
    assert all(view.live for view in board.views(NOW))
