from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

import otelprogress as progress
from otelprogress.step import as_count, in_ucum
from tests.recording import recording


@pytest.mark.parametrize(
    ("unit", "ucum"),
    [
        ("row", "{row}"),
        ("data row", "{data row}"),
        ("{row}", "{row}"),
        ("By", "By"),
        ("MiBy", "MiBy"),
        ("s", "s"),
        ("%", "%"),
        ("row/s", "row/s"),
        ("", None),
        (None, None),
    ],
)
def test_a_word_is_an_annotation_and_ucum_stays(unit, ucum):
    assert in_ucum(unit) == ucum


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (3, 3),
        (2.5, 2.5),
        (True, 1),
        (Decimal("1.5"), 1.5),
        (Fraction(1, 2), 0.5),
        (10**30, 10**30),
        (10**400, None),
        (-1, None),
        (-0.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("NaN"), None),
        ("3", None),
        (b"3", None),
        (None, None),
        ([], None),
        (1j, None),
    ],
    ids=repr,
)
def test_a_count_is_finite_and_not_negative(value, count):
    assert as_count(value) == count
    assert type(as_count(value)) in {int, float, type(None)}


def test_counts_can_be_said_as_absolute_numbers():
    with recording(strict=True), progress.operation("load") as operation, operation.step("copy") as step:
        step.set_completed(40, 100, unit="row")
        assert (step.completed, step.total, step.unit) == (40, 100, "{row}")
        step.set_completed(50)
        assert (step.completed, step.total) == (50, 100)
        step.set_initial(10)
        step.set_initial(30)
        assert step.completed == 80


def test_a_step_that_counts_nothing_says_no_counts():
    with recording(strict=True) as said, progress.operation("load"), progress.step("think"):
        pass
    (ended,) = said.of("step.ended")
    assert (ended.completed, ended.total, ended.unit, ended.counters) == (None, None, None, None)


def test_a_step_that_is_entered_twice_at_once_is_one():
    with recording(strict=True) as said, progress.operation("load") as operation:
        with operation.step("a"), operation.step("a"):
            pass
    assert said.kinds() == ["operation.started", "step.started", "step.ended", "operation.ended"]


def test_entering_a_step_of_an_operation_that_ended_is_misuse():
    with recording() as said:
        with progress.operation("load") as operation:
            pass
        with operation.step("late"):
            pass
    assert said.kinds() == ["operation.started", "operation.ended"]


def test_counts_beside_the_steps_leave_the_counts_of_the_last_step_alone(progress_capture):
    with progress.operation("load", steps=["read"]) as operation:
        with operation.step("read") as read:
            for _ in read.track(range(50)):
                pass
        operation.advance(2)
        operation.note("two more")
        for _ in operation.track([1, 2, 3]):
            with operation.step("read"):
                operation.root.advance()
                operation.note("inside")
    captured = progress_capture.one("load")
    assert (captured.step("read").completed, captured.step("read").total) == (50, 50)
    assert captured.view.ratio == 1
