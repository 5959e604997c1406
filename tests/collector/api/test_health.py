"""Alive and ready are two things."""

from __future__ import annotations

from tests.collector.api.kit import get, serving


async def test_the_process_is_alive_also_while_it_is_not_ready():
    with serving(ready=lambda: "the store refuses: the disk is full") as server:
        alive = await get(server, "/healthz", token=None)
        assert (alive.status, alive.json) == (200, {"status": "alive"})
        ready = await get(server, "/readyz", token=None)
        assert (ready.status, ready.media_type) == (503, "application/problem+json")
        assert ready.json["detail"] == "the store refuses: the disk is full"
        assert int(ready.headers["Retry-After"]) <= 5


async def test_it_is_ready_until_it_drains():
    with serving() as server:
        assert (await get(server, "/readyz", token=None)).json == {"status": "ready"}
        server.run(server.reading.drain(0.1))
        assert (await get(server, "/readyz", token=None)).json["detail"] == "the collector drains"


async def test_whoever_starts_and_stops_it_may_call_it_by_any_name():
    with serving() as server:
        answer = await get(server, "/healthz", token=None, headers={"Host": "10.1.2.3:4318"})
        assert answer.status == 200
