"""A parent whose children moved gets a revision of its own before it is shown."""

from __future__ import annotations

from otelprogress.model import semconv
from otelprogress.model.events import Event, State, run_id
from otelprogress.model.tree import OperationTree


def test_touching_a_run_gives_it_the_next_revision_and_its_next_event_the_one_after():
    tree = OperationTree()
    run = run_id(1, 1)
    tree.apply(Event(kind=semconv.OPERATION_STARTED, run_id=run, time_unix_ns=1, name="a"), 1)
    assert tree.touch(run, 2) == 2
    assert tree.view(run, 2).revision == 2
    (applied,) = tree.apply(Event(kind=semconv.OPERATION_NOTED, run_id=run, time_unix_ns=3, message="m"), 3)
    assert applied.event.revision == 3
    assert applied.event.previous_durable == 1


def test_touching_an_unknown_run_changes_nothing():
    assert OperationTree().touch(run_id(1, 1), 1) == 0


def test_the_tree_tells_the_last_durable_revisions_of_a_run():
    tree = OperationTree()
    run = run_id(1, 1)
    assert tree.durable_revisions(run) == (0, 0)
    tree.apply(Event(kind=semconv.OPERATION_STARTED, run_id=run, time_unix_ns=1, name="a"), 1)
    tree.touch(run, 2)
    assert tree.durable_revisions(run) == (1, 0)
    tree.apply(Event(kind=semconv.OPERATION_ENDED, run_id=run, time_unix_ns=3, state=State.SUCCEEDED), 3)
    assert tree.durable_revisions(run) == (3, 3)


def test_a_lost_run_that_was_forgotten_and_is_heard_again_goes_on_with_its_revisions():
    tree = OperationTree()
    run = run_id(1, 1)
    second = 10**9
    tree.apply(Event(kind=semconv.OPERATION_STARTED, run_id=run, time_unix_ns=second, name="a"), second)
    tree.apply(Event(kind=semconv.OPERATION_ENDED, run_id=run, time_unix_ns=second, state=State.LOST), second)
    assert tree.evict(1000 * second) == [run]
    (applied,) = tree.apply(
        Event(kind=semconv.OPERATION_STARTED, run_id=run, time_unix_ns=second, name="a"), 1001 * second
    )
    assert applied.event.revision == 3
