"""One state, one log, one list of changes."""

from __future__ import annotations

import json

import pytest

from otelprogress.exceptions import AmbiguousOperation, InvalidRecord, UnknownOperation
from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.model.tree import OperationTree, TreeLimits
from otelprogress.protocol.filters import Facts, Matcher
from otelprogress.protocol.hub import Hub, TickPosition
from otelprogress.protocol.journal import Entry, decode_facts, encode_facts
from otelprogress.protocol.messages import Filter

from .feed_kit import KEY, NS, START_NS, Stage, rid

ALL = Filter(roots=False)


def test_a_duplicate_leaves_no_trace():
    stage = Stage()
    stage.start(1, sequence=1, writer_id="w")
    head, changes = stage.hub.head, stage.hub.changes
    stage.start(1, sequence=1, writer_id="w")
    assert (stage.hub.head, stage.hub.changes) == (head, changes) == (1, 1)


def test_a_malformed_event_is_the_writers_mistake():
    with pytest.raises(InvalidRecord):
        Stage().hub.publish(Event(kind="otelprogress.operation.started", run_id="x", time_unix_ns=1), 1)


def test_ticks_are_in_no_log():
    stage = Stage()
    stage.start(1)
    for completed in range(100):
        stage.tick(1, completed)
    assert stage.hub.head == 1


def test_a_durable_event_settles_the_tick_that_was_owed():
    stage = Stage()
    stage.start(1)
    at = TickPosition(stage.hub.changes)
    stage.tick(1, 5)
    stage.note(1)
    frame, then = stage.hub.pull_ticks(
        "1", Matcher(Filter()), at, position=stage.hub.head, now_unix_ns=stage.now_ns, frame_bytes=4096
    )
    assert frame is None
    assert not stage.hub.has_ticks(then)


def test_a_query_gives_live_ones_and_then_the_newest_with_their_steps():
    stage = Stage()
    stage.start(1, steps=("a", "b"))
    stage.start(2)
    stage.start(3)
    stage.end(3)
    views = stage.hub.query(ALL, stage.now_ns)
    assert [view.id for view in views] == [rid(2), rid(1), rid(3)]
    assert [step.name for step in views[1].steps] == ["a", "b"]
    assert [view.id for view in stage.hub.query(ALL, stage.now_ns, limit=1)] == [rid(2)]
    assert stage.hub.query(Filter(name="x"), stage.now_ns) == []


def test_a_query_passes_over_what_ended_long_ago():
    stage = Stage()
    stage.start(1)
    stage.end(1)
    stage.now_s += 100
    assert stage.hub.query(Filter(ended_within_s=50.0), stage.now_ns) == []
    assert len(stage.hub.query(Filter(ended_within_s=150.0), stage.now_ns)) == 1


def test_a_parent_is_never_shown_twice_under_one_revision_in_two_states():
    stage = Stage()
    stage.start(1)
    stage.start(2, parent=1)
    shown = {}
    for completed in range(20):
        stage.tick(2, completed)
        for _ in range(2):
            view = stage.hub.view(rid(1), stage.now_ns)
            assert shown.setdefault(view.revision, view.ratio) == view.ratio
    assert len(shown) >= 19


def test_unknown_runs_have_no_view():
    stage = Stage()
    assert stage.hub.view(rid(1), stage.now_ns) is None
    assert stage.hub.operation_part(rid(1), stage.now_ns) is None


def test_a_hub_takes_over_a_tree_and_goes_on_with_its_revisions():
    stage = Stage()
    stage.start(1)
    stage.note(1)
    hub = Hub(stage.hub.tree, epoch="e2", cursor_key=KEY)
    assert [view.revision for view in hub.query(ALL, stage.now_ns)] == [2]
    stage.hub = hub
    stage.tick(1, 1)
    frame, _ = hub.pull_ticks(
        "1", Matcher(ALL), TickPosition(0), position=0, now_unix_ns=stage.now_ns, frame_bytes=4096
    )
    assert b'"previous_durable":2' in frame


def test_time_makes_runs_stall_and_be_forgotten():
    stage = Stage()
    stage.start(1, stall_after_s=5.0)
    stage.tick(1, 1)
    assert stage.hub.next_deadline_unix_ns() is not None
    stage.now_s += 10
    (applied,) = stage.hub.advance(stage.now_ns)
    assert applied.event.operation.stalled
    assert stage.hub.head == 2
    stage.end(1)
    stage.now_s += 700
    assert stage.hub.advance(stage.now_ns) == []
    assert stage.hub.view(rid(1), stage.now_ns) is None
    assert stage.hub.head == 4


def test_memory_of_shared_frames_is_bounded():
    stage = Stage(ring_events=50)
    stage.start(1)
    for number in range(6000):
        stage.note(1, f"{number}")
        stage.hub.pull("1", Matcher(ALL), "milestones", stage.hub.head - 1, frame_bytes=4096)
    assert len(stage.hub._memo) <= 4096


def test_an_event_with_a_huge_attribute_still_fits():
    stage = Stage()
    stage.start(1, attributes={"blob": "x" * 200_000})
    pull = stage.hub.pull("1", Matcher(ALL), "milestones", 0, frame_bytes=256 * 1024)
    assert len(pull.frames[0]) < 2000


def test_forgetting_is_a_deadline_of_its_own():
    stage = Stage()
    assert stage.hub.next_deadline_unix_ns() is None
    stage.start(1)
    stage.end(1)
    for _ in range(40):
        due = stage.hub.next_deadline_unix_ns()
        if due is None:
            break
        stage.now_s = (due - START_NS) / NS + 0.2
        stage.hub.advance(stage.now_ns)
    else:
        pytest.fail("the run is never forgotten")
    assert len(stage.hub.tree) == 0
    assert stage.now_s < 800


def test_over_the_limit_of_runs_the_oldest_ended_ones_go_at_once():
    stage = Stage()
    stage.hub = Hub(OperationTree(limits=TreeLimits(max_runs=3)), epoch="e1", cursor_key=KEY)
    for number in range(1, 8):
        stage.start(number)
        if number != 2:
            stage.end(number)
    assert len(stage.hub.tree) == 3
    assert rid(2) in stage.hub.tree
    assert rid(7) in stage.hub.tree


# --- finding one run ---------------------------------------------------------------------------------------


def of_tenant(tenant: str, predicate: Filter | None = None) -> Matcher:
    return Matcher(ALL, tenant=tenant, predicate=predicate)


def two_tenants() -> Stage:
    stage = Stage()
    stage.start(1, "load", tenant="a", label="job-7")
    stage.start(2, "load", tenant="b", label="job-7")
    stage.start(3, "clean", tenant="b", label="job-8")
    return stage


@pytest.mark.parametrize("text", ["load-1", rid(1), "job-7", "lo", "job", rid(1)[:-1]])
def test_a_run_is_found_by_handle_id_label_or_beginning_among_those_that_may_be_seen(text: str):
    assert two_tenants().hub.resolve(text, of_tenant("a")) == rid(1)


@pytest.mark.parametrize("text", ["load-2", rid(2), "clean-1", rid(3), "job-8", "cl", ""])
def test_what_is_another_tenants_is_unknown_in_the_same_words_as_what_is_not_there(text: str):
    hub = two_tenants().hub
    with pytest.raises(UnknownOperation) as refusal:
        hub.resolve(text, of_tenant("a"))
    with pytest.raises(UnknownOperation) as nothing:
        Stage().hub.resolve(text, of_tenant("a"))
    assert str(refusal.value) == str(nothing.value)


def test_an_ambiguity_names_only_what_may_be_seen():
    stage = two_tenants()
    stage.start(4, "load", tenant="a")
    with pytest.raises(AmbiguousOperation) as refusal:
        stage.hub.resolve("load", of_tenant("a"))
    assert refusal.value.candidates == ("load-1", "load-2"), "two of its own, though there are three"
    assert str(refusal.value) == "'load' means 2 operations: load-1, load-2"


def test_a_service_that_may_not_be_seen_is_not_found():
    stage = Stage()
    stage.start(1, "load", service="etl")
    assert stage.hub.resolve("load-1", of_tenant("", Filter(service=("etl",), roots=False))) == rid(1)
    with pytest.raises(UnknownOperation):
        stage.hub.resolve("load-1", of_tenant("", Filter(service=("web",), roots=False)))


def test_a_label_means_its_live_run_or_else_the_newest():
    stage = Stage()
    for number in (1, 2):
        stage.start(number, label="job-7")
    stage.start(3, label="job-7", tenant="b")
    with pytest.raises(AmbiguousOperation):
        stage.hub.resolve("job-7", of_tenant(""))
    stage.end(2)
    assert stage.hub.resolve("job-7", of_tenant("")) == rid(1)
    stage.end(1)
    stage.start(4, label="job-8")
    stage.end(4)
    assert stage.hub.resolve("job-7", of_tenant("")) == rid(1)


def test_a_change_of_a_child_is_a_change_of_its_parent():
    stage = Stage()
    stage.start(1)
    stage.start(2, parent=1)
    before = stage.hub.change_of(rid(1))
    stage.tick(2, 50.0)
    assert stage.hub.change_of(rid(1)) > before
    assert stage.hub.change_of(rid(9)) == 0


# --- another hub goes on where one was killed ---------------------------------------------------------------------


class KeptStage(Stage):
    """A hub whose log and runs are kept as a collector does, ticks too."""

    def restart(self, *, keep_entries: int = 1000) -> None:
        old = self.hub
        entries = [item for _, item in old.ring.read(old.ring.first - 1)][-keep_entries:]
        kept = [(encode_facts(item), item) for item in entries]
        dumps = [old.tree.dump(run_id) or b"" for run_id in old.tree.run_ids()]
        tree = OperationTree()
        tree.restore(dumps, self.now_ns)
        self.hub = Hub(tree, epoch="e1", cursor_key=KEY, ring_events=1000)
        newest: dict[str, Facts] = {}
        self.hub.restore_ring(
            old.head,
            [
                Entry(item.encoded, item.revision, *decode_facts(facts, newest), item.terminal, item.evicted)
                for facts, item in kept
            ],
        )


def test_a_restored_log_goes_on_with_its_offsets_and_its_cursors():
    stage = KeptStage()
    talk = stage.session()
    stage.start(1)
    stage.note(1, "before")
    talk.subscribe(filter={"roots": False})
    talk.say(type="unsubscribe", id="1")
    stage.note(1, "unseen")
    everything = Matcher(ALL)
    cursor = stage.hub.cursor(everything, 2)
    frames = stage.hub.pull("1", everything, "ticks", 0, frame_bytes=1 << 16).frames
    stage.restart()
    assert stage.hub.pull("1", everything, "ticks", 0, frame_bytes=1 << 16).frames == frames
    (applied,) = stage.say(1, semconv.OPERATION_NOTED, message="after")
    assert (stage.hub.head, applied.event.previous_durable) == (4, 3)
    subscribed, *events = stage.session().subscribe(filter={"roots": False}, cursor=cursor)
    assert subscribed["mode"] == "resumed"
    assert [event["message"] for frame in events for event in frame["events"]] == ["unseen", "after"]


def test_a_restored_hub_knows_what_subscriptions_were_told_of_a_run():
    """A tick made it wait, which no event said: nobody is told that it left what they never saw it enter."""
    stage = KeptStage()
    stage.start(1)
    stage.say(1, semconv.OPERATION_PROGRESSED, completed=1.0, state=State.WAITING)
    stage.restart()
    stage.say(1, semconv.OPERATION_STATE_CHANGED, state=State.PAUSED)
    (_, entry), *_ = stage.hub.ring.read(1)
    assert entry.before is not None
    assert (entry.before.state, entry.after.state) == (State.RUNNING, State.PAUSED)


def test_a_run_whose_events_are_out_of_the_restored_log_is_compared_with_its_state():
    stage = KeptStage()
    stage.start(1)
    stage.start(2)
    stage.restart(keep_entries=1)
    stage.end(1)
    (_, entry), *_ = stage.hub.ring.read(2)
    assert entry.before is not None
    assert entry.before.state is State.RUNNING


def test_what_was_forgotten_before_the_restored_log_may_have_been_any_run():
    stage = KeptStage()
    for number in range(1, 6):
        stage.start(number)
    stage.restart(keep_entries=2)
    assert (stage.hub.ring.first, stage.hub.evicted_at) == (4, 3)
    stage.restart()
    assert (stage.hub.ring.first, stage.hub.evicted_at) == (4, 3)


def test_runs_forgotten_before_a_restart_are_still_forgotten():
    stage = KeptStage()
    stage.start(1)
    stage.end(1)
    stage.start(2)
    stage.end(2, State.LOST)
    stage.now_s += 700
    stage.hub.advance(stage.now_ns)
    stage.now_s += 30
    stage.hub.advance(stage.now_ns)
    assert len(stage.hub.tree) == 0
    stage.restart()
    assert stage.hub.evicted_at == stage.hub.head == 6
    assert stage.say(1, semconv.OPERATION_NOTED, message="late") == []
    (applied,) = stage.say(2, semconv.OPERATION_STARTED, name="load", parent_span_id="")
    assert applied.event.revision == 3


def test_the_state_of_what_ticks_may_have_moved_is_owed_after_a_restart():
    stage = KeptStage()
    stage.start(1)
    stage.end(1)
    stage.start(2)
    stage.tick(2, 50.0)
    stage.restart()
    frame, _ = stage.hub.pull_ticks(
        "1", Matcher(ALL), TickPosition(0), position=3, now_unix_ns=stage.now_ns, frame_bytes=1 << 16
    )
    assert frame is not None
    (event,) = json.loads(frame)["events"]
    assert (event["operation"]["id"], event["operation"]["step"]["completed"]) == (rid(2), 50.0)
    assert event["revision"] > 1 << 20


def test_a_hub_that_published_is_not_restored():
    stage = Stage()
    stage.start(1)
    with pytest.raises(ValueError, match="entries of its own"):
        stage.hub.restore_ring(5, [])


def test_equal_matchers_are_kept_once_and_only_while_somebody_uses_them():
    hub = Stage().hub
    one = hub.shared(Matcher(Filter(name="load*")))
    assert hub.shared(Matcher(Filter(name="load*"))) is one
    assert hub.shared(Matcher(Filter(name="load*"), tenant="b")) is not one
    del one
    assert len(hub._matchers) == 0
