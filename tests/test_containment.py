"""Nothing of ours raises into instrumented code: not what it was given, not what breaks inside."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

import otelprogress as progress
from otelprogress import active
from otelprogress.exceptions import InvalidValue
from otelprogress.gate import Gate
from otelprogress.loops import Loop
from otelprogress.otel.emitter import ProgressEmitter
from otelprogress.otel.provider import ProviderBinding
from otelprogress.poller import Poll
from otelprogress.run import Operation
from otelprogress.step import Step
from tests.recording import recording


class Unspeakable:
    """Fails in whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __ge__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __float__(self) -> float:
        raise RuntimeError("no number")


class EvilText(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("no length")


ODD = [
    None,
    -1,
    math.nan,
    10**400,
    b"x",
    [],
    {},
    object(),
    1j,
    Unspeakable(),
    EvilText("a"),
    "\ud800",
    "x" * 1_000_000,
]
ODD_IDS = [type(value).__name__ + str(number) for number, value in enumerate(ODD)]


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.CRITICAL, "otelprogress")
    with recording() as kept:
        yield kept


def everything() -> None:
    """A little of all that instrumented code does; ends only where the user's own code is right."""
    with progress.operation("op", title="x", steps=["a", "b"]) as operation:
        with progress.step("a") as step:
            assert list(step.track([1, 2, 3])) == [1, 2, 3]
            step.count(x=1)
            step.note("n")
        progress.set_total(5)
        progress.advance()
        progress.poll(lambda: 3)
        assert list(progress.track(x for x in range(3))) == [0, 1, 2]
        operation.show("here")

    @progress.operation("function", result=True)
    def function() -> int:
        return 5

    assert function() == 5

    @progress.operation("failing")
    def failing() -> None:
        raise KeyError("of the user")

    with pytest.raises(KeyError, match="of the user"):
        failing()

    @progress.operation("coroutine", controls=["cancel"])
    async def coroutine() -> list[int]:
        async def items():
            yield 1

        return [item async for item in progress.track(items(), total=1)]

    assert asyncio.run(coroutine()) == [1]

    @progress.operation("generator")
    def generator():
        with progress.step("s"):
            yield 1

    assert list(generator()) == [1]
    assert list(progress.track([1, 2], "named")) == [1, 2]
    assert list(progress.track([1, 2], "gated", controls=["cancel"])) == [1, 2]
    for _ in progress.track([1, 2], "left"):
        break


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Operation, "__init__"),
        (Operation, "_begin"),
        (Operation, "_event"),
        (Operation, "_ensure_begun"),
        (Operation, "_step_named"),
        (Step, "take_on"),
        (Step, "let_go"),
        (Step, "reset"),
        (Loop, "__init__"),
        (Gate, "__init__"),
        (Poll, "start"),
        (Poll, "finish"),
        (ProgressEmitter, "emit"),
        (ProgressEmitter, "finish"),
        (ProviderBinding, "open_span"),
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_a_part_of_ours_that_breaks_is_not_noticed_by_the_instrumented_code(said, monkeypatch, owner, name):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("of ours")

    everything()  # what is imported at first use is there
    monkeypatch.setattr(owner, name, broken)
    everything()


@pytest.mark.parametrize("odd", ODD, ids=ODD_IDS)
@pytest.mark.parametrize(
    "argument",
    ["name", "title", "steps", "label", "controls", "total", "unit", "initial", "attempt", "weight",
     "expected_children", "stall_after_s", "attributes", "kind", "links", "result"],
)  # fmt: skip
def test_any_argument_of_an_operation_leaves_its_function_running(said, argument, odd):
    @progress.operation(**{"name": "op", argument: odd})
    def function(value: int) -> int:
        return value + 1

    assert function(1) == 2
    with progress.operation(**{"name": "op", argument: odd}) as operation:
        operation.advance()
    assert not active.current.live


@pytest.mark.parametrize("odd", ODD, ids=ODD_IDS)
def test_any_argument_of_what_speaks_to_the_current_operation_is_survived(said, odd):
    with progress.operation("op") as operation, operation.step("s") as step:
        for teller in (progress, operation, step):
            teller.advance(odd)
            teller.count(x=odd)
            teller.set_total(odd)
            teller.set_total(3, unit=odd)
            teller.note(odd)
            teller.note("x", level=odd)
            teller.poll(lambda: odd, total=odd, unit=odd, every_s=odd)
        step.set_completed(odd)
        step.set_initial(odd)
        operation.show(odd)
        operation.set_result(odd)
        with progress.step(odd, total=odd, unit=odd, initial=odd):
            pass


@pytest.mark.parametrize("odd", ODD, ids=ODD_IDS)
@pytest.mark.parametrize("argument", ["name", "title", "total", "unit", "initial", "label", "controls"])
def test_any_argument_of_a_loop_leaves_it_looping(said, argument, odd):
    named = {"name": "loop", argument: odd}
    assert list(progress.track([1, 2], **named)) == [1, 2]
    if argument in {"total", "unit", "initial"}:
        with progress.operation("op") as operation:
            assert list(progress.track([1], **{argument: odd})) == [1]
            assert list(operation.track([1], **{argument: odd})) == [1]


@pytest.mark.parametrize("nothing", [5, None, object()])
def test_what_cannot_be_iterated_raises_as_a_plain_loop_would(said, nothing):
    with pytest.raises(TypeError, match="not iterable"):
        progress.track(nothing, "loop")
    with progress.operation("op"), pytest.raises(TypeError, match="not iterable"):
        progress.track(nothing)


def test_what_breaks_inside_is_counted_and_logged_in_one_short_line(monkeypatch, caplog):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("x" * 100_000 + "\x1b[31m")

    monkeypatch.setattr(Operation, "_begin", broken)
    with recording():
        before = sum(active.misuses.values())
        with progress.operation("op"):
            pass
        assert sum(active.misuses.values()) == before + 1
    (line,) = [record.getMessage() for record in caplog.records if record.name == "otelprogress"]
    assert line.startswith("the begin of operation 'op' failed: RuntimeError: xxx")
    assert len(line) < 1500


def test_strict_mode_lets_what_breaks_inside_raise(monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(Operation, "_begin", broken)
    with recording(strict=True):
        with pytest.raises(RuntimeError, match="of ours"), progress.operation("op"):
            pass
        with pytest.raises(RuntimeError, match="of ours"):
            progress.track([1], "loop")


def test_a_polling_period_is_cut_to_what_a_thread_can_wait(said):
    with progress.operation("op") as operation:
        operation.poll(lambda: 1, every_s=1e300)
        assert operation._polls[0]._every_s == 86_400
        with pytest.raises(InvalidValue, match="every_s='often'"), recording(strict=True):
            with progress.operation("strict") as strict:
                strict.poll(lambda: 1, every_s="often")
