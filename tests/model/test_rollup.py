from __future__ import annotations

import gc
import tracemalloc

import pytest

from otelprogress.model.events import State
from otelprogress.model.tree import OperationTree, TreeLimits
from tests.model.saying import T0, S, Saying, run_id


def host(*events, tree: OperationTree | None = None) -> OperationTree:
    tree = OperationTree() if tree is None else tree
    for event in events:
        tree.apply(event, event.time_unix_ns)
    return tree


def view(tree: OperationTree, number: int = 1, at: float = 100):
    return tree.view(run_id(number), T0 + round(at * S))


def test_a_live_child_adds_its_own_ratio_to_the_open_item():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = host(
        parent.started(),
        parent.step("load", 1, completed=1.0, total=4.0),
        child.started(2),
        child.tick(3, 5, 10),
    )
    assert view(tree).step.ratio == (1 + 0.5) / 4
    host(child.ended(4), parent.tick(4, 2, 4, step_name="load"), tree=tree)
    assert view(tree).step.ratio == 0.5


def test_several_live_children_never_exceed_the_total():
    parent = Saying(1)
    children = [Saying(n, parent=1) for n in range(2, 6)]
    tree = host(parent.started(), parent.tick(1, 1, 2))
    for child in children:
        host(child.started(2), child.tick(3, 9, 10), tree=tree)
    assert view(tree).ratio == 1.0


def test_a_child_that_knows_nothing_counts_nothing_until_it_ends():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = host(parent.started(expected_children=4), child.started(1), child.tick(2, 5))
    assert view(tree).ratio == 0.0
    host(child.ended(3, State.FAILED), tree=tree)
    assert view(tree).ratio == 0.25


def test_the_number_of_expected_children_makes_the_ratio_measured():
    parent, known = Saying(1), Saying(11)
    tree = host(parent.started(), known.started(expected_children=2))
    host(Saying(2, parent=1).started(1), Saying(12, parent=11).started(1), tree=tree)
    assert (view(tree, 1).ratio_source, view(tree, 11).ratio_source) == ("estimated", "measured")


def test_children_weigh_what_they_say():
    parent, heavy, light = Saying(1), Saying(2, parent=1), Saying(3, parent=1)
    tree = host(
        parent.started(expected_children=2), heavy.started(1, weight=3.0), light.started(1, weight=1.0)
    )
    host(heavy.ended(2), tree=tree)
    assert view(tree).ratio == 0.75


def test_children_belong_to_the_step_in_which_they_started():
    parent, first, second = Saying(1), Saying(2, parent=1), Saying(3, parent=1)
    tree = host(parent.started(steps=("a", "b")), parent.step("a", 1), first.started(2))
    host(parent.step_ended("a", 3), parent.step("b", 3), second.started(4), second.tick(5, 1, 2), tree=tree)
    assert (view(tree, 2).parent_step_index, view(tree, 3).parent_step_index) == (0, 1)
    assert view(tree).ratio == 0.75


def test_children_from_before_the_first_step_belong_to_the_first_step():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = host(
        child.started(0), parent.started(0, steps=("a", "b")), parent.step("a", 1), child.tick(2, 1, 2)
    )
    assert view(tree).ratio == 0.25
    assert view(tree, 2).parent_step_index == 0


def test_a_child_before_its_parent_is_a_root_until_the_parent_speaks():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = host(child.started(), child.tick(1, 1, 2))
    assert list(tree.roots()) == [child.id]
    assert (parent.id in tree, view(tree, 1), view(tree, 2).parent_id) == (False, None, None)
    host(parent.started(), tree=tree)
    assert list(tree.roots()) == [parent.id]
    assert view(tree, 2).parent_id == parent.id
    assert list(tree.children(parent.id)) == [child.id]
    assert view(tree, 1).ratio == 0.5


def test_children_that_came_first_count_together_once_their_parent_speaks():
    """The order in which they were heard is nothing: a ratio that only the first one makes would stay."""
    parent, over, live = Saying(1), Saying(2, parent=1), Saying(3, parent=1)
    tree = host(over.started(), over.ended(1), live.started(), live.tick(1, 1, 2), parent.started())
    assert (view(tree).ratio, view(tree).raw_ratio) == (0.75, None)


def test_children_are_counted_by_their_outcome():
    parent = Saying(1)
    tree = host(parent.started(expected_children=9))
    for number, outcome in enumerate((*State, State.FAILED), start=2):
        child = Saying(number, parent=1)
        host(child.started(1), tree=tree)
        if outcome not in (State.RUNNING, State.WAITING, State.PAUSED):
            host(child.ended(2, outcome), tree=tree)
    children = view(tree).children
    assert (children.total, children.live, children.expected) == (8, 3, 9)
    assert (children.succeeded, children.failed, children.cancelled, children.lost) == (1, 2, 1, 1)


def test_a_revived_child_counts_as_live_again():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = host(parent.started(expected_children=2), child.started(1), child.lost(2))
    assert (view(tree).children.lost, view(tree).ratio) == (1, 0.5)
    host(child.tick(5, 1, 4), tree=tree)
    assert (view(tree).children.lost, view(tree).children.live) == (0, 1)
    assert (view(tree).ratio, view(tree).raw_ratio) == (0.5, 0.125)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_cycle_of_parents_is_broken_and_counted(length):
    tree = OperationTree()
    for number in range(1, length + 1):
        host(Saying(number, parent=number % length + 1).started(), tree=tree)
    assert tree.stats.cycles == 1
    assert len(list(tree.roots())) == 1
    for number in range(1, length + 1):
        assert len(list(tree.ancestors(run_id(number)))) < length
        host(Saying(number).tick(5, 1, 2), tree=tree)


def test_a_chain_that_is_too_deep_becomes_a_new_root():
    tree = OperationTree(limits=TreeLimits(max_depth=10))
    for number in range(1, 13):
        host(Saying(number, parent=number - 1 or None).started(), tree=tree)
    assert list(tree.roots()) == [run_id(1), run_id(11)]
    assert tree.stats.too_deep == 1


def test_a_parent_of_another_tenant_is_no_parent():
    tree = host(Saying(1).started(tenant="a"), Saying(2, parent=1).started(tenant="b"))
    assert len(list(tree.roots())) == 2


def test_a_childs_move_costs_as_many_steps_as_it_is_deep_whatever_its_siblings():
    def work(siblings: int) -> int:
        root, middle = Saying(1), Saying(2, parent=1)
        tree = host(root.started(expected_children=1), middle.started(expected_children=siblings))
        children = [Saying(10 + n, parent=2) for n in range(siblings)]
        for child in children:
            host(child.started(1), tree=tree)
        before = tree.stats.ancestors_touched
        host(children[siblings // 2].tick(2, 1, 2), tree=tree)
        return tree.stats.ancestors_touched - before

    assert work(10) == work(10_000) == 2


def test_ten_thousand_children_end_at_exactly_one():
    parent = Saying(1)
    tree = host(parent.started(expected_children=10_000))
    for number in range(10_000):
        child = Saying(10 + number, parent=1)
        host(
            child.started(1),
            child.tick(2, (number % 7) / 7, 1.0),
            child.tick(3, (number % 11) / 11, 1.0),
            tree=tree,
        )
        host(child.ended(4), tree=tree)
    assert view(tree).ratio == 1.0
    assert view(tree).children.succeeded == 10_000


def test_a_live_operation_takes_little_memory():
    tree = OperationTree()
    count = 2_000

    def start(number: int) -> None:
        run = Saying(number)
        host(run.started(), run.tick(1, 1.5, 10.5), run.tick(2, 2.5, 10.5), tree=tree)

    start(1)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2, count + 2):
        start(number)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The target is 1 KB; half of it again is left to other interpreters.
    assert (after - before) / count < 1536
    assert len(tree) == count + 1


def test_orphans_leave_nothing_behind_when_they_are_forgotten():
    tree = OperationTree()
    for number in range(2, 50):
        orphan = Saying(number, parent=1)
        host(orphan.started(), orphan.ended(1), tree=tree)
    assert len(tree.evict(T0 + 10_000 * S)) == 48
    assert (len(tree), tree._kinship._orphans, tree._writers._by_key, tree._ended) == (0, {}, {}, {})
