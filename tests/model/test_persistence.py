"""A host is killed between any two events, and another goes on where it was."""

from __future__ import annotations

import random
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.applied import Applied
from otelprogress.model.events import Event, Source, State
from otelprogress.model.persistence import FamilyDump, PlanDump, RunDump, WriterDump, dump_run, load_run
from otelprogress.model.state import Family, Plan, RunState, Writer
from otelprogress.model.tree import OperationTree
from tests.model.event_strategies import events
from tests.model.restarting import LIMITS, STRIDE, RecordingHost, happenings
from tests.model.saying import T0, S, Saying, SpanOf, run_id


def told(applied: list[Applied]) -> list[tuple[object, ...]]:
    """What was published, without what a restart may change: the stride of revisions, when a writer was heard."""
    found = []
    for each in applied:
        event = each.event
        view = msgspec.structs.replace(
            event.operation, revision=event.operation.revision % STRIDE, updated_at_unix_ns=0
        )
        event = msgspec.structs.replace(
            event,
            operation=view,
            revision=event.revision % STRIDE,
            previous_durable=event.previous_durable % STRIDE,
            previous_terminal=event.previous_terminal % STRIDE,
        )
        found.append((view.id, each.source, each.durable, each.terminal, event))
    return sorted(found, key=lambda item: item[0])  # order between runs is not promised


def timeless(dump: bytes) -> RunDump:
    return msgspec.structs.replace(load_run(dump), heard_ns=0, writer=WriterDump())


def check_sums(tree: OperationTree) -> None:
    """What a parent keeps of its children is what its children are."""
    for run in tree._runs.values():
        family = run.family
        if family is None:
            continue
        kept = [tree._runs[child] for child in family.ids]
        live = [child for child in kept if child.counted_as is None]
        assert all(child.parent is run for child in kept)
        assert family.live == len(live)
        assert family.total == family.live + family.succeeded + family.failed + family.cancelled + family.lost
        assert family.idle == sum(child.counted_idle for child in live)
        shares = [family.share, *(step.share for step in (run.plan.steps if run.plan else ()))]
        for share in shares:
            if share is not None:
                of_share = [child for child in live if child.share is share]
                assert share.children - share.ended == len(of_share)
                assert share.live_ratio == pytest.approx(sum(child.contribution for child in of_share))
                undone = sum(child.weight * (1.0 - child.contribution) for child in of_share)
                assert share.done == pytest.approx(share.weight - undone)


# --- the property ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_after_a_restart_everything_is_published_as_without_it(seed: int):
    acts = happenings(seed)
    killed_at = random.Random(seed).randrange(len(acts))
    host = RecordingHost(ticks_too=True)
    for now_ns, act in acts[:killed_at]:
        host.do(act, now_ns)
        for run in host.tree._runs:
            # Whatever changed was named by `take_changed`.
            assert timeless(host.dumps[run]) == timeless(host.tree.dump(run) or b"")
    restored = host.killed_and_restored(acts[killed_at][0])
    assert list(restored.run_ids()) == list(host.tree.run_ids())
    for now_ns, act in acts[killed_at:]:
        assert told(act(restored, now_ns)) == told(host.do(act, now_ns))
    assert len(restored) == len(host.tree)
    check_sums(restored)


@pytest.mark.parametrize("seed", range(40))
def test_what_was_written_down_at_different_moments_fits_together_again(seed: int):
    rng = random.Random(seed)
    acts = happenings(seed)
    killed_at = rng.randrange(len(acts))
    host = RecordingHost(ticks_too=False)
    shown: dict[str, int] = {}
    for now_ns, act in acts[:killed_at]:
        for each in host.do(act, now_ns):
            shown[each.event.operation.id] = each.event.revision
    for run in host.tree.run_ids():
        if host.tree._runs[run].family is not None and rng.random() < 0.5:
            shown[run] = host.tree.touch(run, acts[killed_at][0])
    dumps = list(host.dumps.items())
    rng.shuffle(dumps)
    host.dumps = dict(dumps)
    restored = host.killed_and_restored(acts[killed_at][0])
    check_sums(restored)
    for now_ns, act in acts[killed_at:]:
        for each in act(restored, now_ns):
            run = each.event.operation.id
            assert each.event.revision > shown.get(run, 0)
            shown[run] = each.event.revision
        check_sums(restored)


@given(st.lists(events, max_size=6))
@settings(deadline=None, max_examples=60)
def test_whatever_a_run_holds_can_be_dumped_and_read(hostile: list[Event]):
    tree = OperationTree(limits=LIMITS)
    for event in hostile:
        try:
            tree.apply(msgspec.structs.replace(event, run_id=run_id(1), tenant=""), T0)
        except InvalidRecord:
            continue
    if (dump := tree.dump(run_id(1))) is not None:
        restored = OperationTree(limits=LIMITS)
        restored.restore([dump], T0)
        again = load_run(restored.dump(run_id(1)) or b"")
        assert again.id == run_id(1)
        assert again.carrier == load_run(dump).carrier or again.carrier is not None
        assert len(restored) == len(tree)


# --- one run ---------------------------------------------------------------------------------------------------


def host_of(*acts: Event, at: float = 0.0) -> RecordingHost:
    host = RecordingHost(ticks_too=True)
    for event in acts:
        host.do(lambda tree, now_ns, event=event: tree.apply(event, now_ns), T0 + round(at * S))
    return host


def test_a_dump_names_every_field_of_the_state_or_leaves_it_out_on_purpose():
    def names(kind: type[msgspec.Struct]) -> set[str]:
        return set(kind.__struct_fields__)

    assert names(RunState) - names(RunDump) == {"parent", "stall_queued"}
    assert names(RunDump) - names(RunState) == {"parent_id", "start", "ended_at_unix_ns"}
    assert names(Plan) - names(PlanDump) == {"by_name"}
    assert names(Family) - names(FamilyDump) == {"ids"}
    assert names(Writer) - names(WriterDump) == {"live", "lost", "tenant"}


def test_every_field_comes_back_as_it_was():
    """Each field gets a value of its own, so that two that were mixed up would be seen."""
    values: dict[str, object] = {}
    for number, field in enumerate(msgspec.structs.fields(RunDump), 1):
        kind = str(field.type)
        if kind.startswith(("<class 'int'>", "int")):
            values[field.name] = number
        elif kind.startswith(("<class 'float'>", "float")):
            values[field.name] = number / 64
        elif kind.startswith(("<class 'bool'>", "bool")):
            values[field.name] = field.default is False
        elif kind.startswith(("<class 'str'>", "str")):
            values[field.name] = f"text {number}"
    values |= {"id": run_id(7), "state": State.LOST, "counted_as": State.LOST, "revision": 99}
    values |= {"parent_id": None, "share": 0, "writer": WriterDump("w", "svc", 3, 4.5, T0)}
    before = RunDump(**values)  # type: ignore[arg-type]  # made from the fields themselves
    body = msgspec.msgpack.encode(before)
    tree = OperationTree()
    tree.restore([b"\x01" + crc32(body).to_bytes(4, "big") + body], T0, start=before.start + 1)
    after = load_run(tree.dump(before.id) or b"")
    assert after == msgspec.structs.replace(before, start=before.start + 1)


def test_a_plain_run_is_small_and_a_parent_of_thousands_too():
    host = RecordingHost(ticks_too=True)
    parent = Saying(1)
    children = [Saying(n, parent=1) for n in range(2, 1002)]
    for event in [parent.started(steps=("extract", "load")), *(child.started() for child in children)]:
        host.do(lambda tree, now_ns, event=event: tree.apply(event, now_ns), T0)
    assert len(host.dumps[parent.id]) < 1024
    assert max(map(len, host.dumps.values())) < 1024
    restored = host.killed_and_restored(T0)
    assert len(list(restored.children(parent.id))) == 1000
    assert restored.view(parent.id, T0).children.live == 1000


def test_children_may_be_read_before_their_parents():
    host = host_of(*(Saying(n, parent=n - 1 or None).started() for n in range(1, 60)))
    host.dumps = dict(reversed(host.dumps.items()))
    restored = host.killed_and_restored(T0)
    assert list(restored.ancestors(run_id(59))) == [run_id(n) for n in range(58, 0, -1)]
    assert list(restored.roots()) == [run_id(1)]


def test_a_child_whose_parent_is_not_there_any_more_becomes_a_root():
    host = host_of(Saying(1).started(), child := Saying(2, parent=1).started())
    del host.dumps[run_id(1)]
    restored = host.killed_and_restored(T0)
    assert restored.view(child.run_id, T0).parent_id is None
    assert list(restored.roots()) == [child.run_id]


def test_children_follow_the_sums_that_a_first_step_took_over():
    """They were dumped when no step was entered, and were not touched since."""
    parent, child = Saying(1), Saying(2, parent=1)
    host = host_of(parent.started(), child.started(), parent.step("load", 0))
    restored = host.killed_and_restored(T0)
    assert restored.view(child.id, T0).parent_step_index == 0
    restored.apply(child.ended(0), T0)
    check_sums(restored)
    assert restored.view(parent.id, T0, steps=True).steps[0].ratio == 1.0


def test_parents_in_a_circle_are_cut():
    """No tree makes such dumps; one that read them must not run for ever."""
    host = host_of(Saying(1).started(), Saying(2, parent=1).started())
    first, second = (load_run(host.dumps[run_id(n)]) for n in (1, 2))
    family = msgspec.structs.replace(first.family, total=1)
    assert family.share is not None
    knotted = [
        msgspec.structs.replace(first, parent_id=second.id, share=family.share.number),
        msgspec.structs.replace(second, family=family),
    ]
    bodies = [msgspec.msgpack.encode(each) for each in knotted]
    tree = OperationTree()
    tree.restore([b"\x01" + crc32(body).to_bytes(4, "big") + body for body in bodies], T0)
    assert len(list(tree.roots())) == 1
    assert len(list(tree.ancestors(run_id(1)))) + len(list(tree.ancestors(run_id(2)))) == 1


# --- what must not be forgotten ----------------------------------------------------------------------------------


def test_a_duplicate_after_a_restart_is_one():
    run = Saying()
    foreign = run.foreign("hm", 0.5)
    said = [run.started(), run.note("a", 0.1), foreign]
    restored = host_of(*said).killed_and_restored(T0)
    assert [restored.apply(event, T0 + S) for event in said] == [[], [], []]
    assert restored.stats.duplicates == 3


def test_an_event_that_waits_behind_a_hole_survives_and_is_released():
    run = Saying()
    started, first, second = run.started(), run.note("first", 0.1), run.note("second", 0.2)
    restored = host_of(started, second).killed_and_restored(T0)
    assert [each.event.message for each in restored.apply(first, T0)] == ["first", "second"]
    assert not restored.view(run.id, T0).incomplete


def test_a_run_of_which_only_later_events_are_known_survives():
    run = Saying()
    started, note = run.started(), run.note("hm", 0.1)
    restored = host_of(note).killed_and_restored(T0)
    assert len(restored) == 0
    assert run.id not in restored
    assert [each.event.kind for each in restored.apply(started, T0)] == [
        "operation.started",
        "operation.noted",
    ]


def test_nothing_is_concluded_from_silence_while_nobody_listened():
    run, stuck, ending = Saying(1), Saying(2), Saying(3)
    run.started()
    host = host_of(
        run.note("its start is on the way", 0.1),
        stuck.started(stall_after_s=2.0),
        ending.started(),
        ending.ended(0.1, source=Source.SPAN_END, sequence=None),
    )
    restored = host.killed_and_restored(T0 + 100 * S, quiet_s=45.0)
    assert restored.advance(T0 + 144 * S) == []
    concluded = restored.advance(T0 + 146 * S)
    assert {each.event.operation.id for each in concluded} == {run.id, stuck.id, ending.id}
    assert restored.view(run.id, T0).incomplete
    assert restored.view(stuck.id, T0).stalled
    assert restored.view(ending.id, T0).state is State.SUCCEEDED


def test_what_only_a_span_said_survives_and_is_told_once_somebody_had_time_to_say_it_better():
    run = Saying()
    host = host_of(*SpanOf(run).whole())
    restored = host.killed_and_restored(T0 + 100 * S, quiet_s=45.0)
    assert len(restored) == 0
    assert len(restored._hearsay) == 4
    assert restored.advance(T0 + 144 * S) == []
    assert [each.event.kind for each in restored.advance(T0 + 146 * S)] == [
        *("operation.started", "step.started", "step.started", "operation.ended")
    ]
    assert len(restored._hearsay) == 0


def test_after_a_restart_log_events_still_overrule_what_a_span_said():
    run = Saying()
    restored = host_of(*SpanOf(run).whole()).killed_and_restored(T0)
    assert restored.apply(SpanOf(run).started(), T0) == []
    assert restored.stats.duplicates == 1
    told_late = [
        (each.event.kind, each.event.late)
        for event in (run.started(), run.step("a", 1), run.ended(3))
        for each in restored.apply(event, T0)
    ]
    assert told_late == [("operation.started", False), ("step.started", False), ("operation.ended", False)]
    assert restored.advance(T0 + 100 * S) == []


def test_what_waits_no_longer_is_written_down_as_gone():
    """Also of a run that another one pushed out: a restart must not tell it twice."""
    first, second = Saying(1), Saying(2)
    host = host_of(*SpanOf(first).whole(), *SpanOf(second).whole())
    host.do(lambda tree, now_ns: tree.apply(first.started(), now_ns), T0)
    host.do(lambda tree, now_ns: tree.advance(now_ns), T0 + 60 * S)
    for run in (first, second):
        carrier = load_run(host.dumps[run.id]).carrier
        assert carrier is not None
        assert (carrier.hearsay, carrier.closing, carrier.closes_ns) == ([], None, None)


def test_a_writer_heard_again_revives_its_lost_runs():
    run = Saying()
    restored = host_of(run.started(), run.lost(1)).killed_and_restored(T0 + 2 * S)
    alive = Event(kind=semconv.WRITER_ALIVE, run_id="", time_unix_ns=T0 + 3 * S, writer_id=run.writer)
    assert [each.event.operation.state for each in restored.apply(alive, T0 + 3 * S)] == [State.RUNNING]
    assert list(restored.runs_of_writer(run.writer)) == [run.id]


def test_each_writer_is_one_again_with_its_lease_and_is_heard_now():
    first, second = Saying(1), Saying(2)
    host = host_of(first.started(lease_s=10.0), second.started())
    alive = Event(
        kind=semconv.WRITER_ALIVE, run_id="", time_unix_ns=T0 + S, writer_id=first.writer, lease_s=20.0
    )
    host.do(lambda tree, now_ns: tree.apply(alive, now_ns), T0 + S)
    restored = host.killed_and_restored(T0 + 500 * S)
    (writer,) = restored.writers()
    assert list(writer.live) == [first.id, second.id]
    assert (writer.lease_s, writer.heard_ns) == (20.0, T0 + 500 * S)


def test_handles_and_labels_still_mean_what_they_meant():
    host = host_of(Saying(1).started(label="mine"), Saying(2).started())
    restored = OperationTree()
    restored.restore(host.dumps.values(), T0)
    assert restored.resolve("nightly_load-1") == restored.resolve("mine") == run_id(1)
    (applied,) = restored.apply(Saying(3).started(), T0)
    assert applied.event.operation.handle == "nightly_load-3"


def test_an_orphan_still_waits_for_its_parent():
    parent = Saying(1)
    restored = host_of(Saying(2, parent=1).started()).killed_and_restored(T0)
    restored.apply(parent.started(), T0)
    assert list(restored.children(parent.id)) == [run_id(2)]


def test_ended_runs_are_forgotten_in_the_order_in_which_they_ended():
    first, second = Saying(1), Saying(2)
    host = host_of(first.started(), second.started())
    host.do(lambda tree, now_ns: tree.apply(second.ended(1), now_ns), T0 + S)
    host.do(lambda tree, now_ns: tree.apply(first.ended(3), now_ns), T0 + 3 * S)
    assert host.tree.ended_at_unix_ns(first.id) == T0 + 3 * S
    restored = host.killed_and_restored(T0 + 4 * S)
    assert restored.ended_at_unix_ns(second.id) == T0 + S
    assert restored.evict(T0 + 8 * S) == [second.id]
    assert restored.evict(T0 + 10 * S) == [first.id]
    assert len(restored) == 0


def test_a_run_evicted_before_the_restart_is_not_brought_back_but_a_lost_one_goes_on():
    over, lost = Saying(1), Saying(2)
    again = over.started()
    host = host_of(again, over.ended(0), lost.started(), lost.lost(0))
    host.do(lambda tree, now_ns: [tree.evict(now_ns), []][1], T0 + 100 * S)
    assert host.gone == {over.id: None, lost.id: 2}
    restored = host.killed_and_restored(T0 + 101 * S)
    assert restored.apply(again, T0 + 101 * S) == []
    lost.sequence = 0
    (applied,) = restored.apply(lost.started(), T0 + 101 * S)
    assert applied.event.revision == 3


# --- revisions -------------------------------------------------------------------------------------------------


def test_revisions_rise_over_any_number_of_restarts_although_ticks_are_not_dumped():
    run = Saying()
    host = host_of(run.started())
    shown = 1
    for start in range(1, 20):
        tree = host.killed_and_restored(T0, start=start)
        assert tree.view(run.id, T0).revision > shown
        for completed in range(3):
            (applied,) = tree.apply(run.tick(start, start * 10.0 + completed, 1000.0), T0 + start * S)
            assert applied.event.revision > shown
            assert applied.event.previous_durable == 1
            shown = applied.event.revision


def test_without_a_number_of_the_start_what_was_raised_has_to_be_written_first():
    run, over = Saying(1), Saying(2)
    host = host_of(run.started(), over.started(), over.ended(1))
    tree = host.killed_and_restored(T0, start=None)
    assert tree.take_changed() == ([run.id], [])
    written = [tree.dump(run.id) or b""]
    (applied,) = tree.apply(run.tick(1, 1.0), T0)
    another = OperationTree()
    another.restore(written, T0)
    assert another.view(run.id, T0).revision > applied.event.revision


def test_revisions_of_what_is_over_stay():
    run = Saying()
    restored = host_of(run.started(), run.ended(1)).killed_and_restored(T0)
    assert restored.view(run.id, T0).revision == 2
    assert restored.durable_revisions(run.id) == (2, 2)


def test_a_start_that_was_used_before_is_refused():
    host = host_of(Saying().started())
    tree = host.killed_and_restored(T0, start=3)
    dump = tree.dump(run_id(1)) or b""
    with pytest.raises(ValueError, match="start 3 is not above 3"):
        OperationTree().restore([dump], T0, start=3)


def test_only_an_empty_tree_is_restored():
    host = host_of(Saying().started())
    with pytest.raises(ValueError, match="only an empty tree"):
        host.tree.restore(host.dumps.values(), T0)


def test_runs_that_ticks_may_have_moved_are_owed_to_readers_once():
    live, over = Saying(1), Saying(2)
    restored = host_of(live.started(), over.started(), over.ended(1)).killed_and_restored(T0)
    assert restored.take_owed() == {live.id}
    assert restored.take_owed() == set()


# --- what is no dump -------------------------------------------------------------------------------------------


def a_dump() -> bytes:
    run = Saying()
    host = host_of(
        run.started(steps=("a", "b"), attributes={"k": "v"}), run.step("a", 0), run.tick(1, 1.0, 2.0)
    )
    return host.dumps[run.id]


def test_any_flipped_bit_is_found():
    dump = a_dump()
    for position in range(len(dump)):
        for bit in range(8):
            torn = bytearray(dump)
            torn[position] ^= 1 << bit
            with pytest.raises(InvalidRecord):
                load_run(bytes(torn))


def test_any_cut_is_found():
    dump = a_dump()
    for length in range(len(dump)):
        with pytest.raises(InvalidRecord):
            load_run(dump[:length])


def test_a_refusal_names_the_run():
    dump = bytearray(a_dump())
    dump[-1] ^= 1
    with pytest.raises(
        InvalidRecord, match=f"run {run_id(1)} is not what was written: its checksum is wrong"
    ):
        OperationTree().restore([bytes(dump)], T0)


def test_another_version_is_refused_by_its_number():
    with pytest.raises(InvalidRecord, match=f"run {run_id(1)} has the format 2; this version reads 1 only"):
        load_run(b"\x02" + a_dump()[1:])


def test_what_is_whole_and_no_run_is_refused():
    body = msgspec.msgpack.encode({"id": run_id(1), "writer": {}, "revision": "many"})
    with pytest.raises(InvalidRecord, match=r"run a+-0+1 cannot be read: .*\$\.revision"):
        load_run(b"\x01" + crc32(body).to_bytes(4, "big") + body)


def test_a_field_of_a_later_version_is_passed_over():
    body = msgspec.msgpack.encode({"id": run_id(1), "writer": {}, "mood": "good"})
    assert load_run(b"\x01" + crc32(body).to_bytes(4, "big") + body).id == run_id(1)


def test_numbers_and_texts_that_no_encoding_has_do_not_keep_a_run_from_being_dumped():
    run = Saying()
    run.started()
    note = run.note("a \ud800 b", 0.1, folded=2**70, attributes={"n": -(2**80)})
    tree = OperationTree()
    tree.apply(note, T0)
    (held,) = load_run(tree.dump(run.id) or b"").carrier.loose or [
        event for lane in load_run(tree.dump(run.id) or b"").carrier.lanes for event in lane.held.values()
    ]
    assert (held.message, held.folded, held.attributes) == ("a ? b", 2**64 - 1, {"n": -(2**63)})


def test_dumping_changes_nothing():
    host = RecordingHost(ticks_too=True)
    for now_ns, act in happenings(3):
        host.do(act, now_ns)
    for run in host.tree._runs.values():
        assert dump_run(run) == dump_run(run)
