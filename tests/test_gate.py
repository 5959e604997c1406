from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator

import pytest

import otelprogress as progress
from otelprogress import active
from otelprogress.exceptions import OperationCancelled
from otelprogress.gate import Gate
from otelprogress.model.events import State
from tests.forking import exit_code, forked
from tests.recording import recording
from tests.waiting import aeventually, eventually


def test_a_paused_loop_stands_still_and_goes_on():
    seen = []
    with recording() as said:

        def train() -> None:
            with progress.operation("train", controls=["pause"]) as operation:
                operations.append(operation)
                for n in progress.track(range(3)):
                    seen.append(n)
                    if n == 0:
                        operation.pause()

        operations: list = []
        thread = threading.Thread(target=train)
        thread.start()
        eventually(lambda: said.of("control.applied"))
        assert seen == [0]
        assert [event.state for event in said.of("operation.state_changed")] == [State.PAUSED]
        assert operations[0].resume()
        thread.join()
    assert seen == [0, 1, 2]
    assert [event.state for event in said.of("operation.state_changed")] == [State.PAUSED, State.RUNNING]
    assert [event.control_action for event in said.of("control.applied")] == ["pause", "resume"]


def test_a_loop_that_a_blocking_source_holds_is_cancelled_at_its_next_item():
    release = threading.Event()

    def slow():
        yield 1
        release.wait(30)
        yield 2

    outcome: list = []
    with recording():

        def work() -> None:
            with progress.operation("work", controls=["cancel"]) as operation:
                operations.append(operation)
                try:
                    for n in progress.track(slow()):
                        outcome.append(n)  # noqa: PERF402 - a loop is what is cancelled
                except OperationCancelled as cancelled:
                    outcome.append(cancelled.reason)

        operations: list = []
        thread = threading.Thread(target=work)
        thread.start()
        eventually(lambda: outcome)
        operations[0].cancel("enough")
        release.set()
        thread.join()
    assert outcome == [1, "enough"]


def test_a_paused_gate_can_be_cancelled():
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.pause()
    raised: list[str] = []

    def obey() -> None:
        try:
            gate.check()
        except OperationCancelled as cancelled:
            raised.append(cancelled.reason)

    thread = threading.Thread(target=obey)
    thread.start()
    eventually(lambda: applied)
    gate.cancel("enough")
    thread.join()
    assert (applied, raised) == (["pause", "cancel"], ["enough"])


def test_a_child_that_is_paused_sees_its_parents_cancel():
    applied: list[str] = []
    parent = Gate(applied.append)
    child = Gate(applied.append, parent)
    child.pause()
    raised: list[str] = []

    def obey() -> None:
        try:
            child.check()
        except OperationCancelled as cancelled:
            raised.append(cancelled.reason)

    thread = threading.Thread(target=obey)
    thread.start()
    eventually(lambda: applied)
    parent.cancel("all of it")
    thread.join()
    assert raised == ["all of it"]


async def test_on_a_running_loop_a_checkpoint_honours_cancel_and_never_blocks():
    gate = Gate(lambda _action: None)
    gate.pause()
    gate.check()
    gate.cancel()
    with pytest.raises(OperationCancelled):
        gate.check()


async def test_a_sync_loop_on_a_running_loop_goes_on_while_paused_and_obeys_cancel():
    with recording(), progress.operation("work", controls=["cancel", "pause"]) as operation:
        seen = []
        with pytest.raises(OperationCancelled):
            for n in progress.track(range(1000)):
                seen.append(n)
                if n == 2:
                    operation.pause()
                if n == 5:
                    operation.cancel()
        assert seen == list(range(6))
        assert operation.root.completed == 6


def test_a_loop_that_stands_still_has_worked_off_what_it_was_given_and_goes_on_from_there():
    counts: list[float] = []
    with recording(strict=True) as said:

        def work() -> None:
            with progress.operation("work", controls=["pause"]) as operation:
                for n in progress.track(range(5)):
                    counts.append(operation.root.completed)
                    if n == 2:
                        operation.pause()

        thread = threading.Thread(target=work)
        thread.start()
        (applied,) = eventually(lambda: said.of("control.applied"))
        assert applied.completed == 3, "there is none in the body"
        (operation,) = active.current.live.values()
        assert operation.root.completed == 3
        operation.resume()
        thread.join()
    assert counts == [0, 1, 2, 3, 4]
    assert said.ended("work").completed == 5


async def test_an_async_loop_that_stands_still_has_worked_off_what_it_was_given():
    async def items() -> AsyncIterator[int]:
        for n in range(5):
            yield n

    with recording(strict=True) as said:

        async def work() -> None:
            async with progress.operation("work", controls=["pause"]) as operation:
                async for n in progress.track(items()):
                    if n == 2:
                        operation.pause()

        task = asyncio.create_task(work())
        (applied,) = await aeventually(lambda: said.of("control.applied"))
        assert applied.completed == 3
        (operation,) = active.current.live.values()
        operation.resume()
        await task
    assert said.ended("work").completed == 5


async def test_an_async_checkpoint_stands_still_while_the_loop_goes_on():
    with recording() as said:

        async def work() -> str:
            async with progress.operation("work", controls=["pause", "cancel"]) as operation:
                operations.append(operation)
                operation.pause()
                await progress.acheckpoint()
                return "done"

        operations: list = []
        task = asyncio.ensure_future(work())
        await aeventually(lambda: said.of("control.applied"))
        await asyncio.sleep(0)
        assert not task.done()
        # From another thread, as a command from the feed would come.
        await asyncio.to_thread(operations[0].resume)
        assert await task == "done"


async def test_an_async_checkpoint_of_a_child_sees_its_parents_resume_and_cancel():
    parent = Gate(lambda _action: None)
    child = Gate(lambda _action: None, parent)
    parent.pause()
    task = asyncio.ensure_future(child.acheck())
    await asyncio.sleep(0)
    child.pause()
    await asyncio.to_thread(parent.resume)
    await asyncio.sleep(0)
    assert not task.done()
    await asyncio.to_thread(parent.cancel, "enough")
    with pytest.raises(OperationCancelled, match="enough"):
        await task


def test_a_forked_child_goes_on_whatever_the_threads_of_its_parent_held():
    held, go_on = threading.Event(), threading.Event()
    with recording(), progress.operation("train", controls=["pause"]) as operation:
        loop = progress.track(range(200_000))
        next(loop)
        ((tracked, _),) = operation.root._tracked

        def count() -> None:
            with operation._gate._condition, tracked._chunks._lock:
                held.set()
                go_on.wait(30)

        thread = threading.Thread(target=count)
        thread.start()
        held.wait(30)
        operation._gate.paused = True

        def go_on_in_child() -> bool:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # stuck, it dies
            signal.alarm(20)
            operation.leave_to_parent()
            return sum(1 for _ in loop) == 199_999

        child = forked(go_on_in_child)
        go_on.set()
        thread.join()
        operation.resume()
        assert exit_code(child) == 0
        assert sum(1 for _ in loop) == 199_999


def test_a_signal_wakes_a_paused_gate_and_the_pause_goes_on():
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.pause()
    thread = threading.Thread(target=gate.check)
    thread.start()
    eventually(lambda: applied)
    gate.signal()
    eventually(lambda: applied[-2:] == ["signal", "pause"])
    assert thread.is_alive()
    gate.resume()
    thread.join(30)
    assert applied == ["pause", "signal", "pause", "resume"]


def test_a_signal_of_a_parent_is_handled_where_a_child_stands():
    applied: list[str] = []
    parent = Gate(lambda action: applied.append(f"parent {action}"))
    child = Gate(lambda action: applied.append(f"child {action}"), parent)
    parent.signal()
    child.check()
    assert applied == ["parent signal"]
    assert child.closed_by() is None


def test_of_several_things_a_cancel_comes_first_and_then_signals():
    gate = Gate(lambda _action: None)
    gate.pause()
    gate.signal()
    gate.cancel("enough")
    with pytest.raises(OperationCancelled, match="enough"):
        gate.check()
    assert gate.signalled


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_code_that_comes_by_late_goes_on(action: str):
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.cancel(until_s=0.0) if action == "cancel" else gate.pause(0.0)
    gate.check()
    gate.check()
    assert applied == [f"{action}_expired"]
    assert (gate.cancelled, gate.paused) == (False, False)


def test_a_later_command_has_its_own_time_and_gives_it_to_the_earlier():
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.pause(0.0)
    gate.pause(time.monotonic() + 60)
    assert gate.closed_by() is gate
    gate.cancel("first", until_s=0.0)
    gate.cancel("second")
    with pytest.raises(OperationCancelled, match="first"):
        gate.check()


def test_a_pause_that_is_obeyed_does_not_expire():
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.pause(time.monotonic() + 60)
    thread = threading.Thread(target=gate.check)
    thread.start()
    eventually(lambda: applied)
    gate._pause_until_s = 0.0
    assert gate.closed_by() is gate
    gate.resume()
    thread.join(30)
    assert applied == ["pause", "resume"]


def test_a_cancel_that_was_obeyed_holds_for_good():
    gate = Gate(lambda _action: None)
    gate.cancel(until_s=time.monotonic() + 60)
    with pytest.raises(OperationCancelled):
        gate.check()
    gate._cancel_until_s = 0.0
    with pytest.raises(OperationCancelled):
        gate.check()


def test_a_new_pause_that_comes_while_the_old_one_expires_is_kept():
    """Told of the expiry, somebody pauses again: that pause has its own time."""
    gate = Gate(lambda action: gate.pause() if action == "pause_expired" else None)
    gate.pause(0.0)
    assert gate.closed_by() is None
    assert gate.paused
    assert gate.closed_by() is gate


def test_whoever_is_told_of_a_change_may_command_again():
    applied: list[str] = []

    def told(action: str) -> None:
        applied.append(action)
        if action == "pause":
            gate.resume()

    gate = Gate(told)
    gate.pause()
    gate.check()
    assert applied == ["pause", "resume"]


def test_threads_that_command_and_threads_that_obey_never_stop_each_other():
    parent = Gate(lambda _action: None)
    child = Gate(lambda _action: None, parent)
    over = threading.Event()

    def obey() -> None:
        while not over.is_set():
            child.check()

    def command(gate: Gate) -> None:
        for _ in range(300):
            gate.pause()
            gate.signal()
            gate.resume()

    obeying = [threading.Thread(target=obey) for _ in range(2)]
    commanding = [threading.Thread(target=command, args=(gate,)) for gate in (parent, child)]
    for thread in (*obeying, *commanding):
        thread.start()
    for thread in commanding:
        thread.join(60)
    over.set()
    for thread in obeying:
        thread.join(60)
    assert not any(thread.is_alive() for thread in (*obeying, *commanding))
    child.check()  # the last signals may have come after the last look
    assert child.closed_by() is None


async def test_on_a_running_loop_a_signal_is_handled_though_a_pause_is_not_honoured():
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.pause()
    gate.signal()
    gate.check()
    assert applied == ["signal"]


async def test_an_async_checkpoint_handles_signals_while_it_stands_still():
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.pause()
    task = asyncio.ensure_future(gate.acheck())
    await aeventually(lambda: applied)
    await asyncio.to_thread(gate.signal)
    await aeventually(lambda: "signal" in applied)
    assert not task.done()
    await asyncio.to_thread(gate.resume)
    await task
    assert applied == ["pause", "signal", "pause", "resume"]


async def test_a_task_that_is_cancelled_while_it_stands_still_stands_no_more():
    applied: list[str] = []
    gate = Gate(applied.append)
    gate.pause(time.monotonic() + 60)
    task = asyncio.ensure_future(gate.acheck())
    await aeventually(lambda: applied)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not gate.stands
    gate.resume()
