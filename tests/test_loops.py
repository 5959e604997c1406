from __future__ import annotations

import itertools

import pytest

from otelprogress.loops import ENDLESS, CountedLoop, Finisher, HintedLoop, ListLoop, Loop, SelectedLoop
from otelprogress.step import Step


@pytest.fixture
def step():
    return Step(None, "", -1)


def test_what_was_handed_out_is_known_at_any_moment(step):
    items = [1, 2, 3]
    iterator, hinted = iter(items), iter(range(3))
    selectors = itertools.repeat(True, ENDLESS)
    selected = itertools.compress(iter("abc"), selectors)
    counted = CountedLoop(step, None, None)
    loops = [
        ListLoop(step, None, None, iterator, items=items, before=0),
        HintedLoop(step, 3, None, hinted, 3),
        SelectedLoop(step, None, None, selectors),
        counted,
    ]
    assert [loop.handed_out() for loop in loops] == [0, 0, 0, 0]
    for _ in range(2):
        next(iterator), next(hinted), next(selected)
        counted.count += 1
    assert [loop.handed_out() for loop in loops] == [2, 2, 2, 2]


def test_a_list_that_grows_has_more_in_all_unless_that_was_given(step):
    items = [1]
    growing = ListLoop(step, None, None, iter(items), items=items, before=4)
    given = ListLoop(step, 9, None, iter(items), items=items, before=4)
    items.append(2)
    assert (growing.total, given.total) == (6, 9)


class Heard(Loop):
    def __init__(self) -> None:
        self.heard = []

    def exhausted(self) -> None:
        self.heard.append("exhausted")

    def left(self) -> None:
        self.heard.append("left")


def test_a_finisher_that_is_reached_ends_the_loop_and_one_that_is_collected_leaves_it():
    reached, dropped = Heard(), Heard()
    assert list(itertools.chain([1], Finisher(reached))) == [1]
    chain = itertools.chain([1], Finisher(dropped))
    next(chain)
    del chain
    assert (reached.heard, dropped.heard) == (["exhausted"], ["left"])
