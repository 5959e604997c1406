from __future__ import annotations

import threading

import pytest

import otelprogress as progress
from otelprogress.model import semconv
from otelprogress.sampler import Sampler
from tests.recording import recording
from tests.waiting import eventually


@pytest.fixture
def sampler():
    kept = Sampler()
    yield kept
    kept.close()


def ticks(said) -> list:
    return said.of("operation.progressed")


def test_a_moved_counter_becomes_one_tick_and_an_unmoved_one_none():
    sampler = Sampler()
    with recording(sampler=sampler) as said:
        sampler._closed = True  # nobody looks but this test
        with progress.operation("load") as operation:
            operation.advance(3)
            sampler.look()
            sampler.look()
            assert [tick.completed for tick in ticks(said)] == [3]
            operation.advance()
            sampler.look()
            assert [tick.completed for tick in ticks(said)] == [3, 4]
        sampler.look()
        assert len(ticks(said)) == 2
        assert {tick.sequence for tick in ticks(said)} == {None}


def test_a_loop_after_one_that_was_left_early_counts_before_anybody_looked():
    sampler = Sampler()
    with recording(sampler=sampler) as said:
        sampler._closed = True
        with progress.operation("find") as operation:
            for n in progress.track(range(10)):
                if n == 4:
                    break
            for _ in progress.track(range(3)):
                pass
            assert operation.root.completed == 7
            sampler.look()
    ended = said.ended("find")
    assert (ended.completed, ended.total) == (7, 13)


def test_of_several_open_steps_a_tick_carries_the_one_that_moved_last():
    sampler = Sampler()
    with recording(sampler=sampler) as said:
        sampler._closed = True
        with progress.operation("load") as operation:
            with operation.step("a") as a, operation.step("b") as b:
                b.advance()
                sampler.look()
                a.advance()
                sampler.look()
    assert [(tick.step_name, tick.completed) for tick in ticks(said)] == [("b", 1), ("a", 1)]


def test_the_latest_message_is_said_by_the_next_tick():
    sampler = Sampler()
    with recording(sampler=sampler) as said:
        sampler._closed = True
        with progress.operation("load") as operation:
            operation.show("one of three")
            operation.show("two of three")
            sampler.look()
    assert [tick.message for tick in ticks(said)] == ["two of three"]


def test_a_live_loop_is_seen_from_the_thread(sampler):
    with recording(sampler=sampler) as said:
        release = threading.Event()

        def items():
            yield 1
            yield 2
            release.wait(30)
            yield 3

        def work() -> None:
            for _ in progress.track(items(), "load"):
                pass

        thread = threading.Thread(target=work)
        thread.start()
        eventually(lambda: [tick for tick in ticks(said) if tick.completed == 1])
        release.set()
        thread.join()
        assert said.ended("load").completed == 3


def test_the_thread_parks_when_nothing_lives_and_wakes_again(sampler, monkeypatch):
    monkeypatch.setattr("otelprogress.sampler.LINGER_S", 0.01)
    with recording(sampler=sampler) as said:
        with progress.operation("one"):
            pass
        eventually(lambda: sampler._parked)
        with progress.operation("two") as operation:
            operation.advance()
            eventually(lambda: ticks(said))


def test_the_thread_survives_what_its_chores_raise(sampler):
    ran = threading.Event()

    def broken() -> None:
        raise RuntimeError

    sampler.add_chore(broken)
    sampler.add_chore(ran.set)
    sampler.ensure_started()
    assert ran.wait(15)
    assert sampler.errors


def test_a_loop_left_early_ends_its_operation_on_the_samplers_thread(sampler):
    with recording(sampler=sampler) as said:
        for n in progress.track(range(10), "scan"):
            if n == 5:
                break
        eventually(lambda: said.of("operation.ended"))
        assert said.ended("scan").message == "left at 5 of 10"


def test_a_forked_copy_starts_clean(sampler):
    with recording(sampler=sampler):
        with progress.operation("one"):
            pass
        sampler.reset_after_fork()
        assert sampler._thread is None
        with progress.operation("two"):
            assert sampler._thread is not None


def test_a_tick_after_the_end_is_not_made():
    with recording() as said, progress.operation("load") as operation:
        operation.advance()
    assert operation.tick(1) is None
    assert semconv.OPERATION_PROGRESSED not in {event.kind for event in said.events}
