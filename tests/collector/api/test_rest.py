"""Operations by HTTP: what runs, one of them, and one of them once it has moved on."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.collector.api.kit import TOKEN, FakeAuthority, get, reader, serving
from tests.feed.fakes import ended, noted, progressed, run_id, started
from tests.waiting import aeventually


def names(answer) -> list[str]:
    return [operation["handle"] for operation in answer.json["operations"]]


@pytest.fixture
def served():
    with serving() as server:
        yield server


# --- several -----------------------------------------------------------------------------------------------


async def test_the_list_has_what_runs_with_its_steps_as_a_snapshot_would(served):
    served.submit(started(steps=("extract", "load")))
    answer = await get(served, "/v1/operations")
    assert (answer.status, answer.media_type) == (200, "application/json")
    (operation,) = answer.json["operations"]
    assert (operation["id"], operation["handle"]) == (run_id(1), "nightly_load-1")
    assert [step["name"] for step in operation["steps"]] == ["extract", "load"]
    assert answer.json["more"] == 0
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_list_can_be_had_as_a_digest_and_then_what_changed_since(served):
    served.submit(started())
    served.submit(started(run=2, name="clean"))
    first = await get(served, "/v1/operations", parameters={"render": "digest"})
    assert first.media_type == "text/plain"
    header, *lines = first.text.splitlines()
    assert header.startswith("@")
    assert header.endswith(" full")
    assert sorted(line.split()[0] for line in lines if " RUN" in line) == ["clean-1", "nightly_load-1"]
    position = header.split()[0]
    served.submit(noted(2, message="12 rows rejected", level="warning"))
    later = await get(served, "/v1/operations", parameters={"render": "digest", "since": position})
    assert "why: warning" in later.text
    assert '! "12 rows rejected"' in later.text
    assert "clean-1" not in later.text
    unknown = await get(served, "/v1/operations", parameters={"render": "digest", "since": "@zz9"})
    assert unknown.text.splitlines()[0].endswith(" full")


@pytest.mark.parametrize(
    "wrong", [{"since": "kq5"}, {"render": "prose"}, {"render": "digest", "max_tokens": "1"}]
)
async def test_a_digest_that_cannot_be_meant_is_refused(served, wrong):
    assert (await get(served, "/v1/operations", parameters=wrong)).status == 400


async def test_an_empty_list_is_a_list(served):
    assert (await get(served, "/v1/operations")).json == {"operations": [], "more": 0}


async def test_the_list_takes_the_filters_of_the_feed(served):
    served.submit(started(run=1, name="load", service="etl", attributes={"region": "eu"}))
    served.submit(started(run=2, name="clean", service="etl", label="job-7"))
    served.submit(started(run=3, name="serve", service="web"))
    served.submit(ended(2, run=3))
    ask = [
        ({"name": "l*"}, ["load-1"]),
        ({"service": "etl"}, ["clean-1", "load-1"]),
        ({"label": "job-7"}, ["clean-1"]),
        ({"state": "succeeded", "ended_within_s": "1e9"}, ["serve-1"]),
        ({"attributes": '{"region":"eu"}'}, ["load-1"]),
        ([("run", "load-1"), ("run", run_id(2))], ["clean-1", "load-1"]),
        ({"subtree": run_id(2)}, ["clean-1"]),
        ({"trace_id": "f" * 32}, []),
        ({"ended_within_s": "0"}, ["clean-1", "load-1"]),
    ]
    for parameters, expected in ask:
        assert names(await get(served, "/v1/operations", parameters=parameters)) == expected, parameters


async def test_pages_follow_one_another_without_a_hole(served):
    for number in range(1, 8):
        served.submit(started(run=number, name="load"))
    seen, after = [], None
    while True:
        page = await get(
            served, "/v1/operations", parameters={"limit": "3"} | ({"after": after} if after else {})
        )
        seen += names(page)
        after = page.json.get("next")
        if after is None:
            break
    assert seen == [f"load-{number}" for number in range(7, 0, -1)]


async def test_a_parameter_that_is_not_known_is_a_problem(served):
    answer = await get(served, "/v1/operations", parameters={"nmae": "x"})
    assert (answer.status, answer.media_type) == (400, "application/problem+json")
    assert answer.json["title"] == "Bad Request"
    assert "nmae" in answer.json["detail"]


# --- one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["nightly_load-1", run_id(1), "job-7", "nightly", "job"])
async def test_one_is_found_by_handle_id_label_or_beginning(served, text: str):
    served.submit(started(label="job-7"))
    served.submit(noted(2, message="half way"))
    answer = await get(served, f"/v1/operations/{text}")
    assert answer.status == 200
    assert (answer.json["id"], answer.json["message"]) == (run_id(1), "half way")


async def test_what_is_not_there_is_404_and_several_are_409_with_candidates(served):
    served.submit(started(run=1))
    served.submit(started(run=2))
    missing = await get(served, "/v1/operations/nothing")
    assert (missing.status, missing.media_type) == (404, "application/problem+json")
    several = await get(served, "/v1/operations/nightly")
    assert several.status == 409
    assert several.json["candidates"] == ["nightly_load-1", "nightly_load-2"]


@pytest.mark.parametrize(
    "text", ["%00", "%0d%0aX-Evil:1", "x" * 3_000, "%F0%9F%98%80", "..%2f..", "%ff", "a%2fb"]
)
async def test_a_hostile_name_is_a_problem_and_no_more(served, text: str):
    answer = await get(served, f"/v1/operations/{text}")
    assert answer.status in (400, 404)
    assert "X-Evil" not in answer.headers


async def test_only_reading_is_offered(served):
    assert (await get(served, "/v1/operations", method="POST")).status == 405
    assert (await get(served, "/v1/operations/x", method="DELETE")).status == 405


# --- waiting -----------------------------------------------------------------------------------------------


async def test_a_revision_that_is_higher_already_is_answered_at_once(served):
    served.submit(started())
    served.submit(noted(2))
    answer = await get(served, "/v1/operations/nightly_load-1", parameters={"after": "1", "wait": "60"})
    assert answer.json["revision"] == 2


@pytest.mark.parametrize("event", [noted(2), progressed(5.0, total=10.0)], ids=["durable", "tick"])
async def test_waiting_ends_with_the_next_revision(served, event):
    served.submit(started())
    asked = asyncio.create_task(
        get(served, "/v1/operations/nightly_load-1", parameters={"after": "1", "wait": "60"})
    )
    await aeventually(lambda: served.call(lambda: len(served.reading._operation._waiting)) == 1)
    served.submit(started(run=2, name="another"))  # changes something, but not this one
    served.submit(event)
    answer = await asked
    assert answer.json["revision"] > 1
    assert served.call(lambda: len(served.reading.delivery)) == 0


async def test_waiting_sees_a_child_move_its_parent(served):
    served.submit(started())
    served.submit(started(run=2, name="child", parent_span_id=run_id(1)[33:]))
    revision = (await get(served, "/v1/operations/nightly_load-1")).json["revision"]
    asked = asyncio.create_task(
        get(served, "/v1/operations/nightly_load-1", parameters={"after": revision, "wait": "60"})
    )
    await aeventually(lambda: served.call(lambda: len(served.reading._operation._waiting)) == 1)
    served.submit(progressed(5.0, run=2, total=10.0))
    assert (await asked).json["revision"] > revision


async def test_waiting_ends_when_its_time_is_over_with_what_is_there(served):
    served.submit(started())
    answer = await get(served, "/v1/operations/nightly_load-1", parameters={"after": "1", "wait": "0.1"})
    assert (answer.status, answer.json["revision"]) == (200, 1)


@pytest.mark.parametrize("wait", ["61", "-1", "NaN", "inf", "long"])
async def test_no_longer_than_a_minute_is_waited(served, wait: str):
    served.submit(started())
    answer = await get(served, "/v1/operations/nightly_load-1", parameters={"after": "1", "wait": wait})
    assert answer.status == 400


async def test_nothing_is_answered_while_a_commit_is_under_way(served):
    served.call(served.host.begin)
    served.call(served.host.hub.publish, started(), time.time_ns())
    asked = asyncio.create_task(get(served, "/v1/operations"))
    done, _ = await asyncio.wait({asked}, timeout=0.2)
    assert not done
    served.call(served.host.commit)
    assert names(await asked) == ["nightly_load-1"]


async def test_those_who_wait_are_answered_when_the_collector_ends(served):
    served.submit(started())
    asked = asyncio.create_task(
        get(served, "/v1/operations/nightly_load-1", parameters={"after": "1", "wait": "60"})
    )
    await aeventually(lambda: served.call(lambda: len(served.reading._operation._waiting)) == 1)
    served.run(served.reading.drain(0.1))
    assert (await asked).json["revision"] == 1


async def test_one_who_waits_and_goes_is_not_waited_for(served):
    served.submit(started())
    asked = asyncio.create_task(
        get(served, "/v1/operations/nightly_load-1", parameters={"after": "1", "wait": "60"})
    )
    await aeventually(lambda: served.call(lambda: len(served.reading._operation._waiting)) == 1)
    asked.cancel()
    await aeventually(lambda: served.call(lambda: len(served.reading._operation._waiting)) == 0)


@pytest.mark.parametrize("how", ["expires", "is revoked"])
async def test_a_token_that_ends_while_it_waits_gets_no_answer(how: str):
    expires = time.time() + 0.4 if how == "expires" else None
    authority = FakeAuthority({TOKEN: reader("ada", expires_at_unix_s=expires), "bob": reader("bob")})
    with serving(authority=authority) as server:
        server.submit(started())
        asked = asyncio.create_task(
            get(server, "/v1/operations/nightly_load-1", parameters={"after": "1", "wait": "60"})
        )
        await aeventually(lambda: server.call(lambda: len(server.reading._operation._waiting)) == 1)
        if how == "is revoked":
            authority.denied.add("ada")
            server.submit(noted(2, message="canary"))
        answer = await asked
        assert answer.status == 401
        assert b"canary" not in answer.body
