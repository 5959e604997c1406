"""The commit cycle: durable before answered, answered before shown, refused while the store refuses."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from otelprogress.feed.clock import ManualClock, SystemClock
from otelprogress.model.applied import TreeLimits
from otelprogress.model.bounds import refused_run_id
from otelprogress.model.events import State
from otelprogress_collector.host import CollectorHost, Overloaded
from otelprogress_collector.recording import Numbers, open_hub
from otelprogress_collector.store.interface import Batch, Opened, StoreUnavailable
from otelprogress_collector.store.memory import MemoryStore
from tests.model.saying import T0, S, Saying, SpanOf
from tests.waiting import aeventually


class SlowStore(MemoryStore):
    """A store whose commits end when the test says so, and which can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.durability = "disk"
        self.gate = asyncio.Event()
        self.gate.set()
        self.full = False
        self.batches: list[Batch] = []
        self.loop = asyncio.get_running_loop()

    def append(self, batch: Batch) -> None:
        asyncio.run_coroutine_threadsafe(self.gate.wait(), self.loop).result(30) if _elsewhere(
            self.loop
        ) else None
        if self.full:
            raise StoreUnavailable("no space left on the device")
        super().append(batch)
        self.batches.append(batch)


def _elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is not loop
    except RuntimeError:
        return True


def reopened(store: MemoryStore) -> Opened:
    """What a store that survives would say at the next start."""
    return msgspec.structs.replace(store.open(), head=len(list(store.journal_from(0))))


class Running:
    """A host over a store, with the times of the test."""

    def __init__(self, store: MemoryStore, **settings) -> None:
        self.store = store
        self.clock = ManualClock(T0)
        hub, recorder = open_hub(store, store.open(), T0)
        self.host = CollectorHost(hub, store, recorder, clock=self.clock, **settings)
        self.host.start()


@pytest.fixture
async def running():
    made: list[Running] = []

    def make(store: MemoryStore | None = None, **settings) -> Running:
        made.append(Running(store if store is not None else SlowStore(), **settings))
        return made[-1]

    yield make
    for one in made:
        if isinstance(one.store, SlowStore):
            one.store.gate.set()
            one.store.full = False
        await one.host.close()


async def test_a_request_is_answered_once_its_events_are_in_the_store(running):
    one = running()
    run = Saying()
    one.store.gate.clear()
    answer = asyncio.create_task(one.host.accept([run.started(), run.step("load", 1)], 100))
    await aeventually(lambda: not one.host.is_readable())
    assert not answer.done()
    one.store.gate.set()
    assert (await answer).rejected == 0
    assert [row.revision for row in one.store.journal_from(0)] == [1, 2]
    assert [row.run_id for row in one.store.runs()] == [run.id]


async def test_readers_see_nothing_that_is_not_durable(running):
    one = running()
    run = Saying()
    one.store.gate.clear()
    answer = asyncio.create_task(one.host.accept([run.started()], 100))
    await aeventually(lambda: one.host.stats.commits == 1)
    reader = asyncio.create_task(one.host.readable())
    await asyncio.sleep(0)
    assert not reader.done()
    one.store.gate.set()
    await reader
    assert one.host.hub.view(run.id, T0).name == "nightly load"
    await answer


async def test_requests_that_come_during_a_commit_share_the_next_one(running):
    one = running()
    one.store.gate.clear()
    first = asyncio.create_task(one.host.accept([Saying(1).started()], 100))
    await aeventually(lambda: one.host.stats.commits == 1)
    others = [asyncio.create_task(one.host.accept([Saying(n).started()], 100)) for n in range(2, 12)]
    await asyncio.sleep(0)
    one.store.gate.set()
    await asyncio.gather(first, *others)
    assert one.host.stats.commits == 2
    assert len(one.store.batches[-1].journal) == 10


async def test_what_the_model_refuses_is_counted_and_the_rest_is_taken(running):
    one = running()
    run = Saying()
    wrong = Saying(2).started(tenant="another")
    await one.host.accept([Saying(2).started()], 100)
    accepted = await one.host.accept([run.started(), wrong, run.step("load", 1)], 100)
    assert (accepted.rejected, accepted.reason) == (1, str(refused_run_id(wrong.run_id)))
    assert len(one.host.hub.tree) == 2


async def test_a_full_store_refuses_requests_and_takes_them_again_by_itself(running, monkeypatch):
    monkeypatch.setattr("otelprogress_collector.host._RETRY_STORE_S", 0.01)
    one = running()
    run = Saying()
    started, step = run.started(), run.step("load", 1)
    one.store.full = True
    with pytest.raises(StoreUnavailable):
        await one.host.accept([started], 100)
    with pytest.raises(StoreUnavailable):
        await one.host.accept([step], 100)
    assert not one.host.writable
    await asyncio.wait_for(one.host.readable(), 10)  # readers go on
    one.store.full = False
    await aeventually(lambda: one.host.writable)
    # The sender comes again with what was refused: what was reduced by then is a duplicate, nothing is there twice.
    await one.host.accept([started, step], 100)
    assert [row.revision for row in one.store.journal_from(0)] == [1, 2]


async def test_more_than_may_wait_is_refused_with_a_time_to_come_again(running):
    one = running(max_pending_bytes=150)
    one.store.gate.clear()
    first = asyncio.create_task(one.host.accept([Saying(1).started()], 100))
    await aeventually(lambda: one.host.stats.commits == 1)
    second = asyncio.create_task(one.host.accept([Saying(2).started()], 100))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await one.host.accept([Saying(3).started()], 100)
    assert 0 < refused.value.retry_after_s <= 5
    one.store.gate.set()
    await asyncio.gather(first, second)


async def test_a_request_larger_than_the_bound_is_taken_when_nothing_waits(running):
    one = running(max_pending_bytes=150)
    assert (await one.host.accept([Saying().started()], 1000)).rejected == 0


async def test_listeners_hear_what_was_applied_once_it_is_durable_and_readers_are_woken(running):
    one = running()
    heard: list[str] = []
    woken: list[bool] = []
    one.host.on_applied(lambda applied: heard.extend(each.event.kind for each in applied))
    forget = one.host.on_change(lambda: woken.append(one.host.is_readable()))
    run = Saying()
    await one.host.accept([run.started(), run.tick(1, 3, 9)], 100)
    await aeventually(lambda: woken)
    assert heard == ["operation.started", "operation.progressed"]
    assert woken == [True]
    forget()
    await one.host.accept([run.step("load", 2)], 100)
    assert woken == [True]


async def test_verdicts_of_the_collector_go_the_same_way(running):
    one = running()
    run = Saying()
    await one.host.accept([run.started()], 100)
    one.host.submit(run.lost(5))
    await aeventually(lambda: one.host.hub.view(run.id, T0).state is State.LOST)
    await aeventually(lambda: len(list(one.store.journal_from(0))) == 2)


async def test_what_time_causes_is_written_too(running):
    one = running()
    run = Saying()
    await one.host.accept([run.started(stall_after_s=1.0)], 100)
    one.clock.advance(10.0)
    one.host.submit(Saying(2).started())  # any work: virtual time wakes nobody
    await aeventually(lambda: one.host.hub.view(run.id, T0 + 10 * S).stalled)
    kinds = [row.encoded.split(b'"kind":"')[1].split(b'"')[0] for row in one.store.journal_from(0)]
    assert b"operation.state_changed" in kinds


async def test_what_only_a_span_said_is_in_the_store_before_anybody_is_told(running):
    one = running(MemoryStore())
    run = Saying()
    await one.host.accept(SpanOf(run).whole(), 100)
    assert [row.run_id for row in one.store.runs()] == [run.id]
    assert list(one.store.journal_from(0)) == []
    hub, _ = open_hub(one.store, reopened(one.store), T0 + S)
    assert (len(hub.tree), hub.head) == (0, 0)
    published = [
        (each.event.kind, each.event.late)
        for event in (run.started(), run.step("a", 1), run.ended(3))
        for each in hub.publish(event, T0 + S)
    ]
    assert published == [("operation.started", False), ("step.started", False), ("operation.ended", False)]


async def test_the_host_wakes_by_itself_to_tell_what_only_a_span_said():
    store, clock = MemoryStore(), SystemClock()
    limits = TreeLimits(span_end_grace_s=0.05)
    hub, recorder = open_hub(store, store.open(), clock.time_unix_ns(), tree_limits=limits)
    host = CollectorHost(hub, store, recorder, clock=clock)
    host.start()
    try:
        run = Saying()
        await host.accept(SpanOf(run).whole(), 100)
        await aeventually(lambda: run.id in hub.tree)
        assert hub.view(run.id, T0).state is State.SUCCEEDED
        await aeventually(lambda: len(list(store.journal_from(0))) == 4)
    finally:
        await host.close()


async def test_the_end_answers_what_waits_and_writes_what_only_ticks_moved(running):
    one = running()
    run = Saying()
    await one.host.accept([run.started(), run.tick(1, 3, 9)], 100)
    last = asyncio.create_task(one.host.accept([run.tick(2, 5, 9)], 100))
    await asyncio.sleep(0)
    await one.host.close()
    await last
    hub, _ = open_hub(one.store, reopened(one.store), T0 + 60 * S)
    assert hub.view(run.id, T0 + 60 * S).step.completed == 5.0
    with pytest.raises(StoreUnavailable):
        await one.host.accept([run.step("late", 3)], 100)


async def test_a_store_opened_again_gives_the_same_state_and_goes_on_with_its_log(running):
    one = running(MemoryStore())
    run, other = Saying(1), Saying(2)
    await one.host.accept([run.started(), run.step("load", 1), other.started(), other.ended(2)], 100)
    before = one.host.hub
    hub, _ = open_hub(one.store, reopened(one.store), T0 + S)
    assert (hub.head, hub.ring.first) == (before.head, before.ring.first)
    assert hub.view(run.id, T0).handle == before.view(run.id, T0).handle
    assert hub.view(other.id, T0).state is State.SUCCEEDED
    # What was there is not taken twice; what follows has a higher revision than anything shown before.
    assert hub.publish(run.step("load", 1, sequence=2), T0 + S) == []
    (applied,) = hub.publish(run.step_ended("load", 2), T0 + S)
    assert applied.event.revision > before.view(run.id, T0).revision
    third = Saying(3)
    (started,) = hub.publish(third.started(), T0 + S)
    assert started.event.operation.handle == "nightly_load-3"


async def test_how_long_things_took_is_known_to_the_next_run(running):
    one = running(MemoryStore())
    for n in range(1, 5):
        run = Saying(n)
        await one.host.accept([run.started(0), run.ended(100.0)], 100)
    run = Saying(9)
    await one.host.accept([run.started(0)], 100)
    await one.host.accept([run.note("go", 1)], 100)
    await one.host.accept([run.note("on", 2)], 100)
    view = one.host.hub.view(run.id, T0 + 10 * S)
    assert view.eta is not None
    assert 80 <= view.eta.high_s <= 100


async def test_a_silent_step_stalls_by_how_long_it_took_in_earlier_runs(running):
    one = running()
    for number in range(1, 4):
        run = Saying(number)
        await one.host.accept(
            [run.started(), run.step("load", 0), run.step_ended("load", 10), run.ended(10)], 100
        )
    stuck, unknown = Saying(9), Saying(10, name="never heard of")
    await one.host.accept([stuck.started(), stuck.step("load", 0), unknown.started()], 100)

    async def passed(seconds: float) -> list[str]:
        """Which runs are stalled once that much more time is over, with others of that name ending meanwhile."""
        one.clock.advance(seconds)
        other = Saying(100 + round(one.clock.monotonic_s()))
        at = one.clock.monotonic_s()
        await one.host.accept(
            [
                other.started(at),
                other.step("load", at),
                other.step_ended("load", at + 10),
                other.ended(at + 10),
            ],
            9,
        )
        views = (one.host.hub.view(run.id, T0) for run in (stuck, unknown))
        return [view.name for view in views if view.stalled]

    assert [await passed(seconds) for seconds in (29, 1.5, 1, 18)] == [[], [], [], []]
    assert await passed(1.5) == ["nightly load"]
    assert await passed(10_000) == ["nightly load"]


async def test_closed_spans_are_remembered(running):
    one = running(MemoryStore())
    await one.host.mark_closed(["a" * 32 + "-" + "b" * 16])
    assert one.store.closed() == ["a" * 32 + "-" + "b" * 16]


async def test_a_bug_of_a_listener_stops_nothing(running, caplog):
    one = running()
    one.host.on_applied(lambda _: 1 / 0)
    await one.host.accept([Saying().started()], 100)
    await one.host.accept([Saying(2).started()], 100)
    assert one.host.stats.failures == 2
    assert "ZeroDivisionError" in caplog.text


async def test_a_bug_in_a_cycle_ends_the_host_rather_than_let_memory_and_log_differ(
    running, monkeypatch, caplog
):
    one = running()
    await one.host.accept([Saying().started()], 100)
    monkeypatch.setattr(one.host._recorder, "batch", lambda *_, **__: 1 / 0)
    with pytest.raises(StoreUnavailable):
        await one.host.accept([Saying(2).started()], 100)
    await asyncio.wait_for(one.host.failed.wait(), 10)
    assert not one.host.writable
    with pytest.raises(StoreUnavailable):
        await one.host.accept([Saying(3).started()], 100)
    assert "started again" in caplog.text


def test_the_numbers_of_handles_of_names_without_end_take_no_memory_without_end(monkeypatch):
    monkeypatch.setattr("otelprogress_collector.recording.MAX_NUMBERS", 3)
    numbers = Numbers({"old": 7, "kept": 4})
    assert [numbers("kept"), numbers("a"), numbers("b"), numbers("kept")] == [5, 1, 1, 6]
    numbers("c")
    assert len(numbers._given) == 3
    assert numbers.changed == {"old": 0, "a": 0, "b": 1, "kept": 6, "c": 1}
    assert (numbers("kept"), numbers("old")) == (7, 1)


def test_numbers_that_are_kept_beyond_the_bound_are_taken_from_the_disk(monkeypatch):
    monkeypatch.setattr("otelprogress_collector.recording.MAX_NUMBERS", 2)
    numbers = Numbers({"oldest": 7, "kept": 4, "too": 2})
    assert numbers.changed == {"oldest": 0}
    assert numbers("kept") == 5
