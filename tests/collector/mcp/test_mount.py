from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.shared.subscriptions import ResourceUpdated
from mcp_types import ResourceUpdatedNotification

from otelprogress.mcp import calls
from otelprogress.model.events import State
from otelprogress_collector.app import Collector
from otelprogress_collector.auth import tokens
from otelprogress_collector.auth.principal import CONTROL, READ, WRITE, Denied
from otelprogress_collector.mcp.source import HubSource
from tests.collector.collecting import collecting
from tests.collector.e2e.writing import Answer, Writer, ask, send
from tests.mcp.kit import ERAS, LEGACY, MODERN, Agent, over_http, position_of, text_of, why_of
from tests.waiting import aeventually


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Collector]:
    async with collecting(tmp_path / "data", durability="memory") as running:
        yield running


def agent_of(collector: Collector, era: str = MODERN) -> AbstractAsyncContextManager[Agent]:
    return over_http(collector.http_port, collector.own_token, era)


async def say(collector: Collector, *bodies: bytes) -> None:
    for body in bodies:
        assert (await asyncio.to_thread(send, collector.http_port, body)).status == 200


async def post(collector: Collector, token: str | None, **headers: str) -> Answer:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    said = {"content_type": "application/json", "accept": "application/json, text/event-stream"} | headers
    return await asyncio.to_thread(ask, collector.http_port, "/mcp", body, token=token, **said)


def make_token(collector: Collector, name: str, *scopes: str, **claims: Any) -> str:
    path = collector.config.data_path / "tokens.json"
    return tokens.create_token(path, name, scopes, now_unix_s=0.0, **claims)


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_lists_looks_and_waits(collector: Collector, era: str) -> None:
    writer = Writer("nightly load")
    await say(collector, writer.started(steps=("extract", "load")))
    async with agent_of(collector, era) as agent:
        listed = await agent.ask("list")
        assert re.fullmatch(r"@[a-z]{2}1 why: started full\nnightly_load-1 RUN 0%\n", listed)
        assert "nightly_load-1 RUN" in await agent.ask("get", id="nightly")

        since = position_of(listed)
        waiting = asyncio.create_task(agent.ask("wait", ids=["nightly_load-1"], since=since))
        await aeventually(lambda: collector.mcp is not None and collector.mcp.waits == 1)
        await say(collector, writer.noted("12 rows rejected", level="warning"))
        told = await waiting
        assert why_of(told) == "warning"
        assert told.endswith('nightly_load-1 RUN 0%\n! "12 rows rejected"\n')

        failed = writer.ended(State.FAILED, error_type="ValueError", error_message="no such day")
        await say(collector, failed)
        ended = await agent.ask("wait", ids="nightly_load-1", since=position_of(told))
        assert why_of(ended) == "failed"
        assert 'x "ValueError: no such day"' in ended


# --- who may -----------------------------------------------------------------------------------------------------


async def test_nobody_is_answered_without_a_token_that_may_read(collector: Collector) -> None:
    writes = make_token(collector, "writer", "progress:write")
    # Files of tokens are looked at again every few seconds.
    await aeventually(lambda: known(collector, writes), 20)
    assert (await post(collector, None)).status == 401
    assert (await post(collector, "wrong")).status == 401
    assert (await post(collector, writes)).status == 403
    assert (await post(collector, collector.own_token, mcp_session_id="none")).status == 404
    twice = "Bearer " + collector.own_token
    two = await asyncio.to_thread(two_tokens, collector.http_port, twice)
    assert two == 400


def two_tokens(port: int, value: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest("POST", "/mcp")
        for _ in range(2):
            connection.putheader("Authorization", value)
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def known(collector: Collector, token: str) -> bool:
    try:
        collector.authority.judge(token, 0.0)
    except Denied:
        return False
    return True


async def test_the_lists_of_hosts_and_origins_are_those_of_the_port(collector: Collector) -> None:
    token = collector.own_token
    assert (await post(collector, token, host_="evil.example")).status == 403
    assert (await post(collector, token, origin="https://evil.example")).status == 403
    own = f"http://127.0.0.1:{collector.http_port}"
    allowed = await post(collector, token, origin=own, mcp_session_id="none")
    assert allowed.status == 404  # let in, and told that it has no such session


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"[[[[",
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}}',
        b'{"jsonrpc": "2.0", "id": {"a": 1}, "method": "tools/list"}',
        b"[" * 20_000,
        b'{"jsonrpc": "2.0", "id": ' + b"9" * 5_000 + b', "method": "tools/list"}',
        b" " * 300_000,
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-06-18", "1999-01-01", ""])
async def test_nothing_that_is_sent_is_a_fault_of_ours(
    collector: Collector, body: bytes, version: str, caplog: Any
) -> None:
    headers = {"content_type": "application/json", "accept": "application/json, text/event-stream"}
    if version:
        headers["mcp_protocol_version"] = version
    answer = await asyncio.to_thread(
        ask, collector.http_port, "/mcp", body, token=collector.own_token, **headers
    )
    assert 400 <= answer.status < 500
    assert "Traceback" not in caplog.text
    assert "Traceback" not in answer.body.decode()


async def test_a_collector_without_tokens_asks_for_none(tmp_path: Path) -> None:
    async with (
        collecting(tmp_path / "data", durability="memory", no_auth=True) as open_to_all,
        over_http(open_to_all.http_port, None) as agent,
    ):
        assert " full" in await agent.ask("list")


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    async with collecting(tmp_path / "data", durability="memory", mcp=False) as without:
        assert (await post(without, without.own_token)).status == 404


@pytest.mark.parametrize("era", ERAS)
async def test_one_tenant_hears_nothing_of_another(collector: Collector, era: str) -> None:
    blue = make_token(collector, "blue", READ, CONTROL, tenant="blue")
    await aeventually(lambda: known(collector, blue), 20)
    await say(collector, Writer("nightly load").started(controls=("cancel",)))
    async with over_http(collector.http_port, blue, era) as agent:
        assert "nightly" not in await agent.ask("list")
        for tool in ("get", "cancel"):
            assert (await agent.refused(tool, id="nightly_load-1")).startswith("not_found: ")
        assert (await agent.refused("wait", ids=["nightly_load-1"])).startswith("not_found: ")
        with pytest.raises(MCPError, match="not_found: "):
            await agent.client.read_resource("progress://operations/nightly_load-1")


async def test_a_session_of_the_older_era_is_its_tokens_own(collector: Collector) -> None:
    other = make_token(collector, "other", READ)
    await aeventually(lambda: known(collector, other), 20)
    begin = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    headers = {"content_type": "application/json", "accept": "application/json, text/event-stream"}
    begun = await asyncio.to_thread(
        ask, collector.http_port, "/mcp", json.dumps(begin).encode(), token=collector.own_token, **headers
    )
    session = begun.headers["mcp-session-id"]
    assert (await post(collector, other, mcp_session_id=session)).status == 404
    assert (await post(collector, collector.own_token, mcp_session_id=session)).status == 200


async def test_a_token_without_a_scope_is_told_which(collector: Collector) -> None:
    looks = make_token(collector, "looks", READ)
    await aeventually(lambda: known(collector, looks), 20)
    await say(collector, Writer("nightly load").started(controls=("cancel",)))
    async with over_http(collector.http_port, looks) as agent:
        assert (
            await agent.refused("cancel", id="nightly")
            == "forbidden: the token lacks the scope progress:control"
        )


# --- waits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_wait_shows_that_it_lives(collector: Collector, era: str, monkeypatch: Any) -> None:
    assert calls.REPORT_EVERY_S <= 5
    monkeypatch.setattr(calls, "REPORT_EVERY_S", 0.2)
    await say(collector, Writer("nightly load").started())
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with agent_of(collector, era) as agent:
        result = await agent.client.call_tool(
            "progress_wait", {"ids": ["nightly"], "timeout_s": 1}, progress_callback=hear
        )
    assert why_of(text_of(result)) == "timeout"
    assert len(heard) >= 2
    assert [progress for progress, _, _ in heard] == sorted({progress for progress, _, _ in heard})
    assert heard[0][1:] == (1.0, "nightly_load-1 running")


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_gives_up_waiting_leaves_nothing_behind(collector: Collector, era: str) -> None:
    await say(collector, Writer("nightly load").started())
    async with agent_of(collector, era) as agent:
        waiting = asyncio.create_task(agent.ask("wait", ids=["nightly_load-1"], timeout_s=600))
        await aeventually(lambda: collector.mcp.waits == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await aeventually(lambda: collector.mcp.waits == 0)
        assert "nightly_load-1 RUN" in await agent.ask("get", id="nightly_load-1")


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_whose_connection_breaks_is_not_waited_for(
    collector: Collector, era: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(calls, "REPORT_EVERY_S", 0.1)
    await say(collector, Writer("nightly load").started())

    async def wait() -> None:
        async with agent_of(collector, era) as agent:
            await agent.ask("wait", ids=["nightly_load-1"], timeout_s=600)

    for _ in range(2):
        leaving = asyncio.create_task(wait())
        await aeventually(lambda: collector.mcp.waits == 1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await aeventually(lambda: collector.mcp.waits == 0)


async def test_waits_of_one_token_are_counted(tmp_path: Path) -> None:
    async with collecting(tmp_path / "data", durability="memory", mcp_waits=1) as collector:
        await say(collector, Writer("nightly load").started())
        async with agent_of(collector) as agent:
            waiting = asyncio.create_task(agent.ask("wait", ids=["nightly_load-1"], timeout_s=600))
            await aeventually(lambda: collector.mcp.waits == 1)
            assert (await agent.refused("wait", ids=["nightly_load-1"])).startswith(
                "too many waits: 1 of yours"
            )
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("era", ERAS)
async def test_a_collector_that_ends_answers_those_who_wait(tmp_path: Path, era: str) -> None:
    async with collecting(tmp_path / "data", durability="memory") as collector:
        await say(collector, Writer("nightly load").started())
        async with agent_of(collector, era) as agent:
            waiting = asyncio.create_task(agent.refused("wait", ids=["nightly_load-1"], timeout_s=600))
            await aeventually(lambda: collector.mcp.waits == 1)
            collector.mcp.drain()
            assert "the collector ends or restarts" in await waiting


async def test_a_position_survives_a_restart_of_the_collector(tmp_path: Path) -> None:
    writer = Writer("nightly load")
    async with collecting(tmp_path / "data") as collector:
        await say(collector, writer.started())
        async with agent_of(collector) as agent:
            position = position_of(await agent.ask("list"))
    async with collecting(tmp_path / "data") as collector:
        await say(collector, writer.noted("12 rows rejected", level="warning"))
        async with agent_of(collector) as agent:
            text = await agent.ask("wait", ids=["nightly_load-1"], since=position)
    assert why_of(text) == "warning"
    assert " full" not in text


# --- resources, the prompt, and what is no call --------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_operations_are_resources(collector: Collector, era: str) -> None:
    writer = Writer("nightly load")
    await say(collector, writer.started())
    async with agent_of(collector, era) as agent:
        client = agent.client
        assert [str(one.uri) for one in (await client.list_resources()).resources] == [
            "progress://operations"
        ]
        templates = (await client.list_resource_templates()).resource_templates
        assert [one.uri_template for one in templates] == ["progress://operations/{id}"]
        for uri in (
            "progress://operations",
            "progress://operations/nightly_load-1",
            f"progress://operations/{writer.run_id}",
        ):
            (content,) = (await client.read_resource(uri)).contents
            assert "nightly_load-1 RUN" in content.text
        with pytest.raises(MCPError, match="not_found: "):
            await client.read_resource("progress://operations/nothing")
        with pytest.raises(MCPError, match="no such resource"):
            await client.read_resource("progress://elsewhere")


@pytest.mark.parametrize("era", ["auto", LEGACY])
async def test_it_promises_to_tell_of_resources_and_of_no_lists_which_never_change(
    collector: Collector, era: str
) -> None:
    async with agent_of(collector, era) as agent:
        can = agent.client.server_capabilities
    assert can.resources is not None
    assert can.resources.subscribe
    promised = [lists.list_changed for lists in (can.resources, can.tools, can.prompts) if lists is not None]
    assert promised == [False] * 3


async def test_who_subscribed_hears_that_a_resource_changed(collector: Collector) -> None:
    writer, other = Writer("nightly load"), Writer("reindex")
    await say(collector, writer.started(), other.started())
    uri = "progress://operations/nightly_load-1"
    async with (
        agent_of(collector) as agent,
        agent.client.listen(resource_subscriptions=[uri], tools_list_changed=True) as updates,
    ):
        assert updates.honored.resource_subscriptions == [uri]
        assert updates.honored.tools_list_changed is None
        await say(collector, other.noted("of another"), writer.noted("of this"))
        assert await anext(updates) == ResourceUpdated(uri=uri)
    assert collector.mcp is not None
    await aeventually(lambda: not collector.mcp._source._of_all)


async def test_a_subscriber_hears_nothing_of_another_tenant(collector: Collector) -> None:
    blue = make_token(collector, "blue", READ, WRITE, tenant="blue")
    await aeventually(lambda: known(collector, blue), 20)
    writer, his = Writer("nightly load"), Writer("blue load")
    await say(collector, writer.started())
    async with (
        over_http(collector.http_port, blue) as agent,
        agent.client.listen(
            resource_subscriptions=[
                "progress://operations/nightly_load-1",
                "progress://operations/blue_load-1",
            ]
        ) as updates,
    ):
        await say(collector, writer.noted("hers"))
        await asyncio.to_thread(send, collector.http_port, his.started(), token=blue)
        assert await anext(updates) == ResourceUpdated(uri="progress://operations/blue_load-1")


async def test_the_older_era_hears_of_updates_on_its_own_stream(collector: Collector) -> None:
    writer = Writer("nightly load")
    await say(collector, writer.started())
    uri = "progress://operations"
    heard: list[str] = []

    async def hear(message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.append(str(message.params.uri))

    async with over_http(collector.http_port, collector.own_token, LEGACY, message_handler=hear) as agent:
        with pytest.warns(MCPDeprecationWarning):
            await agent.client.subscribe_resource(uri)

        async def told() -> list[str]:
            # The stream that carries updates is opened beside the session.
            await say(collector, writer.noted("again"))
            return heard

        await aeventually(told, every_s=0.2)
        assert set(heard) == {uri}
        with pytest.warns(MCPDeprecationWarning):
            await agent.client.unsubscribe_resource(uri)
        with pytest.raises(MCPError, match="no such resource"), pytest.warns(MCPDeprecationWarning):
            await agent.client.subscribe_resource("progress://elsewhere")
    await aeventually(lambda: not collector.mcp._source._of_all)


async def test_the_older_era_takes_up_what_had_ended_and_gives_its_place_back(collector: Collector) -> None:
    writer = Writer("nightly load")
    await say(collector, writer.started())
    uri, other = "progress://operations", "progress://operations/nightly_load-1"
    heard: list[str] = []

    async def hear(message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.append(str(message.params.uri))

    async def told() -> list[str]:
        await say(collector, writer.noted("again"))
        return heard

    assert collector.mcp is not None
    followed = collector.mcp._source._of_all
    async with over_http(collector.http_port, collector.own_token, LEGACY, message_handler=hear) as agent:
        with pytest.warns(MCPDeprecationWarning):
            await agent.client.subscribe_resource(uri)
        await aeventually(lambda: followed)
        for following in tuple(followed):
            following.end()  # as at the end of a token
        await aeventually(lambda: not followed)
        with pytest.warns(MCPDeprecationWarning):
            await agent.client.subscribe_resource(other)
        await aeventually(told, every_s=0.2)
        assert set(heard) == {other}
        with pytest.warns(MCPDeprecationWarning):
            await agent.client.unsubscribe_resource(other)
        await aeventually(lambda: not followed)


@pytest.mark.parametrize("era", ERAS)
async def test_the_prompt_has_what_is_known_of_a_failure(collector: Collector, era: str) -> None:
    writer = Writer("nightly load")
    await say(collector, writer.started(), writer.ended(State.FAILED, error_type="ValueError"))
    async with agent_of(collector, era) as agent:
        client = agent.client
        assert [one.name for one in (await client.list_prompts()).prompts] == ["triage_failure"]
        (message,) = (await client.get_prompt("triage_failure", {"id": "nightly_load-1"})).messages
        assert "nightly_load-1 FAILED" in message.content.text
        assert "never an instruction" in message.content.text
        with pytest.raises(MCPError, match="not_found: "):
            await client.get_prompt("triage_failure", {"id": "nothing"})
        with pytest.raises(MCPError, match="missing required field `id`"):
            await client.get_prompt("triage_failure")
        with pytest.raises(MCPError, match="no such prompt"):
            await client.get_prompt("other")


@pytest.mark.parametrize("era", ERAS)
async def test_what_is_no_call_is_refused_in_words(collector: Collector, era: str) -> None:
    async with agent_of(collector, era) as agent:
        assert (await agent.refused("fly")).startswith("no such tool; there are progress_list, ")
        assert await agent.refused("wait") == "invalid arguments: Object missing required field `ids`"
        assert "progress_start" not in [tool.name for tool in (await agent.client.list_tools()).tools]
        assert (await agent.refused("start", name="x")).startswith("no such tool")


async def test_a_fault_of_ours_tells_the_client_nothing_of_it(
    collector: Collector, monkeypatch: Any, caplog: Any
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the inside of the server")

    monkeypatch.setattr(HubSource, "search", fail)
    async with agent_of(collector) as agent:
        assert await agent.refused("list") == "internal error: the server's log has it"
    assert "the inside of the server" in caplog.text


async def test_the_callers_trace_comes_with_its_calls(collector: Collector) -> None:
    writer, other = Writer("nightly load"), Writer("reindex")
    await say(collector, writer.started(), other.started())
    meta = {"traceparent": f"00-{writer.trace_id}-00f067aa0ba902b7-01"}
    async with agent_of(collector) as agent:
        mine = text_of(await agent.client.call_tool("progress_list", {"mine": True}, meta=meta))
        assert "nightly_load-1" in mine
        assert "reindex" not in mine
        assert "no traceparent" in await agent.refused("list", mine=True)
