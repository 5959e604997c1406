"""Which runs a host has to write down."""

from __future__ import annotations

from otelprogress.model.events import State
from otelprogress.model.tree import OperationTree, TreeLimits
from tests.model.saying import T0, S, Saying


def tracked(*runs: Saying) -> OperationTree:
    """A tree that knows runs, with nothing changed since it was asked."""
    tree = OperationTree(limits=TreeLimits(keep_ended_s=10.0))
    tree.track_changes()
    for run in runs:
        tree.apply(run.started(), T0)
    tree.take_changed()
    return tree


def test_nothing_is_remembered_unless_somebody_asks():
    tree = OperationTree()
    run = Saying()
    tree.apply(run.started(), T0)
    tree.apply(run.tick(1, 1.0), T0)
    assert tree.take_changed() == ([], [])
    assert tree._changes is None


def test_changes_are_told_once_and_in_order():
    first, second = Saying(1), Saying(2)
    tree = tracked(first, second)
    for run in (second, first, second):
        tree.apply(run.note("hm", run.sequence), T0)
    assert tree.take_changed() == ([second.id, first.id], [])
    assert tree.take_changed() == ([], [])


def test_what_only_ticks_changed_is_told_apart():
    ticked, said = Saying(1), Saying(2)
    tree = tracked(ticked, said)
    tree.apply(ticked.tick(1, 1.0), T0)
    tree.apply(said.tick(1, 1.0), T0)
    tree.apply(said.note("hm", 1), T0)
    assert tree.take_changed() == ([said.id], [ticked.id])


def test_a_look_at_a_parent_changes_its_revision_and_can_wait():
    run = Saying()
    tree = tracked(run)
    tree.touch(run.id, T0)
    assert tree.take_changed() == ([], [run.id])


def test_an_ancestor_changes_as_the_child_does():
    root, parent, child = Saying(1), Saying(2, parent=1), Saying(3, parent=2)
    tree = tracked(root, parent, child)
    tree.apply(child.tick(1, 1.0, 2.0), T0)
    changed, ticked = tree.take_changed()
    assert (changed, set(ticked)) == ([], {child.id, parent.id, root.id})
    tree.apply(child.ended(2), T0)
    assert set(tree.take_changed()[0]) == {child.id, parent.id, root.id}
    tree.apply(Saying(4, parent=1).started(), T0)
    assert set(tree.take_changed()[0]) == {Saying(4).id, root.id}


def test_a_note_of_a_child_is_nothing_to_its_parent():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = tracked(parent, child)
    tree.apply(child.note("hm", 1), T0)
    assert tree.take_changed() == ([child.id], [])


def test_orphans_change_when_their_parent_speaks():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = tracked(child)
    tree.apply(parent.started(), T0)
    assert set(tree.take_changed()[0]) == {parent.id, child.id}


def test_an_event_that_waits_is_a_change_and_a_duplicate_is_none():
    run = Saying()
    tree = tracked(run)
    run.sequence += 1
    waiting = run.note("behind a hole", 1)
    assert tree.apply(waiting, T0) == []
    assert tree.take_changed() == ([run.id], [])
    tree.apply(waiting, T0)
    assert tree.take_changed() == ([], [])
    tree.advance(T0 + 2 * S)
    assert tree.take_changed() == ([run.id], [])


def test_an_evicted_run_is_no_changed_one_but_children_that_stay_are():
    parent, child = Saying(1), Saying(2, parent=1)
    tree = tracked(parent, child)
    tree.apply(parent.ended(1), T0 + S)
    tree.apply(child.ended(5), T0 + 5 * S)
    assert tree.evict(T0 + 12 * S) == [parent.id]
    assert tree.take_changed() == ([child.id], [])
    assert tree.dump(parent.id) is None
    assert tree.ended_at_unix_ns(parent.id) is None


def test_a_lost_run_that_is_heard_by_a_tick_changed_for_good():
    run = Saying()
    tree = tracked(run)
    tree.apply(run.lost(5), T0 + 5 * S)
    tree.take_changed()
    revived, _ = tree.apply(run.tick(8, 1.0), T0 + 8 * S)
    assert revived.event.operation.state is State.RUNNING
    assert tree.take_changed() == ([run.id], [])
