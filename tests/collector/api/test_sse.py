"""The feed as server-sent events, read as a browser would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from otelprogress.feed.connection import ServerLimits
from otelprogress.protocol.messages import Limits
from otelprogress_collector.api import delivery as delivery_module
from otelprogress_collector.api import sse as sse_module
from otelprogress_collector.api.sse import event_stream
from tests.collector.api.kit import TOKEN, FakeAuthority, get, reader, serving
from tests.feed.fakes import noted, progressed, run_id, started
from tests.model import digest_grammar
from tests.waiting import aeventually


@dataclass
class Event:
    name: str
    data: Any
    id: str


class EventSource:
    """What a browser makes of the stream: https://html.spec.whatwg.org/#event-stream-interpretation."""

    def __init__(self, response: aiohttp.ClientResponse, last_event_id: str = "") -> None:
        self.response = response
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self.comments: list[str] = []

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self.texts():
            yield Event(event.name, json.loads(event.data), event.id)

    async def texts(self) -> AsyncIterator[Event]:
        """With the data as it came."""
        name, data, id_buffer = "", [], self.last_event_id
        async for raw in self.response.content:
            line = raw.decode().rstrip("\n")
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self.last_event_id = id_buffer
                if data:
                    yield Event(name or "message", "\n".join(data), id_buffer)
                name, data = "", []
            elif not field:
                self.comments.append(value)
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                id_buffer = value
            elif field == "retry":
                self.retry_ms = int(value)

    async def until(self, name: str) -> list[Event]:
        """Everything up to and including the first event of that name."""
        heard = []
        async with asyncio.timeout(15):
            async for event in self:
                heard.append(event)
                if event.name == name:
                    return heard
        raise AssertionError(f"ended without {name}: {heard}")


@contextlib.asynccontextmanager
async def source(served, query: str = "", *, token: str = TOKEN, last_event_id: str = ""):
    headers = {"Authorization": f"Bearer {token}"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 22, timeout=timeout) as session,
        session.get(f"{served.http}/v1/feed/sse{query}", headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        yield EventSource(response, last_event_id)


def messages(events: list[Event]) -> list[str]:
    return [each.get("message") for event in events for each in event.data.get("events", ())]


# --- what a reader sees --------------------------------------------------------------------------------------


async def test_a_stream_begins_with_the_state_and_goes_on_with_what_happens():
    with serving() as server:
        server.submit(started())
        async with source(server) as stream:
            heard = await stream.until("snapshot_end")
            assert [event.name for event in heard] == ["subscribed", "snapshot", "snapshot_end"]
            assert heard[1].data["operations"][0]["id"] == run_id(1)
            assert stream.retry_ms == sse_module.RETRY_MS
            assert stream.response.headers["Content-Type"].startswith("text/event-stream")
            server.submit(noted(2, message='line\nbreak: "quoted"'))
            (event,) = await stream.until("events")
            assert event.data["events"][0]["message"].startswith("line")
            assert event.id == event.data["cursor"]


async def test_the_last_event_id_resumes_without_a_gap_and_without_a_repeat():
    with serving() as server:
        server.submit(started())
        async with source(server) as stream:
            await stream.until("snapshot_end")
            server.submit(noted(2, message="seen"))
            await stream.until("events")
            position = stream.last_event_id
        server.submit(noted(3, message="missed"))
        async with source(server, last_event_id=position) as stream:
            heard = await stream.until("events")
            assert [event.name for event in heard] == ["subscribed", "events"]
            assert messages(heard) == ["missed"]


async def test_the_last_event_id_counts_before_the_cursor_of_the_url():
    with serving() as server:
        server.submit(started())
        async with source(server) as stream:
            old = (await stream.until("snapshot_end"))[-1].id
            server.submit(noted(2, message="seen"))
            newer = (await stream.until("events"))[-1].id
        server.submit(noted(3, message="missed"))
        async with source(server, f"?cursor={old}", last_event_id=newer) as stream:
            assert messages(await stream.until("events")) == ["missed"]
        async with source(server, f"?cursor={old}") as stream:
            assert messages(await stream.until("events")) == ["seen", "missed"]


async def test_a_foreign_position_is_a_gap_and_a_snapshot():
    with serving() as server:
        async with source(server, last_event_id="no-cursor-of-ours") as stream:
            heard = await stream.until("snapshot_end")
        assert [event.name for event in heard] == ["subscribed", "gap", "snapshot_end"]
        assert heard[1].data["reason"] == "invalid"


async def test_a_bookmark_moves_the_position_and_tells_nobody():
    with serving(feed_limits=Limits(bookmark_idle_s=0.1)) as server:
        async with source(server, "?service=other") as stream:
            before = (await stream.until("snapshot_end"))[-1].id
            server.submit(started())  # of no service
            reading = asyncio.create_task(stream.until("events"))
            await aeventually(lambda: stream.last_event_id != before)
            assert "bookmark" in stream.comments
            server.submit(started(run=2, name="x", service="other"))
            assert [event.name for event in await reading] == ["events"]


async def test_filter_level_and_rate_stand_in_the_url():
    with serving() as server:
        async with source(server, "?name=load*&level=ticks&max_rate_hz=50") as stream:
            await stream.until("snapshot_end")
            server.submit(started(run=1, name="other"))
            server.submit(started(run=2, name="loading"))
            server.submit(progressed(5.0, run=2, total=10.0))
            kinds: list[str] = []
            while "operation.progressed" not in kinds:
                heard = await stream.until("events")
                kinds += [each["kind"] for event in heard for each in event.data["events"]]
                names = {each["operation"]["name"] for event in heard for each in event.data["events"]}
                assert names == {"loading"}


async def test_a_silent_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse_module, "KEEPALIVE_S", 0.05)
    with serving() as server:
        async with source(server) as stream:
            reading = asyncio.create_task(stream.until("events"))
            await aeventually(lambda: len(stream.comments) >= 3)
            reading.cancel()


def test_no_text_of_an_operation_can_end_an_event():
    frame = json.dumps(
        {"type": "events", "cursor": "c", "events": ["a\n\ndata: b\r\n"]}, separators=(",", ":")
    )
    assert event_stream([frame.encode()]) == b"event: events\nid: c\ndata: " + frame.encode() + b"\n\n"


# --- who gets in, and how long -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?nmae=x", 400),
        ("?level=all", 400),
        ("?state=done", 400),
        ("?max_rate_hz=0", 400),
        ("?cursor=" + "x" * 513, 400),
    ],
)
async def test_what_cannot_be_meant_is_a_problem_and_no_stream(query: str, status: int):
    with serving() as server:
        answer = await get(server, f"/v1/feed/sse{query}")
        assert (answer.status, answer.media_type) == (status, "application/problem+json")


async def test_without_a_token_there_is_no_stream():
    authority = FakeAuthority({TOKEN: reader(scopes=frozenset({"progress:write"}))})
    with serving(authority=authority) as server:
        assert (await get(server, "/v1/feed/sse", token=None)).status == 401
        assert (await get(server, "/v1/feed/sse", token="wrong")).status == 401
        assert (await get(server, "/v1/feed/sse")).status == 403


async def test_no_event_comes_after_the_token_expired():
    authority = FakeAuthority({TOKEN: reader(expires_at_unix_s=time.time() + 0.5)})
    with serving(authority=authority) as server:
        async with source(server) as stream:
            await stream.until("snapshot_end")
            server.submit(started())
            await stream.until("events")
            assert (await stream.until("close"))[-1].data["code"] == 4501
            server.submit(noted(2))
            assert [event async for event in stream] == []
        assert (await get(server, "/v1/feed/sse")).status == 401


async def test_a_revoked_token_ends_its_stream(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivery_module, "SWEEP_S", 0.05)
    authority = FakeAuthority()
    with serving(authority=authority) as server:
        async with source(server) as stream:
            await stream.until("snapshot_end")
            authority.denied.add("ada")
            assert (await stream.until("close"))[-1].data["code"] == 4401


async def test_streams_beyond_the_limit_are_answered_503():
    with serving(limits=ServerLimits(max_feed_clients=1)) as server:
        async with source(server) as stream:
            await stream.until("snapshot_end")
            assert (await get(server, "/v1/feed/sse")).status == 503
        await aeventually(lambda: server.reading.streams.client_count == 0)
        async with source(server) as stream:
            await stream.until("snapshot_end")


async def test_when_the_collector_ends_a_stream_gets_what_is_owed_and_then_drain():
    with serving() as server:
        async with source(server) as stream:
            await stream.until("snapshot_end")
            server.submit(started())
            server.run(server.reading.drain(2.0))
            heard = await stream.until("close")
            assert [event.name for event in heard] == ["events", "drain", "close"]
            assert heard[-1].data["code"] == 1012
        assert (await get(server, "/v1/feed/sse")).status == 503


# --- slow readers ------------------------------------------------------------------------------------------


def slow_stream(served) -> socket.socket:
    """A reader with a small buffer, which reads only when it is told to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    sock.connect(served.address)
    sock.settimeout(15)
    sock.sendall(
        f"GET /v1/feed/sse HTTP/1.1\r\nHost: 127.0.0.1:{served.address[1]}\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    assert sock.recv(10).startswith(b"HTTP/1.1 2")
    return sock


async def fill(served, stream) -> int:
    """Publish until the stream stands still; how many."""
    count = 1
    served.call(served.host.publish, started())
    await aeventually(lambda: served.reading.streams.client_count == 1)

    def paused() -> bool:
        return any(each._connection.http.paused for each in served.reading.streams._readers)

    while not served.call(paused):
        served.call(served.host.publish, *[noted(count + n, message="x" * 1_000) for n in range(1, 101)])
        count += 100
        await asyncio.sleep(0)
        assert count < 60_000, "it never stalled"
    return count


async def test_a_slow_stream_stands_still_and_goes_on_where_it_stood():
    with serving() as server, slow_stream(server) as stream:
        count = await fill(server, stream)
        (one,) = server.reading.streams._readers
        written = one._connection.written_bytes
        served_more = [noted(count + n, message="x" * 1_000) for n in range(1, 501)]
        server.call(server.host.publish, *served_more)
        await asyncio.sleep(0.1)
        assert one._connection.written_bytes == written
        heard = b""
        while heard.count(b'"kind":"operation.noted"') < count + 500 - 1:
            heard += await asyncio.to_thread(stream.recv, 1 << 20)
        assert heard.count(b'"kind":"operation.noted"') == count + 500 - 1


async def test_a_stream_that_accepts_nothing_is_cut():
    with serving(limits=ServerLimits(write_stall_timeout_s=0.3)) as server, slow_stream(server) as stream:
        await fill(server, stream)
        await aeventually(lambda: server.reading.streams.client_count == 0)


# --- digests -------------------------------------------------------------------------------------------------


async def digests(stream: EventSource, count: int) -> list[Event]:
    heard = []
    async with asyncio.timeout(15):
        async for event in stream.texts():
            if event.name != "digest":
                continue
            heard.append(event)
            if len(heard) == count:
                return heard
    raise AssertionError(f"ended after {heard}")


async def test_a_stream_of_digests_is_text_that_can_be_pasted():
    with serving() as server:
        server.submit(started(run=1))
        async with source(server, "?render=digest") as stream:
            (first,) = await digests(stream, 1)
            assert digest_grammar.parse(first.data + "\n").full
            server.submit(noted(2, run=1, message="12 rows\nrejected", level="warning"))
            (second,) = await digests(stream, 1)
            parsed = digest_grammar.parse(second.data + "\n")
            assert (parsed.why, parsed.operations[0].texts) == ("warning", ["12 rows rejected"])
            assert first.id != second.id
        async with source(server, "?render=digest", last_event_id=first.id) as stream:
            (again,) = await digests(stream, 1)
            assert digest_grammar.parse(again.data + "\n").operations[0].texts == ["12 rows rejected"]
            assert not digest_grammar.parse(again.data + "\n").full


async def test_the_budget_of_digests_stands_in_the_url():
    with serving() as server:
        for run in range(1, 60):
            server.submit(started(run=run))
        async with source(server, "?render=digest&max_tokens=60") as stream:
            (first,) = await digests(stream, 1)
            assert digest_grammar.parse(first.data + "\n").left_out["operations"] > 40
        for query in ("render=poem", "max_tokens=49", "max_tokens=10001", "max_tokens=many"):
            answer = await get(server, f"/v1/feed/sse?{query}")
            assert answer.status == 400, query


def test_a_digest_s_lines_are_lines_of_its_event():
    frame = b'{"type":"digest","id":"1","cursor":"c","text":"@kq1 why: ended\\na-1 DONE\\n"}'
    assert event_stream([frame]) == b"event: digest\nid: c\ndata: @kq1 why: ended\ndata: a-1 DONE\n\n"
