"""The feed's promises to a client, while the network between them does what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct

import pytest

from otelprogress.feed.client import AsyncClient
from otelprogress.feed.connection import ServerLimits
from tests.faults.proxy import FaultProxy, Plan
from tests.feed.fakes import noted, progressed, started
from tests.feed.serving import TOKEN, real_host, serving
from tests.waiting import aeventually

NOTES = 600


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FAULT_SEED={seed}")
    return random.Random(seed)


@contextlib.contextmanager
def through_a_proxy(plan_for, host, **options):
    with FaultProxy(("", 0), plan_for) as proxy:
        with serving(host, allowed_hosts=[f"127.0.0.1:{proxy.port}"], **options) as server:
            proxy.target = server.address
            yield proxy, server


def random_plan(rng: random.Random) -> Plan:
    offset = rng.randrange(1, 8_000)
    kind = rng.choice(["reset_down_at", "cut_down_at", "reset_up_at"])
    if kind == "reset_up_at":
        offset = rng.randrange(1, 300)  # less than a client says until it listens: each of them comes
    return Plan(**{kind: offset}, slice_bytes=rng.choice([65_536, 65_536, 1_000, 97]))


@pytest.mark.parametrize("level", ["milestones", "ticks"])
async def test_random_faults_cost_no_durable_event_and_no_revision_goes_back(rng: random.Random, level: str):
    host = real_host()
    plans = [random_plan(rng) for _ in range(40)]
    with through_a_proxy(lambda number: plans[number] if number < len(plans) else Plan(), host) as (proxy, _):
        client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.005, 0.02), rng=rng)
        seen: list[str] = []
        revisions: list[int] = []

        async def publish() -> None:
            host.submit(started())
            for number in range(2, NOTES + 2):
                host.submit(noted(number, message=str(number)))
                host.submit(progressed(number, total=NOTES))
                if number % 10 == 0:
                    await asyncio.sleep(0.005)

        async def follow() -> None:
            async for event in watching:
                revisions.append(event.revision)
                if event.kind == "operation.noted":
                    seen.append(event.message)
                if len(seen) == NOTES:
                    return

        # A feed that is named must answer the first time: faults begin with the second connection.
        plans[0] = Plan(reset_down_at=5_000)
        async with client, client.watch(level=level) as watching, asyncio.timeout(60):
            following = asyncio.create_task(follow())
            await aeventually(lambda: watching.cursor)
            await asyncio.gather(publish(), following)
        assert seen == [str(number) for number in range(2, NOTES + 2)]
        assert revisions == sorted(set(revisions))
        assert watching.gaps == 0
        assert proxy.connections > 1  # the first fault is planned; how many more fit into the run is chance


async def test_a_reader_that_was_closed_as_too_slow_comes_back_and_misses_nothing():
    host = real_host()
    limits = ServerLimits(write_stall_timeout_s=0.3, close_timeout_s=0.2)
    plans = [Plan(stall_down_at=6_000)]
    with through_a_proxy(
        lambda number: plans[number] if number < len(plans) else Plan(), host, limits=limits
    ) as (proxy, server):
        client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.01, 0.02))
        async with client, client.watch() as watching, asyncio.timeout(60):
            first = asyncio.ensure_future(anext(watching))
            await aeventually(lambda: watching.cursor)
            host.submit(started())
            await first
            # More than all buffers on the way hold, so that the server notices.
            number = 1
            while server.client_count:
                for _ in range(500 if number < 20_000 else 0):
                    number += 1
                    host.submit(noted(number, message=f"{number:05} " + "x" * 900))
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
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        request = (
            f"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n"
        ).encode()
        frames = b"".join(
            _masked(text)
            for text in (b'{"type":"hello","version":1}', b'{"type":"subscribe","id":"1","level":"ticks"}')
        )
        script = request + frames
        for number in range(2, 62):
            sock = socket.create_connection(server.address)
            sock.sendall(script[: rng.randrange(len(script) + 1)])
            if rng.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            host.submit(noted(number))
            if rng.random() < 0.3:
                await asyncio.sleep(0.005)
            sock.close()
        await aeventually(lambda: not server._connections)
        assert (server.client_count, server.stats.failures) == (0, 0)
        async with AsyncClient(server.url, TOKEN) as client:
            view = await client.get("nightly_load-1")
            assert view.message == "a note"


def _masked(payload: bytes) -> bytes:
    """A text frame as a client sends it, under a mask of zeros."""
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload)]) + b"\0\0\0\0" + payload
