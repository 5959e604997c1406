from __future__ import annotations

import asyncio
import gc

import pytest

from otelprogress.exceptions import FeedDenied, FeedUnavailable, InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.feed.client import AsyncClient
from tests.faults.proxy import FaultProxy, Plan
from tests.feed.fakes import ended, noted, started
from tests.feed.serving import TOKEN, real_host, serving
from tests.model import digest_grammar
from tests.waiting import aeventually


def client_of(server, **options) -> AsyncClient:
    return AsyncClient(server.url, TOKEN, **({"backoff_s": (0.01, 0.05)} | options))


async def told(digests) -> digest_grammar.Digest:
    async with asyncio.timeout(20):
        return digest_grammar.parse((await anext(digests)).text)


async def test_the_full_state_comes_first_and_then_what_changed():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            digests = client.digests(max_rate_hz=10.0)
            first = await told(digests)
            assert (first.full, [one.state for one in first.operations]) == (True, ["RUN"])
            host.submit(noted(2, message="half of it"))
            assert (await told(digests)).operations[0].texts == ["half of it"]
            host.submit(ended(3))
            last = await told(digests)
            assert (last.why, last.operations[0].state) == ("ended", "DONE")
            assert digests.gaps == 0


@pytest.mark.parametrize("short", [False, True])
async def test_another_watch_goes_on_where_the_first_one_was(short: bool):
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            async with client.digests() as digests:
                first = await anext(digests)
            host.submit(noted(2, message="missed", level="warning"))
            position = first.text.split(" ")[0] if short else first.cursor
            parsed = await told(client.digests(cursor=position))
            assert (parsed.full, parsed.why, parsed.operations[0].texts) == (False, "warning", ["missed"])


async def test_a_cursor_of_another_log_is_a_gap():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            digests = client.digests(cursor="nonsense")
            assert (await told(digests)).full
            assert digests.gaps == 1


async def test_a_broken_connection_costs_nothing():
    host = real_host()
    host.submit(started())
    plans = [Plan(cut_down_at=1500), Plan(reset_down_at=1800)]
    with FaultProxy(("", 0), lambda number: plans[number] if number < len(plans) else Plan()) as proxy:
        with serving(host, allowed_hosts=[f"127.0.0.1:{proxy.port}"]) as server:
            proxy.target = server.address
            client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.01, 0.02))
            async with client:
                digests = client.digests(max_rate_hz=10.0)
                assert (await told(digests)).full
                texts: list[str] = []
                for n in range(2, 16):
                    host.submit(noted(n, message=f"note {n}", level="warning"))
                    texts += [text for one in (await told(digests)).operations for text in one.texts]
                assert texts == [f"note {n}" for n in range(2, 16)]
                assert proxy.connections == 3
                assert digests.gaps == 0


async def test_what_is_wrong_is_an_error():
    with serving() as server:
        async with client_of(server) as client:
            with pytest.raises(InvalidValue, match="level is one of"):
                client.digests(level="all")
            with pytest.raises(InvalidValue, match="max_tokens"):
                await anext(client.digests(max_tokens=5))
            with pytest.raises(InvalidValue, match="no such state"):
                await anext(client.digests(state="done"))
        async with AsyncClient(server.url, "wrong") as client:
            with pytest.raises(FeedDenied):
                await anext(client.digests())
    async with AsyncClient("ws://127.0.0.1:9", TOKEN) as client:
        with pytest.raises(FeedUnavailable):
            await anext(client.digests())


async def test_without_an_address_it_is_about_the_only_feed_there_is():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with AsyncClient() as client:
            with pytest.raises(FeedUnavailable, match="no process of yours"):
                await anext(client.digests())
            runtime_file.write(server.url, TOKEN)
            assert [one.handle for one in (await told(client.digests())).operations] == ["nightly_load-1"]


async def test_of_several_feeds_one_has_to_be_named(monkeypatch: pytest.MonkeyPatch):
    from otelprogress.feed import client as module
    from otelprogress.feed.discovery import FeedTarget

    host = real_host()
    host.submit(started())
    with serving(host) as server:
        process = FeedTarget(url="ws://127.0.0.1:9/v1/feed", token=TOKEN)
        collector = FeedTarget(url=f"{server.url}/v1/feed", token=TOKEN, kind="collector")
        async with AsyncClient() as client:
            monkeypatch.setattr(module, "all_feeds", lambda: [process, process])
            with pytest.raises(InvalidValue, match="name one of"):
                await anext(client.digests())
            monkeypatch.setattr(module, "all_feeds", lambda: [process, collector])
            assert [one.handle for one in (await told(client.digests())).operations] == ["nightly_load-1"]


async def test_it_ends_with_its_feed():
    with serving() as server:
        async with client_of(server) as client:
            digests = client.digests()
            await told(digests)
            waiting = asyncio.create_task(anext(digests, None))
            await asyncio.sleep(0)
            await digests.aclose()
            assert await waiting is None
            assert await anext(digests, None) is None


async def test_one_that_is_forgotten_leaves_no_task():
    with serving() as server:
        async with client_of(server) as client:
            digests = client.digests()
            await told(digests)
            task = digests._following
            del digests
            gc.collect()
            await aeventually(task.done)
