from __future__ import annotations

import logging
import threading

import pytest

from otelprogress.exceptions import InvalidRecord
from otelprogress.feed.clock import ManualClock
from otelprogress.feed.host import Host
from otelprogress.model import semconv
from otelprogress.model.events import Event, run_id
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from tests.feed.fakes import FakeHub, ended, noted, progressed, started
from tests.feed.serving import real_host


def make_host(**options):
    hub = FakeHub()
    return Host(hub, clock=ManualClock(), **options), hub


def test_a_submitted_event_waits_until_somebody_drains():
    host, hub = make_host()
    host.submit(noted(1))
    assert (host.pending, hub.published) == (1, [])
    assert host.drain() == 1
    assert (host.pending, list(hub.messages())) == (0, ["a note"])


def test_an_inline_host_drains_on_the_submitting_thread():
    host, hub = make_host(inline=True)
    host.submit(noted(1))
    assert len(hub.published) == 1


def test_closing_ends_in_time_and_counts_what_was_not_reduced():
    class SlowHub(FakeHub):
        def publish(self, event, now_unix_ns):
            clock.advance(0.001)
            return super().publish(event, now_unix_ns)

    clock = ManualClock()
    host = Host(SlowHub(), clock=clock)
    for number in range(5000):
        host.submit(noted(number + 1))
    host.close(1.0)
    assert host.stats.dropped_durable == 5000 - 1024
    assert host.pending == 0


@pytest.mark.parametrize("said_lately", [False, True])
def test_a_last_drain_that_takes_too_long_still_tells_how_operations_ended(caplog, said_lately):
    class SlowHub(FakeHub):
        def publish(self, event, now_unix_ns):
            clock.advance(0.001)
            return super().publish(event, now_unix_ns)

    clock = ManualClock()
    host = Host(SlowHub(), clock=clock, max_pending=5_000)
    heard = []
    host.add_listener(heard.extend)
    if said_lately:
        host.submit(started())
        host.stats.dropped_durable = 1
        host.drain()
        caplog.clear()
    for number in range(5_000):
        host.submit(noted(number + 2))
    host.submit(started(run=2))
    host.submit(ended(9_999))
    host.drain_to_leave(1.0)
    assert [event.kind for event in heard][-2:] == [semconv.OPERATION_STARTED, semconv.OPERATION_ENDED]
    assert host.pending == 0
    dropped = 5_000 - sum(event.kind == semconv.OPERATION_NOTED for event in heard)
    assert 0 < dropped < 5_000
    assert host.stats.dropped_durable == dropped + said_lately
    (said,) = caplog.messages
    assert f"dropped {dropped} events: the process leaves" in said


def test_a_last_drain_does_not_leave_an_outcome_waiting_for_events_that_were_dropped():
    host = real_host()
    heard = []
    host.add_listener(heard.extend)
    host.submit(started(sequence=1))
    host.submit(ended(5))
    host.drain()
    assert [applied.event.kind for applied in heard] == ["operation.started"]
    host.drain_to_leave(1.0)
    assert [applied.event.kind for applied in heard] == ["operation.started", "operation.ended"]


def test_a_last_drain_gives_up_in_time_although_there_are_only_beginnings_and_outcomes():
    class SlowHub(FakeHub):
        def publish(self, event, now_unix_ns):
            clock.advance(0.001)
            return super().publish(event, now_unix_ns)

    clock = ManualClock()
    host = Host(SlowHub(), clock=clock)
    for run in range(1, 10_001):
        host.submit(started(run=run))
    began_s = clock.monotonic_s()
    host.drain_to_leave(2.0)
    assert clock.monotonic_s() - began_s <= 2.0 + 2 * 1.024  # what is reduced at once is not interrupted
    assert host.pending > 0


def test_the_wake_rings_once_until_the_next_drain():
    host, _ = make_host()
    rings = []
    host.set_wake(lambda: rings.append(1))
    for number in range(5):
        host.submit(noted(number + 1))
    assert len(rings) == 1
    host.drain()
    host.submit(noted(6))
    assert len(rings) == 2


def test_a_wake_that_is_set_late_rings_for_what_already_waits():
    host, _ = make_host()
    host.submit(noted(1))
    rings = []
    host.set_wake(lambda: rings.append(1))
    assert rings == [1]


def test_ticks_are_dropped_first_and_durable_events_at_the_bound_both_counted():
    host, hub = make_host(max_pending=4)
    for number in range(10):
        host.submit(progressed(number))
    assert (host.pending, host.stats.dropped_ticks) == (2, 8)
    for number in range(5):
        host.submit(noted(number + 1))
    assert (host.pending, host.stats.dropped_durable) == (4, 3)
    host.drain()
    assert len(hub.published) == 4


def test_a_flood_of_notes_leaves_room_for_starts_and_ends():
    host, hub = make_host(max_pending=8)
    for number in range(20):
        host.submit(noted(number + 2))
    host.submit(ended(30))
    host.submit(started(run=2))
    host.submit(started(run=3))
    assert (host.pending, host.stats.dropped_durable) == (10, 12 + 1)
    host.drain()
    assert [event.kind for event in hub.published][-2:] == [
        semconv.OPERATION_ENDED,
        semconv.OPERATION_STARTED,
    ]


def test_a_drop_is_said_once_a_minute(caplog: pytest.LogCaptureFixture):
    host, _ = make_host(max_pending=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            host.submit(noted(1))
            host.submit(noted(2))
            host.drain()
        assert len(caplog.records) == 1
        host.clock.advance(61)
        host.submit(noted(3))
        host.submit(noted(4))
        host.drain()
    assert [record.args[0] for record in caplog.records] == [1, 3]


def test_listeners_hear_every_batch_in_order_and_their_errors_are_counted():
    host, _ = make_host()
    heard = []

    def broken(applied):
        raise RuntimeError("mine")

    host.add_listener(broken)
    host.add_listener(lambda applied: heard.extend(each.message for each in applied))
    for number in range(3):
        host.submit(noted(number + 1, message=str(number)))
    host.drain()
    assert heard == ["0", "1", "2"]
    assert host.stats.listener_failures == 1


def test_a_removed_listener_hears_nothing():
    host, _ = make_host()
    heard = []
    host.add_listener(heard.append)
    host.remove_listener(heard.append)
    host.submit(noted(1))
    host.drain()
    assert heard == []


def test_a_drain_ends_although_events_keep_coming():
    host, hub = make_host()
    host.add_listener(lambda applied: [host.submit(noted(1)) for _ in applied])
    host.submit(noted(1))
    assert 1 <= host.drain() < 10_000
    assert host.pending > 0


def test_what_a_listener_submits_is_applied_in_the_same_drain():
    host, hub = make_host()

    def answer(applied):
        if len(hub.published) < 3:
            host.submit(noted(9, message="answer"))
            assert host.drain() == 0  # the outer drain goes on

    host.add_listener(answer)
    host.submit(noted(1))
    assert host.drain() == 3
    assert host.pending == 0


def test_a_refused_event_costs_only_itself():
    host, hub = make_host()
    hub.refuse = {"bad": InvalidRecord("no name"), "bug": KeyError("ours")}
    for message in ("bad", "good", "bug", "fine"):
        host.submit(noted(1, message=message))
    host.drain()
    assert list(hub.messages()) == ["good", "fine"]
    assert (host.stats.invalid, host.stats.failures) == (1, 1)


def test_submit_survives_a_broken_wake():
    host, _ = make_host()

    def broken():
        raise OSError("pipe gone")

    host.set_wake(broken)
    host.submit(noted(1))
    assert (host.pending, host.stats.wake_failures) == (1, 1)


def test_due_time_passes_in_the_hub_when_draining():
    host, hub = make_host()
    hub.deadline_unix_ns = host.clock.time_unix_ns() + 5 * 10**9
    host.drain()
    assert hub.advanced == []
    host.clock.advance(5)
    host.drain()
    assert hub.advanced == [host.clock.time_unix_ns()]


def test_many_threads_lose_nothing():
    host, hub = make_host()
    host.set_wake(lambda: None)
    stop = threading.Event()

    def drainer():
        while not stop.is_set():
            host.drain()
            stop.wait(0.0001)

    def writer(thread: int):
        for number in range(500):
            host.submit(noted(number + 1, run=thread))

    threads = [threading.Thread(target=writer, args=(n,)) for n in range(4)]
    drains = [threading.Thread(target=drainer) for _ in range(2)]
    for thread in [*drains, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    for thread in drains:
        thread.join()
    host.drain()
    assert len(hub.published) == 2000
    for thread in range(4):
        of_one = [each.sequence for each in hub.published if each.run_id.endswith(f"{thread:016x}")]
        assert of_one == list(range(1, 501))


def test_submitting_does_not_wait_for_a_drain_or_a_reader():
    host, _ = make_host()
    with host.lock:
        thread = threading.Thread(target=lambda: host.submit(noted(1)))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert host.pending == 1


def test_a_closed_host_drains_the_rest_and_takes_no_more():
    host, hub = make_host()
    host.submit(noted(1))
    host.close()
    host.submit(noted(2))
    assert (len(hub.published), host.pending) == (1, 0)


def test_a_forked_copy_starts_with_free_locks_and_an_empty_queue():
    host, hub = make_host()
    heard = []
    host.add_listener(heard.append)
    host.set_wake(lambda: heard.append("rung"))
    host.submit(noted(1))
    heard.clear()
    holder = threading.Thread(target=host.lock.acquire)  # held by a thread that the child does not have
    holder.start()
    holder.join()
    host.reset_after_fork()
    host.submit(noted(2, message="child"))
    assert host.drain() == 1
    assert (list(hub.messages()), heard) == (["child"], [])


def test_a_parent_that_its_child_moved_is_shown_under_a_new_revision():
    host = Host(
        Hub(OperationTree(), epoch="e", cursor_key=CursorKey(b"k" * 16)), clock=ManualClock(), inline=True
    )
    parent, child = run_id(1, 1), run_id(1, 2)
    host.submit(Event(kind=semconv.OPERATION_STARTED, run_id=parent, time_unix_ns=1, name="a"))
    host.submit(
        Event(
            kind=semconv.OPERATION_STARTED, run_id=child, time_unix_ns=1, name="b", parent_span_id=parent[33:]
        )
    )
    before = host.view(parent).revision
    host.submit(
        Event(kind=semconv.OPERATION_PROGRESSED, run_id=child, time_unix_ns=2, completed=1.0, total=2.0)
    )
    after = host.view(parent)
    assert after.revision > before
    assert [view.revision for view in host.views() if view.id == parent] == [after.revision]
