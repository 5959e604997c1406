"""Existing tqdm code, unchanged, in every flavour."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import otelprogress as progress
from otelprogress import active
from otelprogress.integrations import tqdm_bridge
from otelprogress.testing import ProgressCapture
from tests.waiting import eventually

tqdm_std = pytest.importorskip("tqdm.std")
NOWHERE = io.StringIO()


@pytest.fixture(autouse=True)
def bridged() -> None:
    tqdm_bridge.install()


@pytest.fixture(params=["tqdm.std", "tqdm", "tqdm.auto", "tqdm.asyncio"])
def flavour(request: pytest.FixtureRequest) -> Any:
    __import__(request.param)
    return sys.modules[request.param].tqdm


def test_a_described_bar_is_an_operation_with_its_count_total_and_unit(
    flavour: Any, progress_capture: ProgressCapture
) -> None:
    assert list(flavour(range(7), desc="load rows", unit="row", file=NOWHERE)) == list(range(7))
    bar = progress_capture.one("load rows")
    assert (bar.outcome, bar.completed, bar.total) == ("succeeded", 7, 7)
    assert bar.view.step is not None
    assert bar.view.step.unit == "{row}"


def test_a_bar_without_description_counts_for_the_current_step(progress_capture: ProgressCapture) -> None:
    with progress.operation("import"), progress.step("read"):
        for _ in tqdm_std.tqdm([1, 2, 3], file=NOWHERE):
            pass
    assert [operation.name for operation in progress_capture.operations] == ["import"]
    read = progress_capture.one("import").step("read")
    assert (read.completed, read.total) == (3, 3)


def test_a_described_bar_inside_an_operation_is_its_child(progress_capture: ProgressCapture) -> None:
    with progress.operation("train"):
        for epoch in (1, 2):
            for _ in tqdm_std.tqdm(range(2), desc=f"epoch {epoch}: ", file=NOWHERE):
                pass
    train = progress_capture.one("train")
    epochs = progress_capture.all("epoch #")
    assert [epoch.title for epoch in epochs] == ["epoch 1", "epoch 2"]
    assert {epoch.parent_id for epoch in epochs} == {train.id}


def test_a_described_bar_inside_the_loop_of_another_is_its_child(progress_capture: ProgressCapture) -> None:
    for _ in tqdm_std.tqdm(range(2), desc="files", file=NOWHERE):
        for _ in tqdm_std.tqdm(range(3), desc="lines", file=NOWHERE):
            pass
    files = progress_capture.one("files")
    assert {lines.parent_id for lines in progress_capture.all("lines")} == {files.id}


def test_bars_side_by_side_are_not_inside_one_another(progress_capture: ProgressCapture) -> None:
    left, right = (tqdm_std.tqdm(total=1, desc=side, file=NOWHERE) for side in ("left", "right"))
    for bar in (left, right):
        bar.update(1)
        bar.close()
    assert {operation.parent_id for operation in progress_capture.operations} == {None}


def test_a_complete_bar_that_nobody_closed_succeeds_at_the_exit(progress_capture: ProgressCapture) -> None:
    complete, half = (tqdm_std.tqdm(total=2, desc=name, file=NOWHERE) for name in ("complete", "half"))
    complete.update(2)
    half.update(1)
    tqdm_bridge._end_complete()
    assert progress_capture.one("complete").outcome == "succeeded"
    assert progress_capture.one("half").outcome is None
    half.close()


def test_an_inner_bar_without_description_does_not_add_to_the_outer_one(
    progress_capture: ProgressCapture,
) -> None:
    with progress.operation("nested"):
        for _ in tqdm_std.tqdm(range(3), file=NOWHERE):
            for _ in tqdm_std.tqdm(range(10), file=NOWHERE, leave=False):
                pass
    assert progress_capture.one("nested").completed == 3


@pytest.mark.parametrize("disable", [True, None])
def test_a_bar_that_is_not_drawn_counts_all_the_same(
    disable: bool | None, progress_capture: ProgressCapture
) -> None:
    assert list(tqdm_std.tqdm("abcd", desc="quiet", disable=disable, file=NOWHERE)) == list("abcd")
    quiet = progress_capture.one("quiet")
    assert (quiet.outcome, quiet.completed, quiet.total) == ("succeeded", 4, 4)


@pytest.mark.parametrize("disable", [False, True])
def test_manual_updates_count_and_closing_early_is_a_cancel_that_says_where(
    disable: bool, progress_capture: ProgressCapture
) -> None:
    bar = tqdm_std.tqdm(desc="upload", total=100, unit="B", disable=disable, file=NOWHERE)
    bar.update(30)
    bar.update(10)
    bar.close()
    bar.close()
    upload = progress_capture.one("upload")
    assert (upload.outcome, upload.completed) == ("cancelled", 40)
    assert upload.message == "left at 40 of 100"


def test_what_was_done_before_the_bar_is_done_but_no_part_of_its_rate(
    progress_capture: ProgressCapture,
) -> None:
    with tqdm_std.tqdm(desc="resume", total=10, initial=6, file=NOWHERE) as bar:
        bar.update(4)
    resumed = progress_capture.one("resume")
    assert (resumed.outcome, resumed.completed, resumed.total) == ("succeeded", 10, 10)
    assert resumed.view.step is not None
    assert resumed.view.step.initial == 6


def test_an_exception_inside_the_with_block_fails_the_bar(progress_capture: ProgressCapture) -> None:
    with pytest.raises(ZeroDivisionError), tqdm_std.tqdm(desc="divide", total=2, file=NOWHERE) as bar:
        bar.update(1)
        1 / 0  # noqa: B018 - to raise
    divide = progress_capture.one("divide")
    assert (divide.outcome, divide.error_type) == ("failed", "ZeroDivisionError")


def test_a_loop_left_by_an_exception_is_cancelled_and_the_operation_around_it_knows_why(
    progress_capture: ProgressCapture,
) -> None:
    def work() -> None:
        with progress.operation("outer"):
            for number in tqdm_std.tqdm(range(5), desc="inner", file=NOWHERE):
                if number == 2:
                    raise KeyError(number)

    with pytest.raises(KeyError):
        work()
    eventually(lambda: progress_capture.one("inner").outcome)
    assert progress_capture.one("inner").outcome == "cancelled"
    assert progress_capture.one("outer").error_type == "KeyError"


def test_a_bar_made_while_an_exception_is_handled_does_not_take_the_blame(
    progress_capture: ProgressCapture,
) -> None:
    try:
        raise OSError("before")
    except OSError:
        list(tqdm_std.tqdm(range(2), desc="recover", file=NOWHERE))
    assert progress_capture.one("recover").outcome == "succeeded"


async def test_async_iteration_and_gather_count(progress_capture: ProgressCapture) -> None:
    from tqdm.asyncio import tqdm_asyncio

    async def numbers() -> Any:
        for number in range(3):
            yield number

    assert [number async for number in tqdm_asyncio(numbers(), desc="async", total=3, file=NOWHERE)] == [
        0,
        1,
        2,
    ]
    await tqdm_asyncio.gather(
        *(asyncio.sleep(0, number) for number in range(4)), desc="gathered", file=NOWHERE
    )
    assert progress_capture.one("async").completed == 3
    assert progress_capture.one("async").outcome == "succeeded"
    assert progress_capture.one("gathered").completed == 4


def test_thread_map_is_seen(progress_capture: ProgressCapture) -> None:
    from tqdm.contrib.concurrent import thread_map

    assert thread_map(abs, [-1, -2], desc="threads", file=NOWHERE, max_workers=2) == [1, 2]
    assert progress_capture.one("threads").completed == 2


def test_bars_in_several_threads_of_one_operation_add_up(progress_capture: ProgressCapture) -> None:
    def read(count: int) -> None:
        for _ in tqdm_std.tqdm(range(count), disable=True):
            pass

    with progress.operation("parallel"), ThreadPoolExecutor(2) as pool:
        list(pool.map(progress.propagate(read), [3, 4]))
    assert progress_capture.one("parallel").completed == 7


def test_without_an_operation_or_description_it_is_named_for_the_function_that_made_it(
    progress_capture: ProgressCapture,
) -> None:
    def nightly() -> None:
        list(tqdm_std.tqdm([1], file=NOWHERE))

    nightly()
    assert progress_capture.one("*nightly").completed == 1


def test_with_nothing_configured_tqdm_is_as_it_was() -> None:
    assert active.current is None
    assert list(tqdm_std.tqdm(range(3), desc="plain", file=NOWHERE)) == [0, 1, 2]


def test_a_bar_goes_on_when_the_bridge_fails(
    progress_capture: ProgressCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Iterator[object]:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(tqdm_bridge, "begin", broken)
    assert list(tqdm_std.tqdm(range(3), desc="survives", file=NOWHERE)) == [0, 1, 2]


def test_bars_that_our_view_shows_do_not_draw_on_its_terminal(
    progress_capture: ProgressCapture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(active, "draws_bars", True)
    list(tqdm_std.tqdm(range(3), desc="one drawer"))
    mine = io.StringIO()
    list(tqdm_std.tqdm(range(3), desc="own file", file=mine))
    assert capsys.readouterr().err == ""
    assert "own file" in mine.getvalue()
