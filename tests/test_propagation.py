from __future__ import annotations

import asyncio
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import otelprogress as progress
from otelprogress import active, propagation
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
