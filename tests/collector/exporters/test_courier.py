"""One signal's way to one backend, under virtual time: what is sent, when, how often, and what wakes the loop."""

from __future__ import annotations

import asyncio
import inspect
import logging

import pytest

from otelprogress.otel.transport import DELIVERED, Answer, Verdict
from otelprogress_collector.exporters.backend import BackendConfig
from otelprogress_collector.exporters.courier import Courier
from otelprogress_collector.exporters.memory_queue import MemoryQueue
from tests.collector.exporters.scripted import BUSY, GONE, REFUSED, UNSUPPORTED, ScriptedSender
from tests.collector.exporters.test_merging import request_with
from tests.collector.exporters.virtual_time import LoopClock, run_virtually
from tests.waiting import aeventually

DAY_S = 86_400.0


def converted(signal: str, body: bytes) -> bytes:
    if body == b"unreadable":
        raise ValueError("no JSON")
    return b"<" + signal.encode() + b":" + body + b">"


def courier_for(sender, **settings) -> Courier:
    max_bytes = settings.pop("max_bytes", 1 << 20)
    max_age_s = settings.pop("max_age_s", None)
    queue = MemoryQueue(max_bytes=max_bytes, max_age_s=max_age_s)
    queue.survives = settings.pop("survives", False)
    config = BackendConfig(name="vendor", url="http://vendor:4318", **settings)
    courier = Courier("traces", config, queue, sender, to_protobuf=converted, clock=LoopClock())
    courier.start()
    return courier


def offer(courier, *bodies: bytes, encoding: str = "protobuf") -> None:
    for body in bodies:
        courier.offer(body, encoding)
    courier.wake()


async def stop(courier, deadline_s: float = 0.0) -> None:
    courier.begin_to_close(asyncio.get_running_loop().time() + deadline_s)
    await asyncio.wait(courier.tasks, timeout=deadline_s)
    for task in courier.tasks:
        task.cancel()
    await asyncio.gather(*courier.tasks, return_exceptions=True)
    courier.close()


async def settled() -> None:
    """Let everything happen that needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)


def virtually(test):
    """Run a coroutine test under virtual time; it gets the loop, and its fixtures."""

    def run(**fixtures):
        run_virtually(lambda loop: test(loop, **fixtures))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    parameters = list(inspect.signature(test).parameters.values())[1:]
    run.__signature__ = inspect.Signature(parameters)
    return run


# --- what is delivered -----------------------------------------------------------------------------------------


@virtually
async def test_each_request_goes_as_it_came_in_order(loop):
    sender = ScriptedSender()
    courier = courier_for(sender)
    offer(courier, b"a", b"b")
    offer(courier, b"{}", encoding="json")
    await settled()
    assert [(body, encoding) for _, _, body, encoding in sender.sent] == [
        (b"a", "protobuf"),
        (b"b", "protobuf"),
        (b"{}", "json"),
    ]
    report = courier.report()
    assert (report.delivered, report.delivered_bytes, report.attempts, report.queued) == (3, 4, 3, 0)
    await stop(courier)


@virtually
async def test_one_request_is_in_flight_unless_more_are_asked_for(loop):
    for in_flight in (1, 3):
        sender = ScriptedSender(takes_s=1.0)
        courier = courier_for(sender, in_flight=in_flight)
        offer(courier, *[b"%d" % number for number in range(9)])
        await asyncio.sleep(9.5)
        assert len(sender.sent) == 9
        assert sender.most_in_flight == in_flight
        await stop(courier)


@virtually
async def test_the_same_bytes_are_tried_until_the_backend_takes_them(loop):
    sender = ScriptedSender([BUSY, GONE, BUSY])
    courier = courier_for(sender)
    offer(courier, b"a", b"b")
    await asyncio.sleep(60)
    assert sender.bodies == [b"a"] * 4 + [b"b"]
    assert (courier.report().delivered, courier.report().retries) == (2, 3)
    await stop(courier)


@virtually
async def test_retry_after_is_waited_for(loop):
    sender = ScriptedSender([Answer(Verdict.RETRY, "HTTP 429", retry_after_s=40.0)])
    courier = courier_for(sender)
    offer(courier, b"a")
    await asyncio.sleep(59)
    assert sender.times == [0.0, pytest.approx(40.0)]
    await stop(courier)


@virtually
async def test_a_refused_request_is_counted_and_the_next_one_goes(loop, caplog):
    sender = ScriptedSender([REFUSED])
    courier = courier_for(sender)
    offer(courier, b"a", b"b")
    await settled()
    assert (courier.report().refused, courier.report().delivered) == (1, 1)
    assert "1 requests refused and dropped" in caplog.text
    await stop(courier)


@virtually
async def test_records_that_a_backend_rejects_are_counted_and_nothing_is_sent_again(loop, caplog):
    sender = ScriptedSender([Answer(Verdict.DELIVERED, "partial success: 'too old'", rejected=3)])
    courier = courier_for(sender)
    offer(courier, b"a")
    await settled()
    assert (courier.report().rejected, courier.report().delivered, len(sender.sent)) == (3, 1, 1)
    assert "partial success: 'too old'; 3 records rejected" in caplog.text
    await stop(courier)


@virtually
async def test_json_is_converted_for_grpc_only_and_once(loop):
    sender = ScriptedSender([BUSY, BUSY])
    courier = courier_for(sender, protocol="grpc")
    offer(courier, b"{}", encoding="json")
    offer(courier, b"bytes")
    await asyncio.sleep(60)
    assert sender.bodies == [b"<traces:{}>"] * 3 + [b"bytes"]
    assert {encoding for _, _, _, encoding in sender.sent} == {"protobuf"}
    await stop(courier)


@virtually
async def test_json_that_cannot_be_converted_is_counted_and_holds_nobody_up(loop):
    sender = ScriptedSender()
    courier = courier_for(sender, protocol="grpc")
    offer(courier, b"unreadable", b"{}", encoding="json")
    await settled()
    assert sender.bodies == [b"<traces:{}>"]
    assert courier.report().refused == 1
    assert courier.report().last_failure == "not to be converted: ValueError"
    await stop(courier)


async def test_a_large_json_request_is_converted_beside_the_loop():
    sender = ScriptedSender()
    courier = courier_for(sender, protocol="grpc", max_bytes=1 << 24)
    offer(courier, b" " * 300_000, encoding="json")
    await aeventually(lambda: sender.sent)
    assert sender.bodies == [b"<traces:" + b" " * 300_000 + b">"]
    await stop(courier)


@virtually
async def test_what_waited_too_long_is_not_sent(loop):
    sender = ScriptedSender(default=GONE)
    courier = courier_for(sender, max_age_s=600.0)
    offer(courier, b"old", b"old too")
    await asyncio.sleep(590)
    offer(courier, b"young")
    await asyncio.sleep(100)
    assert courier.report().expired == 2
    sender.default = DELIVERED
    await asyncio.sleep(60)
    assert sender.bodies[-1] == b"young"
    assert courier.report().delivered == 1
    await stop(courier)


# --- requests that go together ---------------------------------------------------------------------------------


@virtually
async def test_neighbours_go_as_one_once_the_queue_has_fallen_behind(loop):
    sender = ScriptedSender(takes_s=1.0)
    courier = courier_for(sender)
    bodies = [request_with(f"span {number}") for number in range(50)]
    offer(courier, *bodies)
    await asyncio.sleep(30)
    assert sender.bodies[0] == b"".join(bodies)
    assert (courier.report().delivered, courier.report().attempts) == (50, 1)
    await stop(courier)


@virtually
async def test_in_ordinary_times_each_goes_by_itself(loop):
    sender = ScriptedSender(takes_s=0.1)
    courier = courier_for(sender)
    bodies = [request_with(f"span {number}") for number in range(32)]
    offer(courier, *bodies)
    await asyncio.sleep(30)
    assert sender.bodies == bodies
    await stop(courier)


@virtually
async def test_merging_keeps_to_its_bound_and_to_the_order(loop):
    sender = ScriptedSender(takes_s=1.0)
    bodies = [request_with(f"span {number:03}") for number in range(100)]
    courier = courier_for(sender, max_merged_bytes=10 * len(bodies[0]) + 3)
    offer(courier, *bodies)
    await asyncio.sleep(100)
    assert b"".join(sender.bodies) == b"".join(bodies)
    assert max(map(len, sender.bodies)) == 10 * len(bodies[0])
    await stop(courier)


@virtually
async def test_merging_can_be_switched_off(loop):
    sender = ScriptedSender(takes_s=0.01)
    courier = courier_for(sender, max_merged_bytes=0)
    bodies = [request_with(f"span {number}") for number in range(100)]
    offer(courier, *bodies)
    await asyncio.sleep(100)
    assert sender.bodies == bodies
    await stop(courier)


@virtually
async def test_json_and_requests_that_end_in_the_middle_of_a_field_go_by_themselves(loop):
    sender = ScriptedSender(takes_s=0.01)
    courier = courier_for(sender)
    whole = [request_with(f"span {number}") for number in range(40)]
    broken = whole[0][:-1]
    offer(courier, *whole[:2], broken)
    offer(courier, b"{}", encoding="json")
    offer(courier, *whole[2:])
    await asyncio.sleep(100)
    assert sender.bodies[:4] == [whole[0] + whole[1], broken, b"{}", b"".join(whole[2:])]
    await stop(courier)


@virtually
async def test_one_bad_request_among_neighbours_spoils_only_itself(loop):
    bodies = [request_with(f"span {number}") for number in range(50)]
    bodies[20] = request_with("poison")
    sender = ScriptedSender(poison=b"poison")
    courier = courier_for(sender)
    offer(courier, *bodies)
    await asyncio.sleep(10)
    assert sender.bodies == [b"".join(bodies), *bodies]
    assert (courier.report().delivered, courier.report().refused) == (49, 1)
    await stop(courier)


@virtually
async def test_merged_requests_are_the_same_bytes_at_each_try(loop):
    sender = ScriptedSender([BUSY, BUSY])
    courier = courier_for(sender)
    bodies = [request_with(f"span {number}") for number in range(50)]
    offer(courier, *bodies)
    await settled()
    offer(courier, *bodies)
    await asyncio.sleep(60)
    assert sender.bodies[:3] == [b"".join(bodies)] * 3
    assert courier.report().delivered == 100
    await stop(courier)


# --- a signal that is not taken --------------------------------------------------------------------------------


@virtually
async def test_a_signal_that_is_not_taken_is_off_in_one_line(loop, caplog):
    sender = ScriptedSender(default=UNSUPPORTED, takes_s=0.5)
    courier = courier_for(sender, in_flight=3)
    offer(courier, b"a", b"b", b"c", b"d", b"e")
    await asyncio.sleep(1)
    offer(courier, b"f", b"g")
    await asyncio.sleep(DAY_S)
    report = courier.report()
    assert report.off_reason == "HTTP 404"
    assert (report.queued, report.cleared, report.withheld) == (0, 5, 2)
    assert len(sender.sent) == 3
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("backend vendor (vendor:4318) does not take traces (HTTP 404): no more of them")
    assert line.endswith("5 requests dropped")
    assert all(task.done() for task in courier.tasks)
    assert "off (HTTP 404)" in str(report)
    await stop(courier)


# --- nothing wakes what has nothing to do ----------------------------------------------------------------------


@virtually
async def test_an_idle_courier_wakes_nothing(loop):
    sender = ScriptedSender()
    courier = courier_for(sender, in_flight=4)
    offer(courier, b"a")
    await settled()
    before = loop.wake_ups
    await asyncio.sleep(DAY_S / 2)
    assert loop.wake_ups - before == 1  # our own sleep
    await stop(courier)


@virtually
async def test_a_courier_whose_signal_is_off_wakes_nothing_whatever_it_is_offered(loop):
    sender = ScriptedSender([UNSUPPORTED])
    courier = courier_for(sender, in_flight=4)
    offer(courier, b"a")
    await settled()
    before = loop.wake_ups
    for _ in range(100):
        offer(courier, b"b")
        await asyncio.sleep(1)
    assert loop.wake_ups - before == 100  # our own sleeps
    assert len(sender.sent) == 1
    await stop(courier)


@pytest.mark.parametrize("in_flight", [1, 4])
@virtually
async def test_a_dead_backend_is_asked_ever_more_rarely_and_wakes_nothing_between(loop, in_flight):
    sender = ScriptedSender(default=GONE)
    courier = courier_for(sender, in_flight=in_flight, max_bytes=1 << 22)
    offer(courier, *[b"%d" % number for number in range(100)])
    before = loop.wake_ups
    await asyncio.sleep(DAY_S / 2)
    attempts = len(sender.sent)
    # Pauses of uniform(0, 30 s) have a mean of 15 s: 2,880 in half a day, give or take a tenth.
    assert 2_500 < attempts < 3_300
    lines = DAY_S / 2 / 60
    assert loop.wake_ups - before <= attempts + lines + 1
    await stop(courier)


@virtually
async def test_what_is_queued_meanwhile_does_not_make_a_dead_backend_be_asked_more_often(loop):
    sender = ScriptedSender(default=Answer(Verdict.RETRY, "HTTP 429", retry_after_s=50.0))
    courier = courier_for(sender)
    offer(courier, b"a")
    await settled()
    before = loop.wake_ups
    for _ in range(480):
        offer(courier, b"b")
        await asyncio.sleep(0.1)
    assert len(sender.sent) == 1
    assert loop.wake_ups - before == 480  # our own sleeps
    await stop(courier)


@virtually
async def test_only_one_of_several_tasks_asks_a_backend_that_is_away(loop):
    sender = ScriptedSender(default=GONE, takes_s=5.0)
    courier = courier_for(sender, in_flight=8)
    offer(courier, *[b"%d" % number for number in range(20)])
    await asyncio.sleep(6)
    sender.most_in_flight = sender.in_flight
    await asyncio.sleep(600)
    assert sender.most_in_flight == 1
    sender.default, sender.takes_s = DELIVERED, 1.0
    await asyncio.sleep(60)
    assert sender.most_in_flight > 1
    assert courier.report().queued == 0
    await stop(courier)


# --- bugs ------------------------------------------------------------------------------------------------------


@virtually
async def test_a_sender_that_raises_is_asked_again_later(loop):
    sender = ScriptedSender([RuntimeError("a bug"), RuntimeError("a bug")])
    courier = courier_for(sender)
    offer(courier, b"a")
    await asyncio.sleep(60)
    report = courier.report()
    assert (report.delivered, report.internal_errors, len(sender.sent)) == (1, 2, 3)
    await stop(courier)


@virtually
async def test_a_bug_of_ours_is_no_busy_loop_and_loses_nothing(loop, monkeypatch, caplog):
    sender = ScriptedSender()
    courier = courier_for(sender)
    original = courier._prepared
    failing = True

    async def prepared(entries):
        if failing:
            raise RuntimeError("a bug")
        return await original(entries)

    monkeypatch.setattr(courier, "_prepared", prepared)
    offer(courier, b"a", b"b")
    before = loop.wake_ups
    await asyncio.sleep(10.5)
    assert loop.wake_ups - before <= 12
    failing = False
    await asyncio.sleep(2)
    assert sender.bodies == [b"a", b"b"]
    assert courier.report().internal_errors == 11
    await stop(courier)


# --- leaving ---------------------------------------------------------------------------------------------------


@virtually
async def test_leaving_delivers_what_waits(loop):
    sender = ScriptedSender(takes_s=0.1)
    courier = courier_for(sender)
    offer(courier, *[b"%d" % number for number in range(20)])
    await stop(courier, 5.0)
    assert len(sender.sent) == 20
    assert loop.time() == pytest.approx(2.0)


@virtually
async def test_leaving_ends_at_the_deadline_and_keeps_the_rest(loop):
    sender = ScriptedSender(takes_s=1.0)
    courier = courier_for(sender, survives=True)
    offer(courier, *[b"%d" % number for number in range(20)])
    await stop(courier, 5.5)
    assert loop.time() == pytest.approx(5.5)
    assert courier.report().delivered == 5
    assert courier.report().queued == 15


@virtually
async def test_leaving_does_not_wait_for_a_dead_backend(loop):
    for survives in (True, False):
        sender = ScriptedSender(default=GONE)
        courier = courier_for(sender, survives=survives, in_flight=3)
        offer(courier, *[b"%d" % number for number in range(20)])
        await asyncio.sleep(300)
        attempts, began_s = len(sender.sent), loop.time()
        await stop(courier, 10.0)
        assert loop.time() == began_s
        assert len(sender.sent) - attempts <= int(not survives)
        assert courier.report().queued == 20


@virtually
async def test_leaving_asks_a_busy_backend_again_when_the_rest_would_be_lost(loop, caplog):
    sender = ScriptedSender(default=BUSY)
    courier = courier_for(sender)
    offer(courier, b"a", b"b")
    await asyncio.sleep(300)
    sender.script = [BUSY, BUSY, DELIVERED, DELIVERED]
    await stop(courier, 5.0)
    assert courier.report().delivered == 2


@virtually
async def test_what_is_lost_with_the_stop_is_said(loop, caplog):
    courier = courier_for(ScriptedSender(default=GONE))
    offer(courier, b"a", b"b")
    await settled()
    await stop(courier)
    assert "2 requests of traces are lost with the stop" in caplog.text


# --- what is said ----------------------------------------------------------------------------------------------


@virtually
async def test_a_thousand_refusals_are_one_line_a_minute_that_adds_up(loop, caplog):
    sender = ScriptedSender(default=REFUSED)
    courier = courier_for(sender, max_merged_bytes=0)
    for _ in range(100):
        offer(courier, *[b"x"] * 10)
        await asyncio.sleep(1)
    await asyncio.sleep(100)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 3
    assert [int(line.split("; ")[1].split()[0]) for line in said] == [1, 599, 400]
    assert courier.report().refused == 1_000
    await stop(courier)


@virtually
async def test_a_full_queue_is_said(loop, caplog):
    sender = ScriptedSender(default=GONE)
    courier = courier_for(sender, max_bytes=1_000)
    offer(courier, *[b"x" * 100] * 50)
    await asyncio.sleep(100)
    assert courier.report().overflowed > 40
    assert "requests dropped here" in caplog.text
    assert "ClientConnectorError: Connection refused" in caplog.text
    await stop(courier)


@virtually
async def test_a_backend_that_comes_a_moment_later_is_worth_no_line(loop, caplog):
    courier = courier_for(ScriptedSender([GONE]))
    offer(courier, b"a")
    await asyncio.sleep(100)
    assert caplog.records == []
    await stop(courier)


@virtually
async def test_the_report_says_how_it_stands(loop):
    courier = courier_for(ScriptedSender(default=GONE))
    offer(courier, b"12345")
    await asyncio.sleep(90)
    report = courier.report()
    assert report.oldest_age_s == pytest.approx(90)
    line = str(report)
    assert line.startswith("traces to vendor (vendor:4318): 0 delivered, 1 queued (")
    assert "the oldest 90 s old" in line
    assert line.endswith("last failure ClientConnectorError: Connection refused")
    await stop(courier)
