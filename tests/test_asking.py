from __future__ import annotations

import asyncio
import json
import math
import signal
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import otelprogress as progress
from otelprogress import active
from otelprogress.commands import Order
from otelprogress.exceptions import InputTimeout, InvalidValue, OperationCancelled, UsageError
from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.model.fields import sanitized
from otelprogress.model.input_schema import checked_text
from tests.forking import exit_code, forked
from tests.recording import Recording, recording
from tests.waiting import aeventually, eventually

BY_ADA = Order("c1", "ada", "why not")


class Asked:
    """A thread that does something in an operation, and what came of it."""

    def __init__(self, ask: Callable[[progress.Operation], Any], **plan: Any) -> None:
        self.operation: Any = None
        self.outcome: list[Any] = []
        self._ready = threading.Event()

        def run() -> None:
            try:
                with progress.operation(
                    "train", **({"controls": ["input", "cancel", "pause"]} | plan)
                ) as operation:
                    self.operation = operation
                    self._ready.set()
                    self.outcome.append(ask(operation))
            except BaseException as error:
                self.outcome.append(error)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        self._ready.wait(30)

    def join(self) -> Any:
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.outcome[-1]


def asks(said: Recording, count: int = 1) -> list:
    return eventually(lambda: len(said.of("input.requested")) >= count and said.of("input.requested"))


# --- one question -------------------------------------------------------------------------------------------------


def test_a_question_is_said_and_answered_and_the_work_goes_on():
    with recording() as said:
        asked = Asked(
            lambda operation: operation.request_input(
                "lr?", {"enum": ["halve", "stop"]}, timeout_s=60, default="stop"
            )
        )
        (question,) = asks(said)
        assert (question.input_id, question.input_prompt, question.state) == ("in1", "lr?", State.WAITING)
        assert json.loads(question.input_schema) == {"enum": ["halve", "stop"]}
        assert question.input_default == '"stop"'
        assert question.input_deadline_unix_ns - question.time_unix_ns == pytest.approx(60e9, rel=0.01)
        assert asked.operation.answer("in1", "double", BY_ADA) == 'the answer is one of "halve", "stop"'
        assert asked.operation.answer("in1", "halve", BY_ADA) == "accepted"
        assert asked.join() == "halve"
    (applied,) = said.of("control.applied")
    assert (applied.control_id, applied.control_action, applied.control_actor, applied.control_reason) == (
        "c1",
        "input",
        "ada",
        "why not",
    )
    assert [event.state for event in said.of("operation.state_changed")] == [State.RUNNING]


def test_the_first_answer_counts():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("lr?"))
        asks(said)
        answers = [asked.operation.answer("in1", n, Order(f"c{n}")) for n in range(3)]
        assert asked.join() == 0
    assert answers[0] == "accepted"
    assert set(answers[1:]) <= {"it is answered already, or was not asked", "ended"}
    assert [event.control_id for event in said.of("control.applied")] == ["c0"]


def test_an_answer_after_its_time_does_not_count():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("lr?"))
        asks(said)
        assert asked.operation.answer("in1", 1, Order("c1", until_s=0.0)) == "expired"
        assert asked.operation.answer("in1", 2) == "accepted"
        assert asked.join() == 2


def test_the_answer_is_in_no_event_and_neither_are_secrets_in_the_words_around_it():
    with recording() as said:
        asked = Asked(
            lambda operation: operation.request_input("token=abc123def or not?", {"type": "string"})
        )
        asks(said)
        order = Order("c1", "ada", "password=correcthorse")
        assert asked.operation.answer("in1", "the secret word", order) == "accepted"
        assert asked.join() == "the secret word"
    everything = msgspec.json.encode(said.events)
    for secret in (b"the secret word", b"correcthorse", b"abc123def"):
        assert secret not in everything
    assert said.of("control.applied")[0].control_reason == "password=[redacted]"


# --- nobody answers -----------------------------------------------------------------------------------------------


def test_a_question_whose_time_is_over_gives_its_default_or_raises():
    with recording() as said, progress.operation("train", controls=["input"]) as operation:
        assert operation.request_input("a?", timeout_s=0.01, default="b") == "b"
        assert operation.request_input("a?", timeout_s=0, default=None) is None
        with pytest.raises(InputTimeout, match="nobody answered 'a\\?'"):
            operation.request_input("a?", timeout_s=0.01)
    assert [event.state for event in said.of("operation.state_changed")] == [State.RUNNING] * 3
    assert said.of("control.applied") == []


def test_a_cancel_ends_the_wait():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?", default="b"))
        asks(said)
        assert asked.operation.cancel("enough")
        cancelled = asked.join()
    assert isinstance(cancelled, OperationCancelled)
    assert cancelled.reason == "enough"
    assert said.ended("train").state is State.CANCELLED


def test_the_cancel_of_a_parent_ends_the_wait_of_its_child():
    with recording() as said:

        def ask(parent: progress.Operation) -> Any:
            with progress.operation("child") as child:
                return child.request_input("a?")

        asked = Asked(ask)
        asks(said)
        asked.operation.cancel()
        assert isinstance(asked.join(), OperationCancelled)


def test_a_pause_does_not_take_a_question_away():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?"))
        asks(said)
        asked.operation.pause()
        assert asked.operation.answer("in1", "b") == "accepted"
        assert asked.join() == "b"


def states(said: Recording) -> list[State]:
    return [event.state for event in said.of("operation.state_changed")]


def test_an_operation_that_is_resumed_while_a_question_is_open_waits_again():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?"))
        asks(said)
        asked.operation.pause()
        beside = threading.Thread(target=asked.operation.checkpoint)
        beside.start()
        eventually(lambda: states(said) == [State.PAUSED])
        asked.operation.resume()
        beside.join(30)
        assert states(said) == [State.PAUSED, State.WAITING]
        asked.operation.note("still")
        assert said.of("operation.noted")[0].state is State.WAITING
        assert asked.operation.answer("in1", "b") == "accepted"
        assert asked.join() == "b"
    assert states(said) == [State.PAUSED, State.WAITING, State.RUNNING]


@pytest.mark.parametrize("first", ["the pause", "the question"])
def test_an_operation_of_which_another_thread_stands_still_is_paused_once_it_has_its_answer(first: str):
    """Hosts let go of the question when they hear that it runs."""
    with recording() as said, progress.operation("train", controls=["input", "pause"]) as operation:
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(operation.request_input("a?")))
        beside = threading.Thread(target=operation.checkpoint)
        operation.pause()
        if first == "the pause":
            beside.start()
            eventually(lambda: State.PAUSED in states(said))
            asking.start()
            asks(said)
        else:
            asking.start()
            asks(said)
            beside.start()
            eventually(lambda: State.PAUSED in states(said))
        assert operation.answer("in1", "b") == "accepted"
        asking.join(30)
        assert answers == ["b"]
        assert states(said) == [State.PAUSED, State.RUNNING, State.PAUSED]
        operation.note("still")
        assert said.of("operation.noted")[0].state is State.PAUSED
        assert operation.resume()
        beside.join(30)
        assert not beside.is_alive()
    assert states(said) == [State.PAUSED, State.RUNNING, State.PAUSED, State.RUNNING]


def test_an_operation_that_is_ended_elsewhere_leaves_nobody_waiting():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?"))
        asks(said)
        asked.operation.end()
        assert isinstance(asked.join(), InputTimeout)
        assert asked.operation.answer("in1", "b") == "ended"


def test_an_answer_that_came_just_before_the_end_is_told_before_it():
    with recording() as said, progress.operation("train", controls=["input"]) as operation:
        question = operation._ask("a?", None, None, "b", lambda: None)
        assert operation.answer(None, "c", BY_ADA) == "accepted"
        operation.end()
        operation._asked(question)
    assert said.kinds()[-2:] == ["control.applied", "operation.ended"]
    assert len(said.of("control.applied")) == 1


# --- signals while it waits -----------------------------------------------------------------------------------------


def test_a_signal_is_handled_while_a_question_waits_and_the_commanding_thread_is_not_held():
    """The handler runs on the asking thread, while the one that commands goes on to ring for the next."""
    inside, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def handler() -> None:
        calls.append(threading.get_ident())
        inside.set()
        go_on.wait(30)

    def ask(operation: progress.Operation) -> Any:
        operation.on_signal("snapshot", handler)
        return operation.request_input("a?")

    with recording() as said:
        asked = Asked(ask, controls=["input", "snapshot"])
        asks(said)
        assert asked.operation.obey("snapshot", Order("s1")) == "accepted"
        inside.wait(30)
        # With a lock held around the handler this thread would stop here.
        assert asked.operation.obey("snapshot", Order("s2")) == "accepted"
        go_on.set()
        eventually(lambda: len(calls) == 2)
        assert asked.operation.answer("in1", "b") == "accepted"
        assert asked.join() == "b"
    assert set(calls) == {asked.thread.ident}
    assert [event.control_id for event in said.of("control.applied")] == ["s1", "s2"]


def test_commands_from_many_threads_never_stop_one_that_asks():
    def ask(operation: progress.Operation) -> Any:
        operation.on_signal("snapshot", lambda: None)
        return operation.request_input("a?")

    with recording() as said:
        asked = Asked(ask, controls=["input", "snapshot"])
        asks(said)

        def command(name: str) -> None:
            for number in range(100):
                assert asked.operation.obey("snapshot", Order(f"{name}{number}")) == "accepted"

        threads = [threading.Thread(target=command, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        eventually(lambda: len(said.of("control.applied")) == 200)
        asked.operation.answer("in1", "b")
        assert asked.join() == "b"


# --- several questions ----------------------------------------------------------------------------------------------


def test_questions_of_several_threads_are_answered_each_by_its_name():
    answers: dict[str, Any] = {}
    with recording() as said:

        def ask(operation: progress.Operation) -> None:
            def one(prompt: str) -> None:
                answers[prompt] = operation.request_input(prompt)

            threads = [threading.Thread(target=one, args=(prompt,)) for prompt in "abc"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)

        asked = Asked(ask)
        by_prompt = {event.input_prompt: event.input_id for event in asks(said, 3)}
        for prompt in "bca":
            assert asked.operation.answer(by_prompt[prompt], prompt.upper(), Order(prompt)) == "accepted"
            eventually(lambda prompt=prompt: prompt in answers)
        asked.join()
    assert answers == {"a": "A", "b": "B", "c": "C"}
    assert sorted(event.control_id for event in said.of("control.applied")) == ["a", "b", "c"]
    assert [event.state for event in said.of("operation.state_changed")] == [State.RUNNING]


def test_a_question_that_is_still_open_is_said_again_once_a_later_one_is_answered():
    """Hosts show one question: without that nobody could answer the first any more."""
    with recording() as said, progress.operation("train", controls=["input"]) as operation:
        first = operation._ask("first?", {"type": "number"}, None, 1, lambda: None)
        second = operation._ask("second?", None, None, 1, lambda: None)
        assert operation.answer(None, "the newest") == "accepted"
        assert (first.answered, second.answer) == (False, "the newest")
        operation._asked(second)
        again = said.of("input.requested")[-1]
        assert (again.input_id, again.input_prompt, again.input_schema) == (
            "in1",
            "first?",
            '{"type":"number"}',
        )
        assert said.of("operation.state_changed") == []
        operation._asked(first)
        assert [event.state for event in said.of("operation.state_changed")] == [State.RUNNING]


# --- coroutines -----------------------------------------------------------------------------------------------------


async def test_the_event_loop_goes_on_while_a_coroutine_asks():
    with recording() as said:

        async def work() -> Any:
            async with progress.operation("train", controls=["input"]) as operation:
                operations.append(operation)
                return await operation.arequest_input("a?", {"type": "integer"})

        operations: list = []
        task = asyncio.ensure_future(work())
        await aeventually(lambda: said.of("input.requested"))
        assert not task.done()
        assert await asyncio.to_thread(operations[0].answer, "in1", "7", BY_ADA) == "accepted"
        assert await task == 7
    assert [event.control_id for event in said.of("control.applied")] == ["c1"]


async def test_a_coroutine_that_is_cancelled_while_it_asks_leaves_no_question():
    with recording() as said, progress.operation("train", controls=["input"]) as operation:
        task = asyncio.ensure_future(operation.arequest_input("a?"))
        await aeventually(lambda: said.of("input.requested"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert operation.answer("in1", "b") == "it is answered already, or was not asked"
        assert operation._questions == {}


async def test_a_cancel_from_another_thread_ends_the_wait_of_a_coroutine():
    with recording() as said, progress.operation("train", controls=["input", "cancel"]) as operation:
        task = asyncio.ensure_future(operation.arequest_input("a?"))
        await aeventually(lambda: said.of("input.requested"))
        await asyncio.to_thread(operation.cancel, "enough")
        with pytest.raises(OperationCancelled, match="enough"):
            await task


async def test_a_coroutine_waits_no_longer_than_it_says():
    with recording(), progress.operation("train", controls=["input"]) as operation:
        assert await operation.arequest_input("a?", timeout_s=0.01, default="b") == "b"
        with pytest.raises(InputTimeout):
            await operation.arequest_input("a?", timeout_s=0)


async def test_asking_without_await_on_a_running_loop_is_misuse_and_never_blocks():
    with recording(), progress.operation("train", controls=["input"]) as operation:
        assert operation.request_input("a?", default="b") == "b"
        assert len(active.misuses) == 1


# --- what cannot be meant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        {"schema": {"type": "array"}},
        {"schema": {"type": ["string"]}},
        {"schema": "string"},
        {"schema": {"enum": [math.nan]}},
        {"schema": {"type": "number"}, "default": "many"},
        {"timeout_s": -1.0},
        {"timeout_s": math.nan},
        {"timeout_s": math.inf},
        {"timeout_s": "soon"},
    ],
)
def test_what_cannot_be_asked_so_is_counted_and_asked_without_it(ask: dict):
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?", **({"default": "b"} | ask)))
        asks(said)
        assert len(active.misuses) == 1
        content = 5 if ask.get("schema") == {"type": "number"} else "c"
        assert asked.operation.answer("in1", content) == "accepted"
        assert asked.join() == content


def described(chars: int) -> dict[str, Any]:
    """A form whose compact JSON has so many bytes."""
    form: dict[str, Any] = {
        "type": "object",
        "properties": {"lr": {"type": "number", "description": ""}},
        "required": ["lr"],
    }
    field = form["properties"]["lr"]
    field["description"] = "é" + "d" * (chars - 2 - len(json.dumps(form, separators=(",", ":"))))
    return form


def as_hosts_keep(question: Event) -> str | None:
    return sanitized(question).input_schema


@pytest.mark.parametrize(
    "schema",
    [
        described(semconv.MAX_INPUT_SCHEMA_CHARS + 1),
        {"enum": ["password=correcthorse", "none"]},
        {"type": "object", "properties": {"token=abc123def": {"type": "string"}}},
        {"enum": ["\ud800"]},
    ],
)
def test_a_schema_that_hosts_would_not_pass_on_as_it_is_is_misuse_and_any_answer_counts(schema: dict):
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?", schema))
        (question,) = asks(said)
        assert question.input_schema is None
        assert len(active.misuses) == 1
        assert asked.operation.answer("in1", checked_text(as_hosts_keep(question), "c")) == "accepted"
        assert asked.join() == "c"


@pytest.mark.parametrize(
    "schema",
    [
        described(semconv.MAX_INPUT_SCHEMA_CHARS),
        {
            "type": "object",
            "properties": {
                "lr": {"type": "number", "description": "not password=correcthorse"},
                "password": {"type": "string", "default": "correcthorse"},
            },
            "required": ["lr"],
        },
    ],
)
def test_an_answer_that_hosts_let_pass_by_what_they_keep_of_the_schema_passes(schema: dict):
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?", schema))
        (question,) = asks(said)
        assert not active.misuses
        kept = as_hosts_keep(question)
        assert kept is not None
        with pytest.raises(InvalidValue, match="form"):
            checked_text(kept, "any")
        assert asked.operation.answer("in1", checked_text(kept, {"lr": 0.5})) == "accepted"
        assert asked.join() == {"lr": 0.5}


@pytest.mark.parametrize(
    "ask",
    [
        {"schema": {"type": "array"}},
        {"schema": {"enum": ["password=correcthorse"]}},
        {"timeout_s": -1.0},
        {"default": [1]},
    ],
)
def test_in_strict_mode_it_raises(ask: dict):
    with recording(strict=True), progress.operation("train", controls=["input"]) as operation:
        with pytest.raises(InvalidValue, match="request_input"):
            operation.request_input("a?", **ask)


def test_asking_without_declaring_it_is_misuse_and_is_asked_all_the_same():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?"), controls=["cancel"])
        asks(said)
        assert asked.operation.answer("in1", "b") == "accepted"
        assert asked.join() == "b"
        assert len(active.misuses) == 1
    with recording(strict=True), progress.operation("train") as operation:
        with pytest.raises(UsageError, match="controls=\\['input'\\]"):
            operation.request_input("a?", default="b")


def test_a_prompt_that_cannot_be_said_is_answered_by_nobody():
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no words")

        __repr__ = __str__

    with recording(), progress.operation("train", controls=["input"]) as operation:
        assert operation.request_input(Broken(), default="b") == "b"


def test_an_operation_that_has_ended_asks_nothing():
    with recording(), progress.operation("train", controls=["input"]) as operation:
        pass
    assert operation.request_input("a?", default="b") == "b"
    with pytest.raises(InputTimeout):
        operation.request_input("a?")


def test_without_any_set_up_a_question_has_its_default():
    assert active.current is None
    with progress.operation("train", controls=["input"]) as operation:
        assert operation.request_input("a?", default="b") == "b"
        with pytest.raises(InputTimeout):
            operation.request_input("a?")


def test_a_child_that_is_forked_while_a_question_is_open_leaves_it_to_its_parent():
    with recording() as said:
        asked = Asked(lambda operation: operation.request_input("a?"))
        asks(said)
        operation = asked.operation

        def go_on_in_child() -> bool:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # stuck, it dies
            signal.alarm(20)
            operation.leave_to_parent()
            with progress.operation("below", controls=["input"]) as below:
                own = below.request_input("b?", timeout_s=0.01, default="mine")
            return (operation.answer("in1", "c"), own) == ("ended", "mine")

        assert exit_code(forked(go_on_in_child)) == 0
        assert operation.answer("in1", "b") == "accepted"
        assert asked.join() == "b"
