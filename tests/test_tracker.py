from __future__ import annotations

import pytest

import otelprogress as progress
from otelprogress.exceptions import (
    IllegalTransition,
    InvalidValue,
    ProgressError,
    UnknownOperation,
    UnknownStep,
    UsageError,
)
from otelprogress.model.events import State, StepState
from tests.recording import recording


@pytest.fixture
def said():
    with recording(strict=True) as kept:
        yield kept


@pytest.fixture
def tracker():
    return progress.ProgressTracker()


def test_an_operation_is_driven_by_its_id(said, tracker):
    tracker.start_operation("job-7", ["fetch", "parse"])
    tracker.update_progress("job-7", "fetch")
    tracker.update_progress("job-7", "parse", "3 of 9", completed=3, total=9)
    tracker.update_progress("job-7", 1, completed=9)
    tracker.complete_operation("job-7", {"rows": 9})
    started = said.started("job-7")
    assert (started.label, started.steps) == ("job-7", ("fetch", "parse"))
    assert [(event.step_name, event.step_state) for event in said.of("step.ended")] == [
        ("fetch", StepState.SUCCEEDED),
        ("parse", StepState.SUCCEEDED),
    ]
    ended = said.ended("job-7")
    assert (ended.state, ended.result, ended.message) == (State.SUCCEEDED, '{"rows":9}', "3 of 9")
    assert (said.of("step.ended")[1].completed, said.of("step.ended")[1].total) == (9, 9)


def test_the_live_operation_can_be_had_by_its_id_until_it_ended(said, tracker):
    tracker.start_operation("job-7", ["fetch"])
    tracker.get_operation("job-7").note("by hand")
    assert said.of("operation.noted")[0].message == "by hand"
    tracker.complete_operation("job-7")
    with pytest.raises(progress.IllegalTransition):
        tracker.get_operation("job-7")
    with pytest.raises(progress.UnknownOperation):
        tracker.get_operation("job-8")


def test_an_operation_fails_with_an_exception_or_with_words(said, tracker):
    tracker.start_operation("a", ["one"])
    tracker.update_progress("a", "one")
    tracker.fail_operation("a", LookupError("gone"))
    tracker.start_operation("b")
    tracker.fail_operation("b", "the disk is full")
    assert (said.ended("a").error_type, said.ended("a").error_message) == ("LookupError", "gone")
    assert said.of("step.ended")[0].step_state is StepState.FAILED
    assert (said.ended("b").state, said.ended("b").error_message) == (State.FAILED, "the disk is full")


def test_an_operation_can_be_cancelled_and_its_id_used_again(said, tracker):
    tracker.start_operation("a")
    tracker.cancel_operation("a", "not wanted")
    assert (said.ended("a").state, said.ended("a").message) == (State.CANCELLED, "not wanted")
    tracker.start_operation("a", name="again")
    tracker.complete_operation("a")
    assert said.ended("again").state is State.SUCCEEDED


def test_it_is_not_current_but_a_child_of_what_is(said, tracker):
    with progress.operation("outer") as outer:
        tracker.start_operation("inner")
        assert progress.current_operation() is outer
        tracker.complete_operation("inner")
    assert said.started("inner").parent_span_id == outer.run_id[33:]


@pytest.mark.parametrize("configured", [True, False])
def test_every_mistake_raises_whether_or_not_anything_is_configured(tracker, configured):
    def mistakes() -> None:
        with pytest.raises(UnknownOperation, match="was not started"):
            tracker.update_progress("x")
        with pytest.raises(InvalidValue):
            tracker.start_operation("")
        with pytest.raises(InvalidValue, match="weights"):
            tracker.start_operation("x", {"a": -1})
        with pytest.raises(InvalidValue, match="list of names"):
            tracker.start_operation("x", "fetch")
        tracker.start_operation("x", ["fetch"])
        with pytest.raises(UsageError, match="has not ended"):
            tracker.start_operation("x")
        for step in ("parse", 1, -1, True, 1.5):
            with pytest.raises(UnknownStep, match="its steps are: fetch"):
                tracker.update_progress("x", step)
        for count in (-1, float("nan"), float("inf"), "three"):
            with pytest.raises(InvalidValue):
                tracker.update_progress("x", 0, completed=count)
            with pytest.raises(InvalidValue):
                tracker.update_progress("x", 0, total=count)
        with pytest.raises(InvalidValue):
            tracker.note("x", "hello", level="loud")
        tracker.complete_operation("x")
        for again in (
            lambda: tracker.complete_operation("x"),
            lambda: tracker.fail_operation("x", "no"),
            lambda: tracker.cancel_operation("x"),
            lambda: tracker.update_progress("x", 0),
            lambda: tracker.note("x", "hello"),
        ):
            with pytest.raises(IllegalTransition, match="succeeded") as refused:
                again()
            assert isinstance(refused.value, ProgressError)

    if configured:
        with recording():
            mistakes()
    else:
        mistakes()


@pytest.mark.parametrize("no_id", [[], ["job"], {}])
def test_what_cannot_be_an_id_is_said_to_be_none(tracker, no_id):
    with pytest.raises(InvalidValue, match="give the operation an id"):
        tracker.start_operation(no_id)
    with pytest.raises(UnknownOperation):
        tracker.complete_operation(no_id)


def test_any_hashable_id_does_and_can_be_listed(said, tracker):
    tracker.start_operation(7)
    with pytest.raises(UnknownOperation, match="started are: 7"):
        tracker.complete_operation(8)
    tracker.complete_operation(7)
    assert said.started("7").label == "7"


@pytest.mark.parametrize("word", ["steps", "controls"])
@pytest.mark.parametrize("no_list", [5, None, "fetch"])
def test_steps_and_controls_are_lists(tracker, word, no_list):
    with pytest.raises(InvalidValue, match=f"{word}=.*give a list of names"):
        tracker.start_operation("job", **{word: no_list})
