from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import time
import weakref

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

import otelprogress as progress
from otelprogress import active
from otelprogress.exceptions import InvalidValue, OperationCancelled
from otelprogress.model.events import State, StepState
from otelprogress.otel import span_tap
from tests.recording import recording


@pytest.fixture
def said():
    with recording(strict=True) as kept:
        yield kept


@pytest.fixture
def exported(monkeypatch):
    """The application's own provider, with what it exported."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    active.forget_spans_only()
    yield exporter
    active.forget_spans_only()


# --- what an operation says ------------------------------------------------------------------------------------


def test_a_decorated_function_says_its_plan_its_steps_and_its_outcome(said):
    @progress.operation("nightly load", title="nightly load {day}", steps={"extract": 1, "load": 6})
    def nightly_load(day: str) -> int:
        with progress.step("extract"):
            pass
        with progress.step("load") as step:
            for _ in step.track(range(3), unit="row"):
                pass
        return 3

    assert nightly_load("monday") == 3
    assert said.kinds() == [
        "operation.started",
        "step.started",
        "step.ended",
        "step.started",
        "step.ended",
        "operation.ended",
    ]
    started, *_, load, ended = said.events
    assert (started.name, started.title) == ("nightly load", "nightly load monday")
    assert (started.steps, started.step_weights) == (("extract", "load"), (1.0, 6.0))
    assert (load.step_name, load.step_index, load.step_state) == ("load", 1, StepState.SUCCEEDED)
    assert (load.completed, load.total, load.unit) == (3, 3, "{row}")
    assert ended.state is State.SUCCEEDED
    assert [event.sequence for event in said.events] == [1, 2, 3, 4, 5, 6]


def test_a_bare_decorator_takes_the_functions_name(said):
    @progress.operation
    def reindex() -> None: ...

    reindex()
    assert said.started("reindex").parent_span_id == ""


def test_a_list_of_steps_weighs_them_equally(said):
    with progress.operation("load", steps=["a", "b"]):
        pass
    assert said.started("load").step_weights == (1.0, 1.0)


def test_an_operation_within_a_step_is_a_child_of_the_operation(said):
    with progress.operation("outer") as outer:
        with progress.step("one"):
            with progress.operation("inner") as inner:
                assert progress.current_operation() is inner
        assert progress.current_operation() is outer
    assert said.started("inner").parent_span_id == outer.run_id[33:]
    assert inner.run_id[:32] == outer.run_id[:32]


def test_an_ordinary_span_between_two_operations_is_passed_over(said):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("app")
    with progress.operation("outer") as outer:
        with tracer.start_as_current_span("query"):
            with progress.operation("inner"):
                pass
    assert said.started("inner").parent_span_id == outer.run_id[33:]


def test_an_unknown_step_is_appended_and_a_known_one_continues(said):
    with progress.operation("load", steps=["a"]) as operation:
        with progress.step("b"):
            pass
        with progress.step("a"):
            pass
        with progress.step("b") as again:
            assert again.index == 1
        assert operation.step_names == ("a", "b")
    assert [event.step_name for event in said.of("step.started")] == ["b", "a", "b"]


def test_counts_of_a_step_read_as_zero_before_they_were_counted(said):
    with progress.operation("load"), progress.step("clean") as step:
        assert step.counts["rejected"] == 0
        step.count(rejected=1)
        progress.count(rejected=2, late=1)
        assert step.counts == {"rejected": 3, "late": 1}
    assert said.of("step.ended")[0].counters == {"rejected": 3, "late": 1}


def test_a_note_is_one_clean_line_without_secrets(said):
    with progress.operation("load"):
        progress.note("a\x1b[31m red\nline password=hunter2", level="warning")
    (note,) = said.of("operation.noted")
    assert note.message == "a red line password=[redacted]"
    assert note.level == "warning"


def test_a_result_is_kept_only_where_it_was_asked_for(said):
    @progress.operation("plain")
    def plain() -> dict:
        return {"rows": 9}

    @progress.operation("kept", result=True)
    def kept() -> dict:
        return {"rows": 9, "password": "hunter2hunter2"}

    @progress.operation("chosen", result=lambda value: value["rows"])
    def chosen() -> dict:
        return {"rows": 9}

    plain(), kept(), chosen()
    assert said.ended("plain").result is None
    assert said.ended("kept").result == '{"rows":9,"password":"[redacted]"}'
    assert said.ended("chosen").result == "9"


def test_a_title_that_cannot_be_filled_in_is_misuse_and_the_name_stands():
    @progress.operation("load", title="load {nothing}")
    def load() -> None: ...

    with recording() as said:
        load()
        assert sum(active.misuses.values()) == 1
    assert said.started("load").title == "load"


def test_one_plan_may_be_entered_by_several_threads_at_once(said):
    plan = progress.operation("load")
    both_in, first_out = threading.Barrier(2, timeout=30), threading.Event()
    problems = []

    def work(number: int) -> None:
        before = otel_context.get_current()
        try:
            with plan as operation, operation.step("same"):
                operation.advance(number)
                both_in.wait()
                if number == 2:  # the one that entered last need not leave first
                    first_out.wait(30)
                assert progress.current_operation() is operation
            first_out.set()
            assert otel_context.get_current() == before
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert problems == []
    assert sorted(event.completed for event in said.of("step.ended")) == [1, 2]
    assert len(said.of("operation.ended")) == 2


def test_several_threads_may_be_inside_one_step(said):
    both_in = threading.Barrier(2, timeout=30)
    problems = []

    def work() -> None:
        before = otel_context.get_current()
        try:
            with operation.step("same") as step:
                both_in.wait()
                step.advance()
                both_in.wait()
            assert otel_context.get_current() == before
        except BaseException as problem:
            problems.append(problem)

    with progress.operation("load") as operation:
        threads = [threading.Thread(target=work) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert problems == []
    (ended,) = said.of("step.ended")
    assert ended.completed == 2


# --- outcomes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, State.SUCCEEDED),
        (ValueError("bad"), State.FAILED),
        (OperationCancelled("enough"), State.CANCELLED),
        (asyncio.CancelledError(), State.CANCELLED),
        (KeyboardInterrupt(), State.CANCELLED),
        (GeneratorExit(), State.CANCELLED),
        (SystemExit(0), State.SUCCEEDED),
        (SystemExit(None), State.SUCCEEDED),
        (SystemExit(3), State.FAILED),
    ],
    ids=repr,
)
def test_how_a_function_is_left_is_its_outcome(said, error, state):
    @progress.operation("load")
    def load() -> None:
        if error is not None:
            raise error

    if error is None:
        load()
    else:
        with pytest.raises(type(error)):
            load()
    assert said.ended("load").state is state


def test_a_failure_carries_type_message_and_stack_trace_without_secrets(said):
    with pytest.raises(LookupError), progress.operation("load"), progress.step("one"):
        raise LookupError("token=abcdef123456 is gone")
    ended = said.ended("load")
    assert ended.error_type == "LookupError"
    assert ended.error_message == "token=[redacted] is gone"
    assert "abcdef123456" not in ended.error_stacktrace
    (step,) = said.of("step.ended")
    assert (step.step_state, step.error_type) == (StepState.FAILED, "LookupError")


def test_a_cancelled_operation_says_the_reason(said):
    with pytest.raises(OperationCancelled), progress.operation("load"):
        raise OperationCancelled("disk is full")
    assert said.ended("load").message == "disk is full"


# --- coroutines and generators -------------------------------------------------------------------------------------


async def test_a_coroutine_function_stays_one_and_is_current_while_it_runs(said):
    @progress.operation
    async def reindex() -> str:
        await asyncio.sleep(0)
        return progress.current_operation().name

    assert inspect.iscoroutinefunction(reindex)
    assert await reindex() == "reindex"
    assert progress.current_operation().name == ""


async def test_tasks_of_one_operation_count_in_their_own_steps(said):
    async def work(name: str, n: int) -> None:
        with progress.step(name):
            await asyncio.sleep(0)
            progress.advance(n)
            await asyncio.sleep(0)

    async with progress.operation("both"):
        await asyncio.gather(work("a", 1), work("b", 2))
    assert {event.step_name: event.completed for event in said.of("step.ended")} == {"a": 1, "b": 2}


async def test_a_cancelled_task_cancels_its_operation(said):
    @progress.operation
    async def wait() -> None:
        await asyncio.sleep(3600)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said.ended("wait").state is State.CANCELLED


def test_a_generator_is_current_only_while_its_own_code_runs(said):
    @progress.operation("rows")
    def rows():
        with progress.step("read"):
            for n in range(2):
                assert progress.current_operation().name == "rows"
                progress.advance()
                yield n
        return "all"

    assert inspect.isgeneratorfunction(rows)
    iterator = rows()
    seen = []
    with progress.operation("consumer"):
        for n in iterator:
            assert progress.current_operation().name == "consumer"
            seen.append(n)
    assert seen == [0, 1]
    assert said.ended("rows").state is State.SUCCEEDED
    assert said.of("step.ended")[0].completed == 2


def test_a_generator_gives_and_takes_as_it_did_undecorated(said):
    @progress.operation("echo")
    def echo():
        got = yield "ready"
        while got != "stop":
            try:
                got = yield got
            except KeyError as error:
                got = f"caught {error}"
        return "bye"

    iterator = echo()
    assert next(iterator) == "ready"
    assert iterator.send(1) == 1
    assert iterator.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as stopped:
        iterator.send("stop")
    assert stopped.value.value == "bye"
    assert said.ended("echo").state is State.SUCCEEDED


def test_a_generator_that_is_not_finished_is_cancelled(said):
    @progress.operation("rows")
    def rows():
        yield from range(10)

    for n in rows():
        if n == 3:
            break
    assert said.ended("rows").state is State.CANCELLED


def test_a_generator_with_an_open_step_may_be_closed_by_another_thread(said, caplog):
    @progress.operation("rows")
    def rows():
        with progress.step("read"):
            yield from range(10)

    iterator = rows()
    next(iterator)
    thread = threading.Thread(target=iterator.close)
    thread.start()
    thread.join()
    assert said.ended("rows").state is State.CANCELLED
    assert "Failed to detach context" not in caplog.text


async def test_an_async_generator_is_current_only_while_its_own_code_runs(said):
    @progress.operation("pages")
    async def pages():
        with progress.step("read"):
            for n in range(3):
                await asyncio.sleep(0)
                assert progress.current_operation().name == "pages"
                yield n

    assert inspect.isasyncgenfunction(pages)
    seen = []
    async with progress.operation("consumer"):
        async for n in pages():
            assert progress.current_operation().name == "consumer"
            seen.append(n)
    assert seen == [0, 1, 2]
    assert said.ended("pages").state is State.SUCCEEDED


async def test_an_async_generator_that_is_closed_early_is_cancelled(said):
    @progress.operation("pages")
    async def pages():
        for n in range(3):
            yield n

    iterator = pages()
    await anext(iterator)
    await iterator.aclose()
    assert said.ended("pages").state is State.CANCELLED


# --- nothing configured ----------------------------------------------------------------------------------------------


def test_nothing_configured_functions_are_called_and_that_is_all():
    assert active.instrumentation() is None

    @progress.operation("load", title="{day}")
    def load(day: str) -> str:
        assert progress.current_operation().ended
        with progress.step("one") as step:
            step.count(rejected=2)
            assert step.counts["rejected"] == 2
            progress.advance()
            progress.note("nobody hears")
            progress.set_total(3)
            progress.checkpoint()
        return day

    @progress.operation
    def numbers():
        return (yield from [1, 2])

    assert load("monday") == "monday"
    assert list(numbers()) == [1, 2]
    with progress.operation("x") as operation:
        assert list(operation.track([1])) == [1]
        operation.poll(lambda: 1, total=3)
        assert not operation.cancel()
    assert not progress.cancel_requested()


def test_with_only_a_provider_there_are_spans_and_step_events_and_no_thread(exported):
    before = threading.active_count()

    @progress.operation("load", steps=["one"])
    def load() -> None:
        with progress.step("one"):
            for _ in progress.track(range(3)):
                pass

    load()
    (span,) = exported.get_finished_spans()
    assert span.name == "load"
    assert [event.name for event in span.events] == [
        "otelprogress.step.started",
        "otelprogress.step.ended",
        "otelprogress.operation.ended",
    ]
    assert span.attributes["otelprogress.operation.state"] == "succeeded"
    assert threading.active_count() == before


# --- adopting spans -----------------------------------------------------------------------------------------------------


def test_the_first_span_that_the_function_opens_is_adopted(said, exported):
    tracer = trace.get_tracer("existing")

    @progress.operation(adopt="inner", steps=["query"])
    def report() -> str:
        with tracer.start_as_current_span("existing report") as span:
            with progress.step("query"):
                with tracer.start_as_current_span("select"):
                    pass
            return f"{span.get_span_context().span_id:016x}"

    span_id = report()
    assert said.started("report").run_id.endswith(span_id)
    assert said.ended("report").state is State.SUCCEEDED
    names = [span.name for span in exported.get_finished_spans()]
    assert names == ["select", "existing report"]


def test_without_an_inner_span_the_operation_gets_one_of_its_own(said, exported):
    @progress.operation("report", adopt="inner")
    def report() -> None: ...

    report()
    assert said.ended("report").state is State.SUCCEEDED
    assert [span.name for span in exported.get_finished_spans()] == ["report"]


def test_the_current_span_is_adopted_below_a_tracing_decorator(said, exported):
    tracer = trace.get_tracer("existing")

    @tracer.start_as_current_span("traced")
    @progress.operation(adopt="current")
    def report() -> None:
        pass

    report()
    (span,) = exported.get_finished_spans()
    assert span.name == "traced"
    assert said.started("report").run_id.endswith(f"{span.context.span_id:016x}")


def test_a_span_can_be_adopted_by_hand(said, exported):
    tracer = trace.get_tracer("existing")
    with tracer.start_as_current_span("import flights") as span:
        with progress.adopt(span, steps=["read"]) as operation:
            with progress.step("read"):
                pass
            assert operation.span is span
        assert span.is_recording()
    assert said.ended("import flights").state is State.SUCCEEDED


def test_an_adopted_span_that_is_ended_first_ends_the_operation(said, exported):
    span = trace.get_tracer("existing").start_span("import")
    with progress.adopt(span):
        span.set_status(trace.Status(trace.StatusCode.ERROR, "broken"))
        span.end()
    ended = said.ended("import")
    assert (ended.state, ended.error_message) == (State.FAILED, "broken")
    (finished,) = exported.get_finished_spans()
    assert finished.attributes["otelprogress.operation.state"] == "failed"


# --- control --------------------------------------------------------------------------------------------------------------


def test_a_cancelled_loop_stops_before_its_next_item(said):
    done = []
    with pytest.raises(OperationCancelled, match="enough"):
        with progress.operation("train", controls=["cancel"]) as operation:
            for n in progress.track(range(1_000_000)):
                done.append(n)
                if n == 10:
                    assert operation.cancel("enough")
    assert done == list(range(11))
    ended = said.ended("train")
    assert (ended.state, ended.message, ended.completed) == (State.CANCELLED, "enough", 11)
    (applied,) = said.of("control.applied")
    assert (applied.control_action, applied.control_reason) == ("cancel", "enough")


def test_a_child_without_controls_obeys_its_parent(said):
    with pytest.raises(OperationCancelled):
        with progress.operation("train", controls=["cancel"]) as operation:
            with progress.operation("epoch"):
                operation.cancel()
                progress.checkpoint()
    assert said.ended("epoch").state is State.CANCELLED
    assert said.ended("train").state is State.CANCELLED


def test_a_command_that_was_not_declared_is_refused():
    with recording() as said, progress.operation("train") as operation:
        assert not operation.cancel()
        progress.checkpoint()
        assert sum(active.misuses.values()) == 1
    assert said.ended("train").state is State.SUCCEEDED


def test_cancel_requested_asks_without_raising(said):
    with progress.operation("train", controls=["cancel"]) as operation:
        assert not progress.cancel_requested()
        operation.cancel()
        assert progress.cancel_requested()


# --- misuse ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mistake",
    [
        {"weight": -1},
        {"attempt": 0},
        {"attempt": 1.5},
        {"expected_children": -1},
        {"stall_after_s": 0},
        {"total": float("nan")},
        {"initial": "x"},
        {"steps": {"a": 0}},
    ],
    ids=repr,
)
def test_a_plan_that_cannot_be_meant_costs_only_the_bad_part(mistake):
    with recording() as said, progress.operation("load", **mistake):
        pass
    assert sum(active.misuses.values()) == 1
    started = said.started("load")
    assert (started.weight, started.attempt, started.expected_children, started.total) == (
        None,
        None,
        None,
        None,
    )
    assert started.step_weights in (None, (1.0,))


def test_one_control_or_step_may_be_given_as_a_word(said):
    with progress.operation("load", controls="cancel", steps="one"):
        pass
    assert (said.started("load").controls, said.started("load").steps) == (("cancel",), ("one",))


def test_names_are_cleaned_before_they_leave(said):
    with progress.operation("load\x1b[31m", label="a\nb", steps=["one\r\ntwo"]) as operation:
        with operation.step("one\r\ntwo") as step:
            assert step.index == 0
    started = said.events[0]
    assert (started.name, started.label, started.steps) == ("load", "a b", ("one two",))


def test_numbers_of_other_libraries_are_counts_too(said):
    numpy = pytest.importorskip("numpy")
    from decimal import Decimal

    with progress.operation("load") as operation:
        operation.set_total(numpy.int64(10))
        operation.advance(numpy.int64(2))
        operation.advance(numpy.float32(1.5))
        operation.count(rejected=numpy.int64(3), late=Decimal(2))
    ended = said.ended("load")
    assert (ended.completed, ended.total, ended.counters) == (3.5, 10, {"rejected": 3, "late": 2})
    assert {type(value) for value in (ended.completed, ended.total, *ended.counters.values())} == {int, float}


@pytest.mark.parametrize("n", [-1, float("nan"), "three", None])
def test_counts_that_cannot_be_meant_are_refused_counted_and_logged_once(n, caplog):
    with recording() as said, caplog.at_level(logging.WARNING, "otelprogress"):
        with progress.operation("load") as operation:
            for _ in range(3):
                operation.advance(n)
                progress.advance(n)
    assert said.ended("load").completed is None
    assert sum(active.misuses.values()) == 6
    assert len(caplog.records) == 2, "one warning per call site"
    assert "test_operation.py" in caplog.text


def test_misuse_raises_in_strict_mode(said):
    with pytest.raises(InvalidValue, match="not negative"), progress.operation("load") as operation:
        operation.advance(-1)


def test_more_than_eight_named_counts_are_refused():
    with recording(), progress.operation("load") as operation:
        for n in range(9):
            operation.count(**{f"c{n}": 1})
        assert len(operation.counts) == 8
        assert sum(active.misuses.values()) == 1


def test_an_operation_that_ended_is_no_longer_current_where_its_context_was_copied(said):
    with progress.operation("load"):
        copied = otel_context.get_current()
    otel_context.attach(copied)
    try:
        assert progress.current_operation().name == ""
        progress.note("nobody hears")
    finally:
        otel_context.attach(otel_context.Context())
    assert said.kinds()[-1] == "operation.ended"


def test_an_operation_that_ended_is_freed(said):
    with progress.operation("load", controls=["cancel"]) as operation:
        for _ in progress.track([1, 2]):
            pass
    gate = weakref.ref(operation.gate._condition)
    del operation
    import gc

    gc.collect()
    assert gate() is None


# --- what is not as it should be -----------------------------------------------------------------------------------


def test_steps_that_are_the_same_once_clean_are_one_step(said):
    with progress.operation("op", steps={"load": 2, "\x1b[31mload": 3, "\x1b[0m": 1}) as operation:
        with progress.step("\x1b[0m") as last:
            pass
        assert operation.step("later").index == 2
    assert said.started("op").steps == ("load", "step")
    assert said.started("op").step_weights == (2.0, 1.0)
    assert (last.name, last.index) == ("step", 1)


def test_a_span_that_the_caller_ended_is_counted_and_costs_the_operation_nothing(exported, caplog):
    with recording() as said:
        with progress.operation("early") as operation:
            operation.span.end()
            progress.note("still here")
        assert sum(active.misuses.values()) == 1
    assert said.ended("early").state is State.SUCCEEDED
    assert [event.message for event in said.of("operation.noted")] == ["still here"]
    assert [span.name for span in exported.get_finished_spans()] == ["early"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("the span of operation 'early' was ended before it")


def test_counts_beyond_any_number_are_left_out_of_what_is_said(said):
    with progress.operation("op") as operation:
        operation.advance(10**400)
        progress.note("here")
    assert said.of("operation.noted")[0].completed is None


def test_any_number_of_threads_share_one_plan():
    plan = progress.operation("shared")
    ended: list[bool] = []

    def work() -> None:
        for _ in range(200):
            with plan as operation:
                assert progress.current_operation() is operation
                time.sleep(0)
            ended.append(operation.ended and active.step_of() is None)

    switched_every_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with recording() as said:
            threads = [threading.Thread(target=work) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(switched_every_s)
    assert ended == [True] * 3200
    assert len(said.of("operation.ended")) == 3200


def test_what_a_signal_handler_says_does_not_wait_for_what_it_interrupted(exported, monkeypatch):
    held = threading.Lock()  # as a span's own: whoever holds it must not ask for it again
    put_on_span = span_tap.add_own_event
    said_inside: list[bool] = []

    def interrupted(*args: object) -> None:
        said_inside.append(held.acquire(blocking=False))
        if len(said_inside) == 1:
            progress.note("from a handler")
        put_on_span(*args)
        held.release()

    monkeypatch.setattr(span_tap, "add_own_event", interrupted)
    with recording() as said:
        with progress.operation("op"):
            progress.note("interrupted")
    assert said_inside
    assert all(said_inside)
    assert {event.message for event in said.of("operation.noted")} == {"interrupted", "from a handler"}
    assert "otelprogress.operation.noted" in [event.name for event in exported.get_finished_spans()[0].events]


# --- who waits for whom -----------------------------------------------------------------------------------------------


def says_elsewhere(operation: progress.Operation, message: str) -> bool:
    """Whether another thread can say something now, without this one going on."""
    thread = threading.Thread(target=operation.note, args=(message,), daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_what_hears_of_a_start_may_wait_for_another_thread_of_the_operation(said):
    emitter, free = active.current.emitter, []

    class Waiting:
        def emit(self, event, span, ledger) -> None:
            if event.kind.endswith("operation.started"):
                free.append(says_elsewhere(progress.current_operation(), "from elsewhere"))
            emitter.emit(event, span, ledger)

        def finish(self, span, ledger) -> None:
            emitter.finish(span, ledger)

    active.current.emitter = Waiting()

    @progress.operation("report", adopt="inner")
    def report() -> None:
        progress.note("before any span")

    report()
    assert free == [True]
    in_order = sorted(said.events, key=lambda event: event.sequence)
    assert [event.kind.rpartition("otelprogress.")[2] for event in in_order] == [
        "operation.started",
        "operation.noted",
        "operation.noted",
        "operation.ended",
    ]


def test_a_poll_that_is_asked_at_the_end_may_wait_for_another_thread_of_the_operation(said):
    free = []

    def count() -> float:
        free.append(says_elsewhere(operation, "still here"))
        return 3

    with progress.operation("load") as operation:
        with operation.step("copy") as step:
            step.poll(count)
        operation.poll(count)
    assert free == [True] * 4
    assert len(said.of("operation.noted")) == 4
    assert said.ended("load").state is State.SUCCEEDED


def test_an_end_out_of_a_poll_that_is_asked_at_the_end_is_the_same_end(said):
    with progress.operation("load") as operation:
        answers = iter([lambda: 1, operation.end])
        operation.poll(lambda: next(answers)() or 2)
    assert said.ended("load").completed == 2
