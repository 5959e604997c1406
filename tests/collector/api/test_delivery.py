"""Who gets a turn, and when."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from otelprogress.feed.clock import SystemClock
from otelprogress_collector.api import delivery as delivery_module
from otelprogress_collector.api.delivery import BUSY_SHARE, Delivery, Pace
from otelprogress_collector.host import CollectorHost
from otelprogress_collector.recording import open_hub
from otelprogress_collector.store.memory import MemoryStore
from tests.collector.api.kit import FakeHost
from tests.feed.fakes import noted, started
from tests.waiting import aeventually


class Recorder:
    """A reader that remembers its turns."""

    def __init__(self, delivery: Delivery, *, costs_s: float = 0.0) -> None:
        self.due_s = inf
        self.turns = 0
        self.failed = False
        self.looks: list[float] = []
        self.plans_at_s: float | None = None
        self.readable_at_turns: list[bool] = []
        self._delivery = delivery
        self._costs_s = costs_s
        delivery.add(self)

    def pump(self, now_s: float, now_unix_ns: int) -> None:
        self.turns += 1
        self.readable_at_turns.append(self._delivery._host.is_readable())
        until_s = self._delivery._clock.monotonic_s() + self._costs_s
        while self._delivery._clock.monotonic_s() < until_s:
            pass

    def look(self, now_s: float, now_unix_ns: int) -> None:
        self.looks.append(now_s)
        self.pump(now_s, now_unix_ns)

    def plan(self, now_s: float) -> None:
        if self.plans_at_s is not None:
            self._delivery.look_at(self, self.plans_at_s, now_s)

    def fail(self) -> None:
        self.failed = True

    def recheck(self) -> bool:
        return True


@pytest.fixture
async def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
async def delivery(host: FakeHost):
    made = Delivery(host)
    made.start()
    yield made
    await made.stop()
    assert not host._listeners


async def test_one_change_is_one_turn_for_everybody(host: FakeHost, delivery: Delivery):
    readers = [Recorder(delivery) for _ in range(5)]
    host.commit()
    await aeventually(lambda: all(reader.turns for reader in readers))
    assert [reader.turns for reader in readers] == [1] * 5
    assert delivery.passes == 1


async def test_changes_that_come_together_are_one_pass(host: FakeHost, delivery: Delivery):
    reader = Recorder(delivery)
    for _ in range(100):
        host.commit()
    await aeventually(lambda: reader.turns)
    assert (reader.turns, delivery.passes) == (1, 1)


async def test_nobody_looks_while_a_commit_is_under_way(host: FakeHost, delivery: Delivery):
    reader = Recorder(delivery)
    host.begin()
    delivery.want_turn(reader)
    for _ in range(20):
        await asyncio.sleep(0)
    assert reader.turns == 0
    host.commit()
    await aeventually(lambda: reader.turns)
    assert all(reader.readable_at_turns)


async def test_a_long_pass_lets_the_loop_turn_and_stops_for_a_commit(host: FakeHost, delivery: Delivery):
    readers = [Recorder(delivery, costs_s=0.001) for _ in range(100)]
    host.commit()
    await aeventually(lambda: any(reader.turns for reader in readers), every_s=0)
    host.begin()
    taken = sum(reader.turns for reader in readers)
    assert taken < 100  # the pass is not over, and this test had a turn
    for _ in range(50):
        await asyncio.sleep(0)
    assert sum(reader.turns for reader in readers) == taken
    host.commit()
    await aeventually(lambda: all(reader.turns for reader in readers))
    assert all(all(reader.readable_at_turns) for reader in readers)


def test_work_now_and_then_needs_no_rest():
    pace, now_s = Pace(0.0), 0.0
    for _ in range(100):
        now_s += 0.02
        assert pace.rest_s(0.01, now_s) == 0.0


def test_work_without_end_rests_for_what_its_share_leaves():
    pace, now_s, busy_s = Pace(0.0), 0.0, 0.0
    while now_s < 60.0:
        now_s += 0.03
        busy_s += 0.03
        now_s += pace.rest_s(0.03, now_s)
    assert busy_s / now_s == pytest.approx(BUSY_SHARE, abs=0.01)


def test_long_idleness_is_saved_up_for_a_burst_only():
    pace = Pace(0.0)
    assert pace.rest_s(0.1, 1_000.0) == 0.0
    assert pace.rest_s(0.06, 1_000.06) == pytest.approx(0.04)


async def test_a_reader_that_wants_a_turn_gets_it_alone(host: FakeHost, delivery: Delivery):
    wanting, other = Recorder(delivery), Recorder(delivery)
    delivery.want_turn(wanting)
    await aeventually(lambda: wanting.turns)
    assert (wanting.turns, other.turns, delivery.passes) == (1, 0, 0)


async def test_a_reader_is_looked_at_when_it_asked_for_it_and_not_before(host: FakeHost, delivery: Delivery):
    reader = Recorder(delivery)
    now_s = host.clock.monotonic_s()
    delivery.look_at(reader, now_s + 0.05, now_s)
    await aeventually(lambda: reader.looks)
    assert reader.looks[0] >= now_s + 0.05
    assert reader.due_s == inf


async def test_the_earliest_time_that_was_asked_for_counts(host: FakeHost, delivery: Delivery):
    reader = Recorder(delivery)
    now_s = host.clock.monotonic_s()
    for wait_s in (0.1, 0.03, 0.06):
        delivery.look_at(reader, now_s + wait_s, now_s)
    await aeventually(lambda: reader.looks)
    assert now_s + 0.03 <= reader.looks[0]
    await asyncio.sleep(0.1)
    assert len(reader.looks) == 1  # the next time is the reader's to say


async def test_a_time_that_moves_away_with_every_plan_comes_nevertheless(
    host: FakeHost, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
):
    """A peer that does not read is to be looked at a second from now, whenever it is asked."""
    monkeypatch.setattr(delivery_module, "SWEEP_S", 0.02)
    reader = Recorder(delivery)

    def plan(now_s: float) -> None:
        delivery.look_at(reader, now_s + 0.05, now_s)

    reader.plan = plan  # type: ignore[method-assign]
    await aeventually(lambda: len(reader.looks) >= 3)


async def test_times_far_ahead_are_found_by_the_sweep(
    host: FakeHost, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(delivery_module, "SWEEP_S", 0.05)
    monkeypatch.setattr(delivery_module, "_HORIZON_S", 0.07)
    reader = Recorder(delivery)
    now_s = host.clock.monotonic_s()
    delivery.look_at(reader, now_s + 0.15, now_s)
    assert not delivery._due
    await aeventually(lambda: reader.looks)
    assert reader.looks[0] >= now_s + 0.15


async def test_a_reader_that_plans_in_the_sweep_is_looked_at(
    host: FakeHost, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(delivery_module, "SWEEP_S", 0.02)
    monkeypatch.setattr(delivery_module, "_HORIZON_S", 0.04)
    reader = Recorder(delivery)
    reader.plans_at_s = host.clock.monotonic_s() + 0.1
    await aeventually(lambda: reader.looks)


async def test_a_sweep_asks_everybody_and_leaves_out_who_may_not_go_on(
    host: FakeHost, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(delivery_module, "SWEEP_S", 0.05)
    readers = [Recorder(delivery) for _ in range(100)]
    asked: set[int] = set()
    planned: set[int] = set()

    def watch(reader: Recorder, number: int) -> None:
        def recheck() -> bool:
            asked.add(number)
            return number % 2 == 0

        def plan(now_s: float) -> None:
            planned.add(number)

        reader.recheck, reader.plan = recheck, plan  # type: ignore[method-assign]

    for number, reader in enumerate(readers):
        watch(reader, number)
    await aeventually(lambda: len(asked) == 100)
    assert planned <= set(range(0, 100, 2))
    await aeventually(lambda: len(planned) == 50)


async def test_times_that_move_all_the_time_do_not_pile_up(host: FakeHost, delivery: Delivery):
    reader = Recorder(delivery)
    now_s = host.clock.monotonic_s()
    for number in range(10_000):
        delivery.look_at(reader, now_s + 20.0 + number, now_s)
    assert len(delivery._due) == 0


async def test_with_nobody_to_look_at_nothing_wakes_and_the_first_who_comes_is_looked_at_again(
    host: FakeHost, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(delivery_module, "SWEEP_S", 0.01)
    await aeventually(lambda: delivery._timer is None)
    reader = Recorder(delivery)
    await aeventually(lambda: delivery._timer is not None)
    delivery.remove(reader)
    await aeventually(lambda: delivery._timer is None)


async def test_one_that_left_gets_no_turn_and_is_not_looked_at(host: FakeHost, delivery: Delivery):
    gone, other = Recorder(delivery), Recorder(delivery)
    now_s = host.clock.monotonic_s()
    delivery.look_at(gone, now_s + 0.01, now_s)
    delivery.want_turn(gone)
    delivery.remove(gone)
    delivery.want_turn(gone)
    delivery.look_at(gone, now_s + 0.01, now_s)
    delivery.look_at(other, now_s + 0.02, now_s)
    host.commit()
    await aeventually(lambda: other.looks)
    assert gone.turns == 0


async def test_one_that_fails_is_removed_and_the_others_go_on(
    host: FakeHost, delivery: Delivery, caplog: pytest.LogCaptureFixture
):
    broken, other = Recorder(delivery), Recorder(delivery)
    broken.pump = lambda *_: 1 / 0  # type: ignore[method-assign]
    host.commit()
    await aeventually(lambda: other.turns)
    assert delivery.readers() == [other]
    assert (broken.failed, delivery.failures) == (True, 1)
    assert "a reader of the feed failed" in caplog.text


class SlowStore(MemoryStore):
    """Commits on the store's thread, as one on a disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.durability = "disk"


async def test_readers_have_their_turn_also_while_requests_never_cease():
    """Requests that came during a commit begin the next one at once: between the two readers must get in."""
    store = SlowStore()
    hub, recorder = open_hub(store, store.open(), SystemClock().time_unix_ns())
    host = CollectorHost(hub, store, recorder)
    host.start()
    delivery = Delivery(host)
    delivery.start()
    reader = Recorder(delivery)
    asked: list[asyncio.Task[object]] = []
    sequence = 1

    def ask() -> None:
        nonlocal sequence
        sequence += 1
        asked.append(asyncio.ensure_future(host.accept([noted(sequence)], 100)))

    await host.accept([started()], 100)
    append = host._append

    async def append_while_more_comes(batch) -> None:
        ask()  # whatever happens, something waits when this commit ends
        await append(batch)

    host._append = append_while_more_comes  # type: ignore[method-assign]
    ask()
    await aeventually(lambda: reader.turns >= 5)
    host._append = append  # type: ignore[method-assign]
    await asyncio.gather(*asked)
    assert all(reader.readable_at_turns)
    await delivery.stop()
    await host.close()
