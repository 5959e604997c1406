"""Two tenants on one collector: nothing of the one reaches the other, by no endpoint, and in no refusal."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from tests.collector.api.kit import FakeAuthority, get, reader, serving
from tests.collector.api.test_sse import source
from tests.feed.fakes import ended, noted, progressed, run_id, started
from tests.feed.serving import dial, hear, hear_until, hello, say
from tests.waiting import aeventually

CANARY = "canary"
"""Stands in every text of tenant B."""
THEIRS = 2
OURS = 1


def theirs(**fields):
    return {
        "run": THEIRS,
        "tenant": "b",
        "service": f"{CANARY}-service",
    } | fields


def events():
    """What both tenants do; B says its canary wherever there is a text."""
    yield started(run=OURS, name="load", tenant="a", service="etl", label="job-7")
    yield started(
        **theirs(name=f"{CANARY} load", label=f"{CANARY}-label", attributes={"key": CANARY}, steps=(CANARY,))
    )
    yield noted(2, **theirs(message=f"{CANARY} note"))
    yield progressed(5.0, **theirs(total=10.0))
    yield noted(2, run=OURS, tenant="a", message="ours")


@pytest.fixture
def served():
    authority = FakeAuthority(
        {
            "a": reader("ada", tenant="a"),
            "b": reader("bob", tenant="b"),
            "none": reader("eve"),
            "web": reader("web", tenant="b", services=("web",)),
        }
    )
    with serving(authority=authority) as server:
        for event in events():
            server.submit(event)
        yield server


PATHS = [
    "/v1/operations",
    "/v1/operations?roots=false&ended_within_s=1e9",
    f"/v1/operations?run={run_id(THEIRS)}",
    f"/v1/operations?label={CANARY}-label",
    f"/v1/operations?service={CANARY}-service",
    f"/v1/operations?name={CANARY}*",
    f"/v1/operations?subtree={run_id(THEIRS)}",
    f"/v1/operations?after={run_id(THEIRS)}",
    "/v1/operations?state=x",
    "/v1/operations/load-1",
    f"/v1/operations/{run_id(THEIRS)}",
    f"/v1/operations/{run_id(THEIRS)}?after=0&wait=1",
    f"/v1/operations/{CANARY}_load-1",
    f"/v1/operations/{CANARY[:3]}",
    f"/v1/operations/{run_id(THEIRS)[:20]}",
    "/v1/operations/nothing",
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
]


@pytest.mark.parametrize("token", ["a", "none", "web"])
async def test_no_answer_of_any_path_has_anything_of_another_tenant(served, token: str):
    for path in PATHS:
        answer = await get(served, path, token=token)
        # What the caller typed comes back in a refusal; nothing else may.
        asked = path.partition("?")[0].rpartition("/")[2]
        said = answer.body.decode().replace(asked, "")
        assert CANARY not in said, path
        assert run_id(THEIRS) not in said, path
        assert answer.status != 409, path


async def test_what_is_another_tenants_is_refused_in_the_same_words_as_what_is_not_there(served):
    for asked in (run_id(THEIRS), f"{CANARY}_load-1", f"{CANARY}-label"):
        theirs_ = await get(served, f"/v1/operations/{asked}", token="a")
        missing = await get(served, f"/v1/operations/{'z' * len(asked)}", token="a")
        assert theirs_.status == missing.status == 404
        assert theirs_.body.replace(asked.encode(), b"") == missing.body.replace(b"z" * len(asked), b"")


async def test_each_sees_its_own(served):
    assert (await get(served, "/v1/operations/load-1", token="a")).status == 200
    assert (await get(served, f"/v1/operations/{CANARY}_load-1", token="b")).status == 200
    own = (await get(served, "/v1/operations", token="a")).json["operations"]
    assert [operation["id"] for operation in own] == [run_id(OURS)]


@pytest.mark.parametrize("token", ["a", "none", "web"])
def test_no_frame_of_the_feed_has_anything_of_another_tenant(served, token: str):
    with dial(served, token="b") as bob:
        hello(bob)
        say(bob, "subscribe", id="1", filter={"roots": False})
        cursor = hear_until(bob, "snapshot_end")[-1]["cursor"]
    heard = []
    filters = [
        {"roots": False, "ended_within_s": 1e9},
        {"run": [run_id(THEIRS), f"{CANARY}_load-1"]},
        {"label": [f"{CANARY}-label"]},
        {"subtree": run_id(THEIRS)},
        {"service": [f"{CANARY}-service"]},
        {"attributes": {"key": CANARY}},
    ]
    with dial(served, token=token) as client:
        hello(client)
        for number, wanted in enumerate(filters):
            for level in ("ticks", "milestones", "terminal"):
                say(client, "subscribe", id=f"{number}-{level}", filter=wanted, level=level)
                heard += hear_until(client, "snapshot_end")
        say(client, "subscribe", id="stolen", filter={"roots": False}, cursor=cursor)
        stolen = hear_until(client, "snapshot_end")
        assert [each["reason"] for each in stolen if each["type"] == "gap"] == ["invalid"]
        heard += [each | {"from": ""} for each in stolen]
        say(client, "command", command_id="c", operation=f"{CANARY}_load-1", action="cancel")
        heard.append(hear(client))
        served.submit(noted(3, **theirs(message=f"{CANARY} more")))
        served.submit(progressed(6.0, **theirs(total=10.0)))
        served.submit(ended(4, **theirs()))
        served.call(lambda: None)
        with suppress(TimeoutError, ConnectionClosed):
            while True:
                heard.append(hear(client, 0.3))
    said = json.dumps(heard)
    assert CANARY not in said
    assert run_id(THEIRS) not in said


async def test_no_stream_has_anything_of_another_tenant_and_its_position_opens_nothing(served):
    async with source(served, "?roots=false", token="b") as stream:
        position = (await stream.until("snapshot_end"))[-1].id
    async with source(served, "?roots=false", token="a", last_event_id=position) as stream:
        heard = await stream.until("snapshot_end")
        assert [event.name for event in heard] == ["subscribed", "gap", "snapshot", "snapshot_end"]
        served.submit(noted(3, **theirs(message=f"{CANARY} more")))
        served.submit(noted(3, run=OURS, tenant="a", message="ours again"))
        heard += await stream.until("events")
    said = json.dumps([event.data for event in heard]).replace(position, "")
    assert CANARY not in said
    assert run_id(THEIRS) not in said


async def test_what_another_tenant_does_wakes_nobody_who_waits(served):
    revision = (await get(served, "/v1/operations/load-1", token="a")).json["revision"]
    asked = asyncio.create_task(
        get(served, "/v1/operations/load-1", token="a", parameters={"after": revision, "wait": "60"})
    )
    await aeventually(lambda: served.call(lambda: len(served.reading._operation._waiting)) == 1)
    served.submit(noted(3, **theirs(message=f"{CANARY} more")))
    done, _ = await asyncio.wait({asked}, timeout=0.2)
    assert not done
    served.submit(noted(3, run=OURS, tenant="a", message="ours"))
    assert (await asked).json["message"] == "ours"
