"""The reading side as a whole: starting, ending, and doing both around requests that are under way."""

from __future__ import annotations

import asyncio

from starlette.routing import Route, WebSocketRoute

from otelprogress.feed.client import AsyncClient
from tests.collector.api.kit import TOKEN, get, serving
from tests.collector.api.test_sse import source
from tests.feed.fakes import ended, noted, started
from tests.feed.serving import dial, hear_until, subscribe
from tests.waiting import aeventually


def test_the_feed_is_a_websocket_and_everything_else_is_read_by_get():
    with serving() as server:
        routes = server.reading.routes()
    assert [route.path for route in routes if isinstance(route, WebSocketRoute)] == ["/v1/feed"]
    assert all(isinstance(route, WebSocketRoute | Route) for route in routes)


async def test_what_one_sees_by_one_way_the_other_ways_show_too():
    with serving() as server:
        server.submit(started())
        async with source(server) as stream, AsyncClient(server.url, TOKEN) as client:
            await stream.until("snapshot_end")
            with dial(server) as feed:
                subscribe(feed)
                server.submit(noted(2, message="half way"))
                by_feed = hear_until(feed, "events")[-1]["events"][0]["operation"]
            by_stream = (await stream.until("events"))[-1].data["events"][0]["operation"]
            by_rest = (await get(server, "/v1/operations/nightly_load-1")).json
            by_client = await client.get("nightly_load-1")
        assert by_feed == by_stream
        assert {name: by_rest[name] for name in by_feed if name != "as_of_unix_ns"} == {
            name: value for name, value in by_feed.items() if name != "as_of_unix_ns"
        }
        assert by_client.revision == by_rest["revision"] == 2


async def test_the_sdks_client_waits_for_the_end_by_the_collector():
    with serving() as server:
        server.submit(started())
        async with AsyncClient(server.url, TOKEN) as client:
            waiting = asyncio.create_task(client.wait("nightly_load-1", "end", 30))
            await aeventually(lambda: server.client_count)
            server.submit(ended(2))
            news = await waiting
        assert news.reason == "ended"


async def test_readers_are_counted_and_gone_when_they_are():
    with serving() as server:
        async with source(server) as stream:
            await stream.until("snapshot_end")
            with dial(server) as feed:
                subscribe(feed)
                text = (await get(server, "/metrics")).body.decode()
                assert 'otelprogress_feed_clients{transport="websocket"} 1' in text
                assert 'otelprogress_feed_clients{transport="sse"} 1' in text
        await aeventually(lambda: server.call(lambda: len(server.reading.delivery)) == 0)


def test_a_second_drain_and_a_second_end_do_nothing_more():
    with serving() as server:
        server.run(server.reading.drain(0.1))
        server.run(server.reading.drain(0.1))
