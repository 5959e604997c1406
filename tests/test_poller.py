from __future__ import annotations

import inspect
import threading

import pytest

import otelprogress as progress
from otelprogress import active
from otelprogress.sampler import Sampler
from tests.recording import recording
from tests.waiting import eventually


@pytest.fixture
def sampler():
    kept = Sampler()
    yield kept
    kept.close()


def test_a_poll_counts_for_its_step_until_that_closes(sampler):
    asked = threading.Event()
    rows = [5]

    def count() -> float:
        asked.set()
        return rows[0]

    with recording(sampler=sampler) as said:
        with progress.operation("load"), progress.step("copy") as step:
            step.poll(count, total=9, unit="row", every_s=0.05)
            eventually(lambda: step.completed == 5)
            rows[0] = 9
            eventually(lambda: step.completed == 9)
        (ended,) = said.of("step.ended")
        assert (ended.completed, ended.total, ended.unit) == (9, 9, "{row}")
        eventually(
            lambda: not [thread for thread in threading.enumerate() if thread.name == "otelprogress-poll"]
        )


def test_a_poll_that_raises_is_counted_and_asked_again(sampler):
    answers = iter([ValueError("not yet"), -1, 4])

    def count() -> float:
        answer = next(answers, 4)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with recording(sampler=sampler), progress.operation("load") as operation:
        operation.poll(count, every_s=0.05)
        eventually(lambda: operation.root.completed == 4)
        assert sum(active.misuses.values()) == 2


def test_without_a_thread_a_poll_is_asked_at_once_and_at_the_end():
    rows = [2]
    with recording() as said, progress.operation("load") as operation:
        operation.poll(lambda: rows[0])
        assert operation.root.completed == 2
        rows[0] = 7
    assert said.ended("load").completed == 7


def test_a_poll_that_fails_names_its_function_and_where_it_was_given(sampler, caplog):
    def rows_done() -> float:
        raise ValueError("not yet")

    with recording(sampler=sampler), progress.operation("load") as operation:
        line = inspect.currentframe().f_lineno + 1
        operation.poll(rows_done)
        eventually(lambda: caplog.text)  # counted first, and said then
    assert list(active.misuses) == [f"{__file__}:{line}"]
    assert "rows_done() given to poll() failed: ValueError: not yet" in caplog.text
