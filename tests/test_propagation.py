from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import otelprogress as progress
from otelprogress import active, propagation
from otelprogress.exceptions import OperationCancelled, WorkerCancelled
from otelprogress.propagation import environment, inherited_context, propagate
from otelprogress.testing import ProgressCapture


@progress.operation("resize")
def resize(name: str) -> str:
    """Resize one file."""
    return name.upper()


@progress.operation("fail")
def fail() -> None:
    raise LookupError("no such file")


def test_what_threads_of_an_executor_do_is_a_child_of_what_was_current(progress_capture: ProgressCapture):
    with progress.operation("album"):
        work = propagate(resize)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(work, ["a", "b", "c"])) == ["A", "B", "C"]
    album = progress_capture.one("album")
    assert [each.parent_id for each in progress_capture.all("resize")] == [album.id] * 3


def test_without_propagation_another_thread_begins_a_tree_of_its_own(progress_capture: ProgressCapture):
    with progress.operation("album"):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(resize, "a").result()
    assert progress_capture.one("resize").parent_id is None


def test_several_threads_may_be_inside_the_same_propagated_call(progress_capture: ProgressCapture):
    both_inside = threading.Barrier(2, timeout=30)

    @progress.operation("meet")
    def meet() -> None:
        both_inside.wait()

    with progress.operation("album"):
        work = propagate(meet)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {each.parent_id for each in progress_capture.all("meet")} == {progress_capture.one("album").id}


def test_counting_in_a_thread_reaches_the_operation_it_was_propagated_from(progress_capture: ProgressCapture):
    with progress.operation("album") as album:
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(propagate(progress.advance)) for _ in range(5)]:
                done.result()
        assert album.root.completed == 5


def test_the_callers_context_is_put_back(progress_capture: ProgressCapture):
    with progress.operation("one"):
        work = propagate(lambda: progress.current_operation().name)
    with progress.operation("two"):
        work()
        assert progress.current_operation().name == "two"


def test_what_the_function_raises_comes_out_as_it_is(progress_capture: ProgressCapture):
    with pytest.raises(LookupError, match="no such file"):
        propagate(fail)()
    assert progress_capture.one("fail").outcome == "failed"


async def test_coroutine_functions_stay_coroutine_functions(progress_capture: ProgressCapture):
    @progress.operation("fetch")
    async def fetch(n: int) -> int:
        await asyncio.sleep(0)
        return n

    with progress.operation("crawl"):
        work = propagate(fetch)
    assert await asyncio.gather(work(1), work(2)) == [1, 2]
    assert len(progress_capture.all("fetch")) == 2


def test_the_wrapper_looks_like_what_it_wraps():
    assert propagate(resize).__name__ == "resize"
    assert propagate(resize).__doc__ == "Resize one file."


def test_a_pickled_wrapper_carries_the_trace_and_leaves_the_context_behind(progress_capture: ProgressCapture):
    with progress.operation("album"):
        pickled = pickle.dumps(propagate(resize))
    assert pickle.loads(pickled)("a") == "A"
    assert progress_capture.one("resize").parent_id == progress_capture.one("album").id


def test_a_pickled_wrapper_forgets_what_is_current_where_it_arrives(progress_capture: ProgressCapture):
    with progress.operation("album"):
        pickled = pickle.dumps(propagate(resize))
    with progress.operation("elsewhere"):
        pickle.loads(pickled)("a")
    assert progress_capture.one("resize").parent_id == progress_capture.one("album").id


def test_nothing_configured_nothing_carried():
    assert active.current is None
    work = propagate(str.upper)
    assert work("a") == "A"
    assert pickle.loads(pickle.dumps(work))("b") == "B"


def test_the_environment_names_the_current_operation(progress_capture: ProgressCapture):
    with progress.operation("album") as album:
        traceparent = environment()["TRACEPARENT"]
    assert traceparent.split("-")[1:3] == list(album.run_id.partition("-")[::2])


def test_the_environment_names_the_operation_and_not_a_span_inside_it(
    progress_capture: ProgressCapture, monkeypatch: pytest.MonkeyPatch
):
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with progress.operation("album") as album, tracer.start_as_current_span("inner"):
        assert environment()["TRACEPARENT"].split("-")[2] == album.run_id[33:]


def test_the_link_is_carried_where_there_is_one(
    progress_capture: ProgressCapture, monkeypatch: pytest.MonkeyPatch
):
    assert "OTELPROGRESS_LINK" not in environment()
    monkeypatch.setenv("OTELPROGRESS_LINK", "/run/feed.json")
    assert environment()["OTELPROGRESS_LINK"] == "/run/feed.json"


def test_a_traceparent_in_the_environment_is_what_roots_belong_to(
    progress_capture: ProgressCapture, monkeypatch: pytest.MonkeyPatch
):
    trace_id, span_id = "ab" * 16, "cd" * 8
    context = inherited_context({"TRACEPARENT": f"00-{trace_id}-{span_id}-01"})
    monkeypatch.setattr(active, "started_in", context)
    with progress.operation("album") as album:
        resize("a")
    assert album.run_id.startswith(trace_id)
    assert album._parent_span_id == span_id
    assert progress_capture.one("resize").parent_id == album.run_id


@pytest.mark.parametrize("text", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_traceparent_that_cannot_be_read_is_ignored(text: str):
    assert inherited_context({"TRACEPARENT": text}) is None


def test_an_operation_of_the_parent_is_left_to_it_in_a_forked_child(progress_capture: ProgressCapture):
    with progress.operation("album") as album:
        album.leave_to_parent()
        assert progress.current_operation().run_id == ""
        resize("a")
        album.advance()
        album.end()
    assert [event.kind for event in progress_capture.one("album").events] == ["operation.started"]
    assert progress_capture.one("resize").parent_id == album.run_id


def test_the_end_of_a_call_in_another_process_waits_until_its_events_have_left(
    progress_capture: ProgressCapture, monkeypatch: pytest.MonkeyPatch
):
    waited: list[float] = []
    monkeypatch.setattr(active, "flush", waited.append)
    work = propagate(resize)
    work("here")
    assert waited == []
    monkeypatch.setattr(os, "getpid", lambda pid=os.getpid(): pid + 1)
    work("there")
    assert waited == [propagation.FLUSH_S]


# --- cancelled elsewhere, and told of controls -----------------------------------------------------------------------


def cancelled(number: int) -> int:
    if number == 1:
        raise OperationCancelled(f"enough of {number}")
    return number


async def cancelled_later(number: int) -> int:
    await asyncio.sleep(0)
    return cancelled(number)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_brings_the_cancel_of_a_worker_back_and_goes_on(method: str):
    work = propagate(cancelled)
    with multiprocessing.get_context(method).Pool(1) as pool:
        tasks = [pool.apply_async(work, (number,)) for number in range(3)]
        assert (tasks[0].get(60), tasks[2].get(60)) == (0, 2)
        with pytest.raises(WorkerCancelled, match="enough of 1") as raised:
            tasks[1].get(60)
    assert raised.value.reason == "enough of 1"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_executor_of_processes_brings_it_back_and_goes_on(method: str):
    work = propagate(cancelled)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        done = [pool.submit(work, number) for number in range(3)]
        assert (done[0].result(60), done[2].result(60)) == (0, 2)
        assert isinstance(done[1].exception(60), WorkerCancelled)
        assert done[1].exception().reason == "enough of 1"


def test_in_the_same_process_a_cancel_stays_what_it_is():
    with pytest.raises(OperationCancelled, match="enough of 1"):
        propagate(cancelled)(1)
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(propagate(cancelled), 1).exception(), OperationCancelled)


async def test_a_coroutine_function_brings_it_back_too(monkeypatch: pytest.MonkeyPatch):
    work = propagate(cancelled_later)
    monkeypatch.setattr(os, "getpid", lambda pid=os.getpid(): pid + 1)
    with pytest.raises(WorkerCancelled):
        await work(1)


def test_what_a_worker_left_cancelled_is_cancelled_too(progress_capture: ProgressCapture):
    with pytest.raises(WorkerCancelled), progress.operation("album"):
        raise WorkerCancelled("enough")
    album = progress_capture.one("album")
    assert (album.outcome, album.events[-1].message) == ("cancelled", "enough")


def test_the_environment_says_whether_the_operation_can_be_commanded(progress_capture: ProgressCapture):
    with progress.operation("album"):
        assert propagation.CONTROLLED not in environment()
    with progress.operation("album", controls=["cancel"]):
        told = environment()
        assert told[propagation.CONTROLLED] == "1"
        with progress.operation("page"):
            assert environment()[propagation.CONTROLLED] == "1", "it obeys what is around it"
    with progress.operation("album", controls=["input"]):
        assert propagation.CONTROLLED not in environment(), "an answer goes to who asked"
    context = inherited_context(told)
    assert context is not None
    assert context.get(active.CONTROLLED) is True
    untold = inherited_context({key: value for key, value in told.items() if key != propagation.CONTROLLED})
    assert untold is not None
    assert untold.get(active.CONTROLLED) is None


def test_a_pickled_wrapper_tells_its_process_of_controls(
    progress_capture: ProgressCapture, monkeypatch: pytest.MonkeyPatch
):
    with progress.operation("album", controls=["pause"]) as album:
        pickled = pickle.dumps(propagate(the_gate_around))
    with progress.operation("album"):
        uncontrolled = pickle.dumps(propagate(the_gate_around))
    assert pickle.loads(pickled)() == album.run_id
    assert pickle.loads(uncontrolled)() is None


def the_gate_around() -> str | None:
    with progress.operation("page") as page:
        ins = active.current
        assert ins is not None
        return next((run_id for run_id, gate in ins.remote_gates.items() if gate is page.gate), None)
