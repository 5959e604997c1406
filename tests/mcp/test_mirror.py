"""One log over many feeds; what the contract does not see of it."""

from __future__ import annotations

import pytest

from otelprogress.exceptions import AmbiguousOperation, UnknownOperation
from otelprogress.mcp import mirror as module
from otelprogress.mcp.mirror import Mirror
from otelprogress.mcp.source import Wanted
from otelprogress.model.events import Eta, FeedEvent, OperationView, State
from tests.feed.fakes import START_UNIX_NS, run_id

NOW = START_UNIX_NS + 60_000_000_000


def view(number: int = 1, *, revision: int = 1, **said: object) -> OperationView:
    fields = {"handle": f"load-{number}", "name": "load", "state": State.RUNNING} | said
    return OperationView(
        id=run_id(number), revision=revision, as_of_unix_ns=NOW, started_at_unix_ns=START_UNIX_NS, **fields
    )


def event(
    kind: str = "operation.noted", number: int = 1, *, gap: str | None = None, **said: object
) -> FeedEvent:
    shown = view(number, **said)
    return FeedEvent(kind=kind, operation=shown, revision=shown.revision, gap=gap)


@pytest.fixture
def mirror() -> Mirror:
    return Mirror("epoch")


def test_revisions_rise_though_another_feed_takes_over_with_lower_ones(mirror):
    mirror.apply(event(revision=90))
    first = mirror.view(run_id(), NOW).revision
    position = mirror.position
    mirror.apply(event("operation.ended", revision=3, state=State.SUCCEEDED))
    (told,) = mirror.since(position, [run_id()], NOW).events
    assert told.revision > first
    assert told.operation.revision == told.revision


def test_counts_move_a_run_and_not_the_log(mirror):
    mirror.apply(event("operation.started"))
    position = mirror.position
    mirror.apply(event("operation.progressed", revision=2, ratio=0.5))
    assert mirror.position == position
    assert mirror.view(run_id(), NOW).ratio == 0.5


@pytest.mark.parametrize(
    ("said", "news"),
    [
        ({}, False),
        ({"ratio": 0.7}, False),
        ({"state": State.FAILED}, True),
        ({"stalled": True}, True),
        ({"input_id": "in1"}, True),
        ({"warnings": 1}, True),
        ({"gap": "expired"}, True),
    ],
)
def test_a_snapshot_after_a_reconnect_is_news_where_something_was_missed(mirror, said, news):
    mirror.apply(event("snapshot"))
    position = mirror.position
    mirror.apply(event("snapshot", revision=5, **said))
    assert bool(mirror.since(position, [run_id()], NOW).events) is news


def test_what_was_known_at_a_position_is_what_came_before_the_first_event_after_it(mirror):
    mirror.apply(event("operation.started"))
    position = mirror.position
    mirror.apply(event("operation.state_changed", revision=2, stalled=True))
    mirror.apply(event("operation.started", 2))
    since = mirror.since(position, [run_id(1), run_id(2)], NOW)
    assert list(since.before) == [run_id(1)]
    assert since.before[run_id(1)].stalled is False


def test_a_position_of_another_process_or_past_the_log_is_not_known(mirror, monkeypatch):
    monkeypatch.setattr(module, "CAPACITY", 2)
    small = Mirror("epoch")
    old = small.position
    for revision in range(1, 5):
        small.apply(event(revision=revision))
    assert small.since(old, [run_id()], NOW).before is None
    assert small.since(Mirror("another").position, [run_id()], NOW).before is None
    assert small.since("", [run_id()], NOW).before is None


def test_of_several_that_are_called_so_the_one_that_lives_is_meant(mirror):
    mirror.apply(event(number=1, label="job-7", state=State.SUCCEEDED))
    mirror.apply(event(number=2, label="job-7"))
    assert mirror.resolve("job-7", NOW).id == run_id(2)


def test_two_processes_that_give_the_same_handle_are_told_apart_by_ids(mirror):
    mirror.apply(event(number=1, handle="load-1"))
    mirror.apply(event(number=2, handle="load-1"))
    with pytest.raises(AmbiguousOperation) as several:
        mirror.resolve("load-1", NOW)
    assert several.value.candidates == (run_id(1), run_id(2))


def test_nothing_is_named_by_an_empty_text(mirror):
    mirror.apply(event())
    with pytest.raises(UnknownOperation):
        mirror.resolve("", NOW)


def test_a_view_that_was_made_a_while_ago_is_shown_as_of_now(mirror):
    mirror.apply(event(eta=Eta(60.0, 90.0)))
    later = mirror.view(run_id(), NOW + 70_000_000_000)
    assert later.as_of_unix_ns == NOW + 70_000_000_000
    assert later.eta == Eta(0.0, 20.0)


def test_a_parent_that_is_not_known_does_not_hide_its_child(mirror):
    mirror.apply(event(parent_id=run_id(9)))
    assert [found.id for found in mirror.search(Wanted(), NOW)] == [run_id()]
    assert [found.id for found in mirror.search(Wanted(subtree=run_id(9)), NOW)] == [run_id()]


def test_a_run_that_left_is_not_found_any_more(mirror):
    mirror.apply(event())
    position = mirror.position
    mirror.apply(event("left"))
    assert mirror.position == position
    assert mirror.view(run_id(), NOW) is None
