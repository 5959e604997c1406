"""A disk runs full under a whole collector: it refuses clearly, goes on serving, and takes again by itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc

from otelprogress.feed.client import AsyncClient
from otelprogress.model import semconv
from tests.collector.collecting import ROOT, CollectorProcess
from tests.collector.e2e.small_disk import fill_up, small_disk
from tests.collector.e2e.writing import Writer, ask, send
from tests.otel.otlp_server import HttpReceiver
from tests.waiting import aeventually, eventually

APP = """
import sys, threading, time
import otelprogress as progress
progress.configure(feed=False, view="off", history=False, service_name="etl", shutdown_timeout_s=20)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
said = 0
with progress.operation("survivor") as operation:
    while not stop.wait(0.02):
        said += 1
        operation.note(str(said))
        if said == 10:
            print("begun", flush=True)
progress.shutdown()
print(said, flush=True)
"""
LONG = "x" * 900
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


@contextmanager
def collector_on_small_disk(tmp_path: Path, **environment: str) -> Iterator[tuple[CollectorProcess, Path]]:
    with small_disk(tmp_path / "disk", megabytes=6) as disk:
        collector = CollectorProcess(disk / "data", **environment)
        collector.log = tmp_path / "collector.log"
        with collector:
            yield collector, disk / "theirs"
            assert collector.stop() == 0
    assert "Traceback" not in collector.log.read_text()


@asynccontextmanager
async def hearing(url: str, token: str) -> AsyncIterator[list]:
    """All milestones from now on, as they come."""
    heard: list = []
    async with AsyncClient(url, token, backoff_s=(0.05, 0.5)) as client, client.watch(roots=False) as watch:

        async def follow() -> None:
            while True:
                heard.append(await anext(watch))

        following = asyncio.create_task(follow())
        try:
            yield heard
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def until_refused(port: int, writer: Writer) -> tuple[bytes, int]:
    """Notes, one at a time, until one is refused: that one, and how many were accepted."""
    for number in range(10_000):
        body = writer.noted(f"{number + 1} {LONG}")
        if (answer := send(port, body)).status != 200:
            assert answer.status == 503, answer
            assert 1 <= int(answer.headers["Retry-After"]) <= 5
            return body, number
    raise AssertionError("the disk never ran full")


def over_grpc(collector: CollectorProcess, body: bytes) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel:
        try:
            channel.unary_unary(EXPORT)(body, timeout=20, metadata=())
        except grpc.RpcError as refused:
            return refused.code()
    return grpc.StatusCode.OK


async def test_it_refuses_with_the_reason_serves_on_and_takes_again_without_loss_or_doubling(tmp_path: Path):
    with (
        HttpReceiver() as backend,
        collector_on_small_disk(tmp_path, OTELPROGRESS_COLLECTOR_EXPORT_OTLP=backend.url) as (
            collector,
            theirs,
        ),
    ):
        url, port, writer = collector.url.replace("http", "ws", 1), collector.http_port, Writer()
        assert send(port, writer.started()).status == 200
        async with hearing(url, collector.token) as heard:
            await aeventually(lambda: heard)
            await asyncio.to_thread(fill_up, theirs)
            refused, accepted = await asyncio.to_thread(until_refused, port, writer)

            not_ready = await asyncio.to_thread(ask, port, "/readyz")
            assert not_ready.status == 503
            assert b"the store takes nothing at the moment" in not_ready.body
            assert (await asyncio.to_thread(ask, port, "/healthz")).status == 200
            code = await asyncio.to_thread(over_grpc, collector, refused)
            assert code is grpc.StatusCode.UNAVAILABLE
            # Who reads is served as before: a list, and a new subscription.
            listed = await asyncio.to_thread(collector.get, "/v1/operations")
            assert [one["name"] for one in json.loads(listed)["operations"]] == ["nightly load"]
            async with AsyncClient(url, collector.token) as another:
                assert [one.name for one in await another.list()] == ["nightly load"]

            theirs.unlink()
            await asyncio.to_thread(eventually, lambda: collector.ready, 30)
            # As a sender that got no good answer does, and one that missed the good answer.
            for _ in range(2):
                assert (await asyncio.to_thread(send, port, refused)).status == 200
            assert (await asyncio.to_thread(send, port, writer.ended())).status == 200
            await aeventually(lambda: heard[-1].kind == "operation.ended")
        numbers = [int(each.message.split()[0]) for each in heard if each.kind == "operation.noted"]
        assert numbers == list(range(1, accepted + 2))
        # A backend has what was accepted at least once: its queue stands on the same disk.
        await aeventually(lambda: set(numbers) <= _noted(backend), 30)

        collector.kill()
        collector.start()
        [seen] = json.loads(collector.get("/v1/operations"))["operations"]
        assert seen["state"] == "succeeded"


async def test_an_app_that_reports_through_the_outage_loses_nothing(tmp_path: Path):
    with collector_on_small_disk(tmp_path) as (collector, theirs):
        url, port, other = collector.url.replace("http", "ws", 1), collector.http_port, Writer("other")
        send(port, other.started())
        app = subprocess.Popen(
            [sys.executable, "-c", APP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OTELPROGRESS_COLLECTOR": collector.url, "PYTHONPATH": str(ROOT)},
        )
        try:
            async with hearing(url, collector.token) as heard:
                assert await asyncio.to_thread(app.stdout.readline) == "begun\n"
                await asyncio.to_thread(fill_up, theirs)
                await asyncio.to_thread(until_refused, port, other)
                # Its next request meets a full disk.
                refused = 'otelprogress_collector_requests_refused_total{reason="store"}'
                await asyncio.to_thread(
                    eventually, lambda: _metric(collector.get("/metrics"), refused) >= 3, 20, every_s=0.2
                )
                theirs.unlink()
                await asyncio.to_thread(eventually, lambda: collector.ready, 30)
                said, _ = await asyncio.to_thread(app.communicate, "stop\n", 60)
                ended = lambda: [
                    one for one in heard if one.kind == "operation.ended" and one.operation.name == "survivor"
                ]
                await aeventually(ended, 30)
        finally:
            app.kill()
            app.wait()
    notes = [
        one.message for one in heard if one.kind == "operation.noted" and one.operation.name == "survivor"
    ]
    first = int(notes[0]) if notes else 0
    assert first <= 10, "the watch was there before the outage"
    assert notes == [str(number) for number in range(first, int(said) + 1)]


def _noted(backend: HttpReceiver) -> set[int]:
    return {
        int(record.body.string_value.split()[0])
        for record in backend.log_records()
        if record.event_name == semconv.OPERATION_NOTED
    }


def _metric(page: bytes, name: str) -> float:
    values = [float(line.rpartition(" ")[2]) for line in page.decode().splitlines() if line.startswith(name)]
    assert values, f"no {name} in {page.decode()}"
    return sum(values)
