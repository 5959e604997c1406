from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otelprogress as progress
from otelprogress import active
from otelprogress.commands import MAX_ORDERS, Order
from otelprogress.exceptions import OperationCancelled, UsageError
from otelprogress.model import semconv
from otelprogress.model.events import State
from tests.recording import Recording, recording
from tests.waiting import eventually

LONG_AGO = 0.0


def words(said: Recording) -> list[tuple[Any, ...]]:
    """Of each command: its id, what was to be done, and why it was not."""
    return [
        (event.control_id, event.control_action, event.control_refusal)
        for event in said.events
        if event.kind in (semconv.CONTROL_APPLIED, semconv.CONTROL_REFUSED)
    ]


# --- what takes effect ----------------------------------------------------------------------------------------------


def test_a_cancel_is_said_once_it_took_effect_with_who_and_why():
    with recording() as said, pytest.raises(OperationCancelled, match="wrong day"):
        with progress.operation("work", controls=["cancel"]) as operation:
            assert operation.obey("cancel", Order("c1", "ada", "wrong day")) == "accepted"
            assert words(said) == [], "accepted is not applied"
            progress.checkpoint()
    (applied,) = said.of("control.applied")
    assert (applied.control_id, applied.control_action, applied.control_actor, applied.control_reason) == (
        "c1",
        "cancel",
        "ada",
        "wrong day",
    )
    assert said.ended("work").message == "wrong day"


def test_a_second_cancel_of_what_is_cancelled_has_taken_effect_already():
    with recording() as said, progress.operation("work", controls=["cancel"]) as operation:
        operation.cancel("first")
        with pytest.raises(OperationCancelled):
            operation.checkpoint()
        assert operation.obey("cancel", Order("c2")) == "accepted"
        assert words(said) == [(None, "cancel", None), ("c2", "cancel", None)]


def test_several_commands_of_one_kind_take_effect_together():
    with recording() as said, progress.operation("work", controls=["cancel"]) as operation:
        for number in range(3):
            operation.obey("cancel", Order(f"c{number}"))
        with pytest.raises(OperationCancelled):
            operation.checkpoint()
    assert words(said) == [(f"c{number}", "cancel", None) for number in range(3)]


def test_a_pause_that_a_resume_overtakes_is_refused():
    with recording() as said, progress.operation("work", controls=["pause"]) as operation:
        operation.obey("pause", Order("c1"))
        operation.obey("resume", Order("c2"))
        operation.checkpoint()
    assert words(said) == [("c1", "pause", "superseded by a resume"), ("c2", "resume", None)]
    assert said.of("operation.state_changed") == []


def test_a_resume_that_a_pause_overtakes_is_refused_and_the_work_stands_still():
    with recording() as said:
        operations: list[Any] = []

        def work() -> None:
            with progress.operation("work", controls=["pause"]) as operation:
                operations.append(operation)
                operation.obey("pause", Order("c1"))
                operation.checkpoint()

        thread = threading.Thread(target=work)
        thread.start()
        eventually(lambda: said.of("operation.state_changed"))
        (operation,) = operations
        with operation._gate._condition:  # its thread does not come by between the two
            operation.obey("resume", Order("c2"))
            operation.obey("pause", Order("c3"))
        assert words(said)[1:] == [("c2", "resume", "superseded by a pause"), ("c3", "pause", None)]
        assert operation._gate.paused
        operation.obey("resume", Order("c4"))
        thread.join(30)
        assert not thread.is_alive()
    assert words(said)[-1] == ("c4", "resume", None)


def test_what_is_not_declared_is_unsupported_and_nothing_happens():
    with recording() as said, progress.operation("work", controls=["cancel"]) as operation:
        for action in ("pause", "resume", "rewind", "input"):
            assert operation.obey(action, Order("c1")) == "unsupported"
        operation.checkpoint()
    with recording() as said, progress.operation("work") as operation:
        assert operation.obey("cancel", Order("c1")) == "unsupported"
    assert words(said) == []


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["cancel", "pause", "snapshot"])
def test_what_comes_by_after_the_time_of_a_command_goes_on_and_refuses_it(action: str):
    with (
        recording() as said,
        progress.operation("work", controls=["cancel", "pause", "snapshot"]) as operation,
    ):
        operation.on_signal("snapshot", lambda: pytest.fail("its time is over"))
        operation.obey(action, Order("c1", until_s=LONG_AGO))
        operation.checkpoint()
        assert not operation.cancel_requested
    assert words(said) == [("c1", action, "expired")]


def test_one_of_two_cancels_that_still_has_time_counts_and_neither_is_lost():
    with recording() as said, progress.operation("work", controls=["cancel"]) as operation:
        operation.obey("cancel", Order("c1", until_s=LONG_AGO))
        operation.obey("cancel", Order("c2", until_s=time.monotonic() + 60))
        with pytest.raises(OperationCancelled):
            operation.checkpoint()
    assert {command_id for command_id, *_ in words(said)} == {"c1", "c2"}


def test_an_expiry_refuses_only_what_has_expired():
    """A command that comes while another's expiry is being told has its own time."""
    with recording() as said, progress.operation("work", controls=["pause"]) as operation:
        operation.obey("pause", Order("c1", until_s=LONG_AGO))
        operation._orders["pause"].append(Order("c2", until_s=time.monotonic() + 60))
        operation.checkpoint()
        assert words(said) == [("c1", "pause", "expired")]
    assert words(said)[1:] == [("c2", "pause", "ended")]


@pytest.mark.parametrize("action", ["cancel", "pause", "snapshot"])
def test_no_more_commands_wait_for_code_that_does_not_come_by_than_it_can_need(action: str):
    with (
        recording() as said,
        progress.operation("work", controls=["cancel", "pause", "snapshot"]) as operation,
    ):
        operation.on_signal("snapshot", lambda: None)
        for number in range(MAX_ORDERS):
            assert operation.obey(action, Order(f"c{number}")) == "accepted"
        refused = operation.obey(action, Order("more"))
        assert "256 commands of this kind wait" in refused
        assert operation.obey("pause" if action == "cancel" else "cancel", Order("other")) == "accepted"
        assert operation.pause(), "the program's own call needs no word of its own"
        assert len(operation._orders[action]) == MAX_ORDERS
        assert words(said) == []
    assert "more" not in {command_id for command_id, *_ in words(said)}


@pytest.mark.parametrize("action", ["cancel", "pause", "snapshot"])
def test_commands_whose_time_is_over_give_way_to_others(action: str):
    """Each is refused once, however many come, and what has time stays."""
    controls = ["cancel", "pause", "snapshot", "other"]
    calls: list[str] = []
    with recording() as said, progress.operation("work", controls=controls) as operation:
        operation.on_signal("snapshot", lambda: calls.append("snapshot"))
        operation.on_signal("other", lambda: calls.append("other"))
        operation.obey(action, Order("kept", until_s=time.monotonic() + 60))
        operation.obey("other", Order("other"))
        for number in range(3 * MAX_ORDERS):
            assert operation.obey(action, Order(f"c{number}", until_s=LONG_AGO)) == "accepted"
        assert len(operation._orders[action]) <= MAX_ORDERS
        assert len(operation._signals) <= MAX_ORDERS + 1
        if action == "snapshot":
            operation.checkpoint()
            assert calls == ["snapshot", "other"]
    told = words(said)
    assert len(told) == len({command_id for command_id, *_ in told}) == 3 * MAX_ORDERS + 2
    (fate,) = [refusal for command_id, _, refusal in told if command_id == "kept"]
    assert fate == (None if action == "snapshot" else "ended")
    assert {refusal for command_id, _, refusal in told if command_id[0] == "c"} <= {"expired", "ended"}


# --- signals --------------------------------------------------------------------------------------------------------


def test_a_signal_runs_its_handler_in_the_code_once_for_each_command():
    calls: list[int] = []
    with recording() as said, progress.operation("work", controls=["snapshot"]) as operation:
        operation.on_signal("snapshot", lambda: calls.append(threading.get_ident()))
        thread = threading.Thread(
            target=lambda: [operation.obey("snapshot", Order(f"c{n}", "ada", "now")) for n in range(3)]
        )
        thread.start()
        thread.join()
        assert calls == []
        for _ in progress.track(range(2)):
            pass
    assert calls == [threading.get_ident()] * 3
    assert words(said) == [(f"c{n}", "snapshot", None) for n in range(3)]
    assert {(event.control_actor, event.control_reason) for event in said.of("control.applied")} == {
        ("ada", "now")
    }


def test_a_handler_that_fails_refuses_its_command_and_nothing_else():
    def handler() -> None:
        raise KeyError("x")

    with recording() as said, progress.operation("work", controls=["snapshot"]) as operation:
        operation.on_signal("snapshot", handler)
        operation.obey("snapshot", Order("c1"))
        operation.checkpoint()
    assert words(said) == [("c1", "snapshot", "its handler raised KeyError")]
    assert said.ended("work").state is State.SUCCEEDED


def test_a_handler_that_gives_up_the_work_is_heard_and_its_command_is_told():
    with recording() as said, pytest.raises(KeyboardInterrupt):
        with progress.operation("work", controls=["snapshot"]) as operation:
            operation.on_signal("snapshot", _interrupt)
            operation.obey("snapshot", Order("c1"))
            operation.checkpoint()
    assert words(said) == [("c1", "snapshot", "its handler raised KeyboardInterrupt")]


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_signal_without_a_handler_is_refused_and_says_what_is_missing():
    with recording() as said, progress.operation("work", controls=["snapshot"]) as operation:
        operation.obey("snapshot", Order("c1"))
        operation.checkpoint()
    assert words(said) == [("c1", "snapshot", "no handler: its code has not called on_signal()")]


def test_a_handler_may_use_the_operation_and_command_it_itself():
    with recording() as said, progress.operation("work", controls=["snapshot", "cancel"]) as operation:

        def handler() -> None:
            operation.note("taken")
            operation.checkpoint()
            operation.obey("snapshot", Order("c2")) if len(
                said.of("operation.noted")
            ) == 1 else operation.cancel()

        operation.on_signal("snapshot", handler)
        operation.obey("snapshot", Order("c1"))
        with pytest.raises(OperationCancelled):
            operation.checkpoint()
    assert words(said) == [("c1", "snapshot", None), ("c2", "snapshot", None), (None, "cancel", None)]


async def test_a_handler_that_nobody_would_await_is_misuse():
    async def handler() -> None: ...

    with recording(strict=True), progress.operation("work", controls=["snapshot"]) as operation:
        with pytest.raises(UsageError, match="coroutine function"):
            operation.on_signal("snapshot", handler)
        with pytest.raises(UsageError, match="controls=\\['rewind'\\]"):
            operation.on_signal("rewind", lambda: None)
        with pytest.raises(UsageError):
            operation.on_signal("cancel", lambda: None)


def test_handlers_run_one_at_a_time_though_threads_come_by_together_and_no_command_is_left():
    inside: list[int] = []
    most: list[int] = []
    go_on = threading.Event()

    def handler() -> None:
        inside.append(1)
        most.append(len(inside))
        go_on.wait(30)
        inside.pop()

    with recording() as said, progress.operation("work", controls=["snapshot"]) as operation:
        operation.on_signal("snapshot", handler)
        operation.obey("snapshot", Order("c1"))
        first = threading.Thread(target=operation.checkpoint)
        first.start()
        eventually(lambda: most)
        operation.obey("snapshot", Order("c2"))
        second = threading.Thread(target=operation.checkpoint)
        second.start()
        second.join(30)
        assert not second.is_alive(), "it goes on, and leaves the command to the first"
        assert most == [1]
        go_on.set()
        first.join(30)
        assert most == [1, 1]
        assert words(said) == [("c1", "snapshot", None), ("c2", "snapshot", None)]


def test_a_command_that_comes_from_within_a_handler_is_handled_behind_it():
    depths: list[int] = []
    depth = 0

    with recording() as said, progress.operation("work", controls=["snapshot"]) as operation:

        def handler() -> None:
            nonlocal depth
            depth += 1
            depths.append(depth)
            if len(depths) == 1:
                operation.obey("snapshot", Order("c2"))
                operation.checkpoint()
            depth -= 1

        operation.on_signal("snapshot", handler)
        operation.obey("snapshot", Order("c1"))
        operation.checkpoint()
        assert depths == [1, 1]
    assert words(said) == [("c1", "snapshot", None), ("c2", "snapshot", None)]


def test_what_waits_behind_a_handler_that_gives_up_is_handled_by_whoever_comes_by_next():
    calls: list[str] = []
    with recording() as said, progress.operation("work", controls=["stop", "snapshot"]) as operation:
        operation.on_signal("stop", _interrupt)
        operation.on_signal("snapshot", lambda: calls.append("snapshot"))
        operation.obey("stop", Order("c1"))
        operation.obey("snapshot", Order("c2"))
        with pytest.raises(KeyboardInterrupt):
            operation.checkpoint()
        assert calls == []
        operation.checkpoint()
        assert calls == ["snapshot"]
    assert [command_id for command_id, *_ in words(said)] == ["c1", "c2"]


# --- the end --------------------------------------------------------------------------------------------------------


def test_what_had_no_effect_when_the_work_ended_is_refused_before_its_end():
    with (
        recording() as said,
        progress.operation("work", controls=["cancel", "pause", "snapshot"]) as operation,
    ):
        for action in ("cancel", "pause", "snapshot"):
            operation.obey(action, Order(action))
    assert sorted(words(said)) == [(each, each, "ended") for each in ("cancel", "pause", "snapshot")]
    assert said.kinds()[-1] == "operation.ended"
    assert operation.obey("cancel", Order("late")) == "ended"
    assert not operation.cancel()


def test_a_cancel_that_ended_what_the_work_was_waiting_for_has_been_applied():
    """As where it waits for a pool: what runs there was cancelled, and that it came back so ends it."""
    with recording() as said, pytest.raises(progress.WorkerCancelled):
        with progress.operation("work", controls=["cancel", "pause"]) as operation:
            operation.obey("cancel", Order("c1", "ada", "enough"))
            operation.obey("pause", Order("c2"))
            raise progress.WorkerCancelled("enough")
    assert words(said) == [("c1", "cancel", None), ("c2", "pause", "ended")]
    assert said.ended("work").state is State.CANCELLED


def test_a_command_that_comes_while_it_ends_is_told_that_it_ends():
    """Between the last look at what waits and the end itself nothing may slip in and never be told of."""
    with recording() as said:
        operation: Any

        class Late:
            def on_start(self, *_: object, **__: object) -> None: ...

        with progress.operation("work", controls=["cancel"]) as operation:
            settle = operation._settle_orders

            def settle_and_command(**how: Any) -> None:
                settle(**how)
                assert operation.obey("cancel", Order("late")) == "ended"
                assert operation.answer(None, 1, Order("late, too")) == "ended"

            type(operation)._settle_orders = lambda _, **how: settle_and_command(**how)
            try:
                operation.end()
            finally:
                del type(operation)._settle_orders
    assert words(said) == []


def test_whatever_is_commanded_while_it_ends_each_that_was_accepted_gets_one_word():
    accepted: list[str] = []
    with recording() as said:
        for turn in range(100):
            with progress.operation("work", controls=["cancel", "pause", "snapshot"]) as operation:
                operation.on_signal("snapshot", lambda: None)
                together = threading.Barrier(2, timeout=30)

                def command(operation: Any = operation, together: Any = together, turn: int = turn) -> None:
                    together.wait()
                    for number in range(200):
                        command_id = f"{turn}-{number}"
                        action = ("snapshot", "cancel", "pause")[number % 3]
                        if operation.obey(action, Order(command_id)) != "accepted":
                            return
                        accepted.append(command_id)

                thread = threading.Thread(target=command)
                thread.start()
                together.wait()
                with contextlib.suppress(OperationCancelled):
                    operation.checkpoint()
                operation.end()
                thread.join(30)
                assert not thread.is_alive()
    assert sorted(command_id for command_id, *_ in words(said) if command_id) == sorted(accepted)


def test_who_hears_that_it_started_can_command_it_at_once():
    found: list[Any] = []
    with recording():
        ins = active.current
        submit = ins.emitter._submit
        ins.emitter._submit = lambda event: (found.append(ins.live.get(event.run_id)), submit(event))
        with progress.operation("work", controls=["cancel"]) as operation:
            assert found == [operation]


def test_nothing_of_it_is_told_before_its_start():
    ticks: list[Any] = []
    with recording() as said:
        ins = active.current
        submit = ins.emitter._submit

        def look_first(event: Any) -> None:
            ticks.extend(each.tick(time.time_ns()) for each in ins.live.values())
            submit(event)

        ins.emitter._submit = look_first
        with progress.operation("work", total=5):
            pass
    assert ticks[0] is None
    assert said.kinds()[0] == "operation.started"


# --- the audit ------------------------------------------------------------------------------------------------------


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def on_span(spans: InMemorySpanExporter, name: str) -> list[tuple[str, dict[str, Any]]]:
    (span,) = [each for each in spans.get_finished_spans() if each.name == name]
    return [
        (
            event.name,
            {key.removeprefix("otelprogress.control."): value for key, value in event.attributes.items()},
        )
        for event in span.events
        if "control." in event.name
    ]


def test_each_command_leaves_its_audit_on_the_span(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    with recording(), pytest.raises(OperationCancelled):
        with progress.operation("work", controls=["cancel", "snapshot"]) as operation:
            operation.obey("snapshot", Order("c1", "ada", "api_key=sk-live-0123456789abcdef0123"))
            operation.checkpoint()
            operation.obey("cancel", Order("c2", "bob", "wrong day"))
            operation.checkpoint()
    (refused, why), (applied, who) = on_span(spans, "work")
    assert (refused, applied) == (semconv.CONTROL_REFUSED, semconv.CONTROL_APPLIED)
    assert (why["id"], why["action"], why["actor"], why["reason"]) == (
        "c1",
        "snapshot",
        "ada",
        "api_key=[redacted]",
    )
    assert why["refusal"].startswith("no handler")
    assert {key: who[key] for key in ("id", "action", "actor", "reason")} == {
        "id": "c2",
        "action": "cancel",
        "actor": "bob",
        "reason": "wrong day",
    }


def test_reasons_are_redacted_before_they_leave_the_process():
    with recording() as said, progress.operation("work", controls=["cancel"]) as operation:
        operation.obey("cancel", Order("c1", "ada", "password=hunter2\n\x1b[31m" + "x" * 5000))
        with pytest.raises(OperationCancelled):
            operation.checkpoint()
    (applied,) = said.of("control.applied")
    assert applied.control_reason.startswith("password=[redacted]")
    assert "hunter2" not in applied.control_reason
    assert "\x1b" not in applied.control_reason
    assert len(applied.control_reason) <= semconv.MAX_MESSAGE_CHARS


# --- cleaning up after a cancel -------------------------------------------------------------------------------------


def test_what_is_done_to_clean_up_after_a_cancel_is_left_alone():
    undone: list[object] = []
    with recording() as said, pytest.raises(OperationCancelled):
        with progress.operation("load", controls=["cancel"]) as operation:
            try:
                for row in progress.track(range(10)):
                    if row == 3:
                        operation.cancel("wrong day")
            except OperationCancelled:
                with progress.step("rollback") as step:
                    undone += step.track(range(5))
                with progress.operation("tell others") as below:
                    undone += progress.track("ab")
                    below.checkpoint()
                progress.checkpoint()
                undone.append(operation.request_input("sure?", timeout_s=0.01, default="yes"))
                raise
    assert undone == [0, 1, 2, 3, 4, "a", "b", "yes"]
    assert said.ended("load").state is State.CANCELLED
    assert said.ended("tell others").state is State.SUCCEEDED
    assert said.ended("load").message == "wrong day"


def test_a_second_cancel_ends_what_cleans_up():
    with recording(), pytest.raises(OperationCancelled):
        with progress.operation("load", controls=["cancel"]) as operation:
            operation.cancel()
            try:
                operation.checkpoint()
            finally:
                for row in progress.track(range(10)):
                    assert row < 4
                    if row == 3:
                        operation.cancel()


def test_a_child_that_is_cancelled_leaves_its_parent_time_to_clean_up():
    cleaned = []
    with recording(), pytest.raises(OperationCancelled):
        with progress.operation("load", controls=["cancel"]) as operation:
            try:
                with progress.operation("table"):
                    operation.cancel()
                    progress.checkpoint()
            finally:
                cleaned += progress.track(range(3))
    assert cleaned == [0, 1, 2]


def test_every_task_of_a_pool_is_cancelled_whatever_ran_in_its_thread_before():
    started = []

    def work(number: int) -> None:
        with progress.operation("resize"):
            for _ in progress.track(range(2)):
                started.append(number)  # noqa: PERF401 - a loop is what is cancelled

    with recording(), progress.operation("all", controls=["cancel"]) as operation:
        operation.cancel()
        with ThreadPoolExecutor(1) as pool:
            futures = [pool.submit(progress.propagate(work), number) for number in range(3)]
        assert [type(future.exception()) for future in futures] == [OperationCancelled] * 3
    assert started == []


async def test_each_task_of_a_group_is_cancelled_and_may_clean_up():
    cleaned = []

    async def work(number: int) -> None:
        with progress.operation("part"):
            try:
                for _ in progress.track(range(1000)):
                    await asyncio.sleep(0.001)
            finally:
                cleaned.extend(progress.track([number]))

    with recording() as said:
        with pytest.raises(BaseExceptionGroup):
            with progress.operation("all", controls=["cancel"]) as operation:
                async with asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(work(number))
                    await asyncio.sleep(0.01)
                    operation.cancel("enough")
        assert sorted(cleaned) == [0, 1, 2]
        assert said.ended("all").state is State.CANCELLED
        assert said.ended("all").message == "enough"


def test_a_child_that_stands_at_its_parents_gate_is_shown_as_paused():
    with recording() as said, progress.operation("all", controls=["pause"]) as operation:
        child = progress.propagate(_count_slowly)
        thread = threading.Thread(target=child)
        thread.start()
        eventually(lambda: said.of("operation.started")[1:])
        operation.pause()
        eventually(lambda: State.PAUSED in states_of(said, "child"))
        operation.resume()
        thread.join()
    assert states_of(said, "child") == [State.PAUSED, State.RUNNING]


def _count_slowly() -> None:
    with progress.operation("child"):
        for _ in progress.track(range(200)):
            time.sleep(0.002)


def states_of(said: Recording, name: str) -> list[State | None]:
    run_ids = {event.run_id for event in said.of("operation.started") if event.name == name}
    return [event.state for event in said.of("operation.state_changed") if event.run_id in run_ids]
