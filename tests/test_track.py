from __future__ import annotations

import gc
import itertools
import threading
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otelprogress as progress
from otelprogress import active
from otelprogress.exceptions import OperationCancelled
from otelprogress.model.events import State
from tests.recording import recording

ITEMS = 7


@pytest.fixture
def said():
    with recording(strict=True) as kept:
        yield kept


def seven():
    yield from range(ITEMS)


class Indexed:
    """A sequence of the user's own, whose length is asked for on the application's thread only."""

    def __init__(self) -> None:
        self.askers: set[int] = set()

    def __len__(self) -> int:
        self.askers.add(threading.get_ident())
        return ITEMS

    def __getitem__(self, index: int) -> int:
        if index >= ITEMS:
            raise IndexError
        return index


IN_ALL_FORMS = {
    "list": lambda: list(range(ITEMS)),
    "tuple": lambda: tuple(range(ITEMS)),
    "range": lambda: range(ITEMS),
    "dict": lambda: dict.fromkeys(range(ITEMS)),
    "values": lambda: dict.fromkeys(range(ITEMS), 0).values(),
    "items": lambda: dict.fromkeys(range(ITEMS), 0).items(),
    "set": lambda: set(range(ITEMS)),
    "frozenset": lambda: frozenset(range(ITEMS)),
    "text": lambda: "abcdéfg",
    "ascii": lambda: "abcdefg",
    "bytes": lambda: b"abcdefg",
    "deque": lambda: deque(range(ITEMS)),
    "reversed": lambda: reversed(list(range(ITEMS))),
    "reversed range": lambda: reversed(range(ITEMS)),
    "reversed dict": lambda: reversed(dict.fromkeys(range(ITEMS))),
    "list iterator": lambda: iter(list(range(ITEMS))),
    "indexed": Indexed,
    "generator": seven,
    "enumerate": lambda: enumerate(range(ITEMS)),
    "zip": lambda: zip(range(ITEMS), range(ITEMS), strict=True),
    "map": lambda: map(str, range(ITEMS)),
    "islice": lambda: itertools.islice(itertools.count(), ITEMS),
}
SIZED = set(IN_ALL_FORMS) - {"generator", "enumerate", "zip", "map", "islice"}


@pytest.mark.parametrize("controls", [(), ("cancel", "pause")], ids=["plain", "gated"])
@pytest.mark.parametrize("form", IN_ALL_FORMS)
def test_every_iterable_gives_its_items_and_an_exact_count(said, form, controls):
    expected = list(IN_ALL_FORMS[form]())
    seen, counts = [], []
    with progress.operation("load", controls=controls) as operation:
        for item in progress.track(IN_ALL_FORMS[form](), unit="row"):
            seen.append(item)
            counts.append(operation.root.completed)
        assert operation.root.completed == ITEMS
    assert seen == expected
    assert counts == list(range(ITEMS)), "the item in the body is not done yet"
    ended = said.ended("load")
    assert (ended.completed, ended.unit) == (ITEMS, "{row}")
    assert ended.total == (ITEMS if form in SIZED else None)


def test_an_array_of_numpy_tells_its_rows(said):
    numpy = pytest.importorskip("numpy")
    with progress.operation("load") as operation:
        for n, _ in enumerate(progress.track(numpy.arange(ITEMS))):
            assert operation.root.completed == n
    assert said.ended("load").total == ITEMS


def test_the_length_of_a_users_sequence_is_never_asked_from_another_thread(said):
    items = Indexed()
    with progress.operation("load") as operation:
        for _ in progress.track(items):
            thread = threading.Thread(target=operation.root.snapshot)
            thread.start()
            thread.join()
    assert items.askers == {threading.get_ident()}


def test_a_list_may_grow_while_it_is_iterated(said):
    work = [3]
    for n in progress.track(work, "crawl"):
        if n:
            work.append(n - 1)  # noqa: PERF401 - the list grows under its own loop
    ended = said.ended("crawl")
    assert (ended.completed, ended.total) == (4, 4)


def test_outside_an_operation_a_loop_is_one(said):
    for _ in progress.track(
        range(3), "import flights", unit="row", title="import flights of May", label="f-1"
    ):
        assert progress.current_operation().name == "", "not current in the body"
    started, ended = said.events
    assert (started.name, started.title, started.label) == ("import flights", "import flights of May", "f-1")
    assert (started.completed, started.total, started.unit) == (0, 3, "{row}")
    assert (ended.state, ended.completed) == (State.SUCCEEDED, 3)


def test_an_unnamed_loop_outside_an_operation_is_named_after_its_function(said):
    def loader() -> None:
        for _ in progress.track([1]):
            pass

    loader()
    assert said.events[0].name.endswith("loader")


def test_a_named_loop_within_an_operation_is_a_child(said):
    with progress.operation("outer") as outer:
        for _ in progress.track([1, 2], "inner"):
            pass
    assert said.started("inner").parent_span_id == outer.run_id[33:]
    assert said.ended("outer").completed is None


@pytest.mark.parametrize(
    "items",
    [list(range(100)), iter(range(100)), (n for n in range(100))],
    ids=["list", "iterator", "generator"],
)
def test_a_loop_left_early_is_cancelled_and_says_where(said, items):
    for n in progress.track(items, "scan", total=100):
        if n == 40:
            break
    ended = said.ended("scan")
    assert (ended.state, ended.message, ended.completed) == (State.CANCELLED, "left at 40 of 100", 40)


def test_a_loop_left_by_an_exception_is_cancelled(said):
    with pytest.raises(LookupError):
        for _ in progress.track(range(5), "scan"):
            raise LookupError
    assert said.ended("scan").message == "left at 0 of 5"


def test_what_a_loop_left_early_counted_stays_with_the_step(said):
    with progress.operation("load"):
        for n in progress.track(range(10)):
            if n == 4:
                break
        for _ in progress.track(range(3)):
            pass
    ended = said.ended("load")
    assert (ended.completed, ended.total) == (7, 13)


def test_a_loop_inside_another_one_is_not_counted(said):
    with progress.operation("train"):
        for _ in progress.track(range(3), unit="epoch"):
            for _ in progress.track(range(100), unit="batch"):
                pass
    ended = said.ended("train")
    assert (ended.completed, ended.total, ended.unit) == (3, 3, "{epoch}")


def test_loops_in_several_threads_add_up(said):
    both = threading.Barrier(2, timeout=30)

    def work() -> None:
        for _ in operation.track(range(5)):
            both.wait()

    with progress.operation("load") as operation:
        threads = [threading.Thread(target=work) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    ended = said.ended("load")
    assert (ended.completed, ended.total) == (10, 10)


def test_items_done_before_count_as_done(said):
    for _ in progress.track(range(40, 100), "resume", initial=40):
        pass
    ended = said.ended("resume")
    assert (ended.completed, ended.total, ended.initial) == (100, 100, 40)


def test_a_total_is_taken_at_its_word(said):
    for _ in progress.track(seven(), "pages", total=10):
        pass
    assert (said.ended("pages").completed, said.ended("pages").total) == (7, 10)


@pytest.mark.parametrize("total", [-1, float("nan"), float("inf"), "ten"])
def test_a_total_that_cannot_be_meant_is_misuse_and_left_out(total):
    with recording() as said:
        assert list(progress.track(seven(), "pages", total=total)) == list(range(ITEMS))
        assert sum(active.misuses.values()) == 1
    assert said.ended("pages").total is None


def test_what_is_not_iterable_raises_as_a_plain_loop_would(said):
    with pytest.raises(TypeError, match="not iterable"):
        progress.track(3, "x")
    assert said.events == []


def test_nothing_configured_it_is_the_iterables_own_iterator():
    items = [1, 2]
    assert type(progress.track(items)) is type(iter(items))


def test_a_loop_keeps_nothing_alive_after_its_end(said):
    class Item:
        pass

    import weakref

    items = [Item()]
    kept = weakref.ref(items[0])
    with progress.operation("load"):
        for item in progress.track(items):
            pass
        del items, item
        gc.collect()
        assert kept() is None


# --- async ------------------------------------------------------------------------------------------------------------


async def pages():
    for n in range(ITEMS):
        yield n


async def test_an_async_iterable_is_counted(said):
    seen = []
    async with progress.operation("reindex") as operation:
        async for n in progress.track(pages(), total=ITEMS, unit="page"):
            assert operation.root.completed == n
            seen.append(n)
    assert seen == list(range(ITEMS))
    assert (said.ended("reindex").completed, said.ended("reindex").unit) == (ITEMS, "{page}")


async def test_an_async_loop_left_early_is_cancelled(said):
    async for n in progress.track(pages(), "crawl"):
        if n == 3:
            break
    gc.collect()
    assert said.ended("crawl").message == "left at 3"


async def test_an_async_loop_obeys_cancel(said):
    with pytest.raises(OperationCancelled):
        async with progress.operation("reindex", controls=["cancel"]) as operation:
            async for n in progress.track(pages()):
                if n == 2:
                    operation.cancel()
    assert said.ended("reindex").completed == 3


async def test_nothing_configured_async_iterables_are_left_alone():
    assert [n async for n in progress.track(pages())] == list(range(ITEMS))


# --- commands in the middle --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    disturbed=st.sets(st.integers(0, 199), max_size=8),
    chunk=st.integers(1, 50),
    size=st.integers(0, 200),
)
def test_commands_that_come_to_nothing_lose_and_repeat_no_item(disturbed, chunk, size):
    """A pause that was over before the loop noticed it: the chunk is drained, the count stays exact."""
    from otelprogress import gate

    before, gate.CHUNK_ITEMS = gate.CHUNK_ITEMS, chunk
    try:
        with recording(strict=True), progress.operation("load", controls=["pause"]) as operation:
            seen = []
            for n in progress.track(range(size)):
                assert operation.root.completed == n
                seen.append(n)
                if n in disturbed:
                    operation.pause()
                    operation.resume()
            assert seen == list(range(size))
            assert operation.root.completed == size
    finally:
        gate.CHUNK_ITEMS = before
