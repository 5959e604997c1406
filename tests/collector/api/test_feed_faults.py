"""The feed's promises to the SDK's own client, while the network between them does what networks do."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct

import pytest

from otelprogress.feed.client import AsyncClient
from otelprogress.feed.connection import ServerLimits
from otelprogress_collector.auth.rate import Doorstep
from tests.collector.api.kit import TOKEN, serving
from tests.faults.proxy import FaultProxy, Plan
from tests.faults.test_feed_faults import random_plan
from tests.feed.fakes import noted, progressed, started
from tests.waiting import aeventually

NOTES = 600


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FAULT_SEED={seed}")
    return random.Random(seed)


@pytest.mark.parametrize("level", ["milestones", "ticks"])
async def test_random_faults_cost_no_durable_event_and_no_revision_goes_back(rng: random.Random, level: str):
    plans = [Plan(reset_down_at=5_000), *(random_plan(rng) for _ in range(40))]
    with FaultProxy(("", 0), lambda n: plans[n] if n < len(plans) else Plan()) as proxy:
        with serving(hosts=[f"127.0.0.1:{proxy.port}"]) as server:
            proxy.target = server.address
            client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.005, 0.02), rng=rng)
            seen: list[str] = []
            revisions: list[int] = []

            async def publish() -> None:
                server.submit(started())
                for number in range(2, NOTES + 2):
                    server.submit(noted(number, message=str(number)))
                    server.submit(progressed(number, total=NOTES))
                    if number % 10 == 0:
                        await asyncio.sleep(0.005)

            async def follow() -> None:
                async for event in watching:
                    revisions.append(event.revision)
                    if event.kind == "operation.noted":
                        seen.append(event.message)
                    if len(seen) == NOTES:
                        return

            async with client, client.watch(level=level) as watching, asyncio.timeout(60):
                following = asyncio.create_task(follow())
                await aeventually(lambda: watching.cursor)
                await asyncio.gather(publish(), following)
            assert seen == [str(number) for number in range(2, NOTES + 2)]
            assert revisions == sorted(set(revisions))
            assert watching.gaps == 0
            assert proxy.connections > 1
            await aeventually(lambda: not server.call(lambda: len(server.reading.delivery)))
            assert server.failures == 0


async def test_a_reader_that_was_closed_as_too_slow_comes_back_and_misses_nothing():
    plans = [Plan(stall_down_at=6_000)]
    with FaultProxy(("", 0), lambda n: plans[n] if n < len(plans) else Plan()) as proxy:
        limits = ServerLimits(write_stall_timeout_s=0.3)
        with serving(hosts=[f"127.0.0.1:{proxy.port}"], limits=limits) as server:
            proxy.target = server.address
            client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.01, 0.02))
            async with client, client.watch() as watching, asyncio.timeout(60):
                first = asyncio.ensure_future(anext(watching))
                await aeventually(lambda: watching.cursor)
                server.submit(started())
                await first
                number = 1
                while server.client_count:
                    if number < 20_000:
                        batch = [
                            noted(number + n, message=f"{number + n:05} " + "x" * 900) for n in range(1, 501)
                        ]
                        server.call(server.host.publish, *batch)
                        number += len(batch)
                    await asyncio.sleep(0.02)
                proxy.release()
                seen = 0
                async for event in watching:
                    seen += 1
                    assert event.message.startswith(f"{seen + 1:05} ")
                    if seen == number - 1:
                        break
                assert watching.gaps == 0
                assert proxy.connections >= 2


async def test_clients_that_vanish_in_every_state_leave_nothing_behind(rng: random.Random):
    with serving(doorstep=Doorstep(per_address=1_000)) as server:
        server.submit(started())
        request = (
            f"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n"
        ).encode()
        frames = [b'{"type":"hello","version":1}', b'{"type":"subscribe","id":"1","level":"ticks"}']
        script = b"".join(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text for text in frames)
        for number in range(2, 62):
            with socket.create_connection(server.address, timeout=10) as sock:
                cut = rng.randrange(len(request) + len(script) + 1)
                sock.sendall(request[:cut])
                if cut > len(request):
                    sock.recv(4096)
                    sock.sendall(script[: cut - len(request)])
                if rng.random() < 0.5:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                server.submit(noted(number))
                if rng.random() < 0.3:
                    await asyncio.sleep(0.005)
        await aeventually(lambda: server.call(lambda: not server.reading.feed._readers))
        assert (server.client_count, server.failures, server.call(lambda: len(server.reading.delivery))) == (
            0,
            0,
            0,
        )
        assert server.reading.feed._doorstep.count == 0
        async with AsyncClient(server.url, TOKEN) as client:
            view = await client.get("nightly_load-1")
            assert view.message == "a note"


async def test_a_restart_with_the_same_log_goes_on_where_each_client_stood():
    """The collector's address stays, its hub is what the store would give back."""
    with FaultProxy(("", 0)) as proxy:
        hosts = [f"127.0.0.1:{proxy.port}"]
        client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.01, 0.05))
        with serving(hosts=hosts) as first:
            proxy.target = first.address
            watching = client.watch()
            await watching.__aenter__()
            reading = asyncio.ensure_future(anext(watching))
            await aeventually(lambda: watching.cursor)
            first.submit(started())
            await reading
            hub = first.host.hub
        with serving(hosts=hosts, hub=hub) as second:
            second.submit(noted(2, message="while it was away"))
            proxy.target = second.address
            async with asyncio.timeout(30):
                event = await anext(watching)
            assert event.message == "while it was away"
            assert watching.gaps == 0
            await client.aclose()
