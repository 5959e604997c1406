"""What happens to a request between its receiver and its answer, and in which order."""

from __future__ import annotations

import asyncio

import pytest

from otelprogress.model import semconv
from otelprogress_collector.host import Overloaded
from otelprogress_collector.receivers.intake import BadRequest
from otelprogress_collector.receivers.limits import Limits
from otelprogress_collector.receivers.rate import RateLimited
from otelprogress_collector.store.interface import StoreUnavailable
from tests.collector.receivers.fakes import PRINCIPALS, Desk
from tests.collector.receivers.messages import Group, Log, request, sender
from tests.waiting import aeventually

both = pytest.mark.parametrize("encoding", ["protobuf", "json"])


def step() -> Log:
    return Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, "load")])


def body(encoding: str = "protobuf", *groups: Group) -> bytes:
    return request("logs", encoding, *(groups or (Group([step()]),)))


async def test_nothing_is_passed_on_or_answered_before_the_events_are_durable():
    desk = Desk()
    desk.host.gate = asyncio.Event()
    asked = asyncio.create_task(desk.ingest.take("logs", body(), "protobuf", sender()))
    await aeventually(lambda: desk.host.gate._waiters)
    assert desk.forwarded == []
    assert not asked.done()
    desk.host.gate.set()
    assert (await asked).records == 1
    assert len(desk.forwarded) == 1


@pytest.mark.parametrize("error", [Overloaded("wait", 1.0), StoreUnavailable("full")])
async def test_what_the_host_does_not_take_is_not_passed_on(error):
    desk = Desk()
    desk.host.error = error
    with pytest.raises(type(error)):
        await desk.ingest.take("logs", body(), "protobuf", sender())
    assert desk.forwarded == []
    assert desk.ingest.stats.requests == 0


async def test_a_request_that_could_not_be_passed_on_is_refused_though_its_events_are_kept():
    desk = Desk()
    desk.forward_error = Overloaded("the queue is full", 1.0)
    with pytest.raises(Overloaded):
        await desk.ingest.take("logs", body(), "protobuf", sender())
    assert desk.kinds == [semconv.STEP_STARTED]


async def test_a_sender_over_its_rate_changes_nothing():
    asked = []

    def limit(principal, intake, size_bytes):
        asked.append((principal.actor, intake.records, size_bytes))
        return 2.0 if len(asked) > 1 else None

    desk = Desk(rate_limit=limit)
    whole = body()
    await desk.ingest.take("logs", whole, "protobuf", sender())
    with pytest.raises(RateLimited) as caught:
        await desk.ingest.take("logs", whole, "protobuf", sender())
    assert caught.value.retry_after_s == 2.0
    assert asked == [("test", 1, len(whole))] * 2
    assert len(desk.host.events) == len(desk.forwarded) == 1


async def test_who_leaves_takes_nothing_more_and_finishes_what_it_began():
    desk = Desk()
    desk.host.gate = asyncio.Event()
    begun = asyncio.create_task(desk.ingest.take("logs", body(), "protobuf", sender()))
    await aeventually(lambda: desk.host.gate._waiters)
    desk.ingest.leave()
    for late in (body(), request("traces", "protobuf", Group([])), b""):
        with pytest.raises(StoreUnavailable, match="ends or restarts"):
            await desk.ingest.take("traces", late, "protobuf", sender())
    assert desk.forwarded == []
    desk.host.gate.set()
    assert (await begun).records == 1
    assert desk.forwarded == [("logs", body(), "protobuf", False)]


async def test_telemetry_that_is_no_progress_is_passed_on_without_asking_the_host():
    desk = Desk()
    desk.host.error = RuntimeError("nobody should ask")
    plain = request("traces", "protobuf", Group([]))
    await desk.ingest.take("traces", plain, "protobuf", sender())
    assert desk.forwarded == [("traces", plain, "protobuf", False)]


async def test_an_empty_request_is_passed_on_to_nobody():
    desk = Desk()
    await desk.ingest.take("logs", b"", "protobuf", sender())
    assert desk.forwarded == []


async def test_ticks_are_passed_on_as_such():
    desk = Desk()
    ticks = body("protobuf", Group([Log(semconv.OPERATION_PROGRESSED, [(semconv.ITEMS_COMPLETED, 1.0)])]))
    await desk.ingest.take("logs", ticks, "protobuf", sender())
    assert desk.forwarded == [("logs", ticks, "protobuf", True)]


@both
async def test_what_a_sender_may_not_write_is_not_passed_on(encoding):
    mine, others = Group([step()]), Group([step()], [("service.name", "shop")])
    desk = Desk()
    await desk.ingest.take("logs", body(encoding, others, mine, others), encoding, PRINCIPALS["etl-only"])
    (passed,) = desk.forwarded
    again = Desk()
    intake = await again.ingest.take("logs", passed[1], encoding, PRINCIPALS["etl-only"])
    assert (intake.records, intake.rejected, len(intake.events)) == (1, 0, 1)


async def test_a_record_that_is_wrong_as_progress_is_passed_on_all_the_same():
    desk = Desk()
    whole = body("protobuf", Group([Log(semconv.STEP_STARTED, span_id=0)]))
    intake = await desk.ingest.take("logs", whole, "protobuf", sender())
    assert intake.rejected == 1
    assert desk.forwarded == [("logs", whole, "protobuf", False)]


@both
async def test_a_large_request_leaves_turns_to_others(encoding):
    desk = Desk()
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await desk.ingest.take("logs", body(encoding, Group([step()] * 5_000)), encoding, sender())
    beside.cancel()
    assert turns >= 5_000 // 256


async def test_requests_that_are_read_at_the_same_time_do_not_mix():
    desk = Desk(limits=Limits())
    bodies = [
        body("protobuf", Group([Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, f"{one}")])] * 600))
        for one in range(4)
    ]
    intakes = await asyncio.gather(
        *(
            desk.ingest.take("logs", one, "protobuf", sender(tenant=f"{number}"))
            for number, one in enumerate(bodies)
        )
    )
    for number, intake in enumerate(intakes):
        assert {(event.tenant, event.step_name) for event in intake.events} == {(f"{number}", f"{number}")}
        assert len(intake.events) == 600


async def test_what_was_taken_is_counted():
    desk = Desk()
    whole = body("protobuf", Group([step(), Log(semconv.STEP_STARTED, span_id=0), Log()]))
    await desk.ingest.take("logs", whole, "protobuf", sender())
    with pytest.raises(BadRequest):
        await desk.ingest.take("logs", b"\x07", "protobuf", sender())
    stats = desk.ingest.stats
    assert (stats.requests, stats.records, stats.events, stats.rejected) == (1, 3, 1, 1)
    assert stats.received_bytes == len(whole)
