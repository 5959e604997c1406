"""Two hundred commands with lost and doubled frames: each is applied once, and each is told what became of it.

Over the feed of a process, and through a collector to a process: in the network between client, host and process single
frames are lost, frames come twice, and connections break.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import otelprogress as progress
from otelprogress.exceptions import UnknownOperation
from otelprogress.feed import command_client
from otelprogress.feed.command_client import send_command
from otelprogress.feed.discovery import FeedTarget, all_feeds
from otelprogress.feed.watching import open_connection
from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.protocol.messages import Command, CommandStatus
from tests.collector.collecting import CollectorProcess
from tests.faults.frame_proxy import Fate, FrameProxy
from tests.waiting import aeventually

ROOT = Path(__file__).parents[2]
COMMANDS = 200
AT_ONCE = 16
_FATES: tuple[Fate, ...] = ("pass", "double", "lose", "reset")
_OF_COMMANDS = (b'"type":"command"', b'"type":"command_status"')


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FAULT_SEED={seed}")
    return random.Random(seed)


LINK_STANDS_S = 1.5
"""The worker link breaks no more often: a process that is away for longer than a second is lost, and rightly so."""


def faulty(rng: random.Random) -> FrameProxy:
    """Of all that carries a command or its answer every second frame suffers."""
    link_broke_at_s = 0.0

    def judge(way: str, text: bytes) -> Fate:
        nonlocal link_broke_at_s
        kind = next((kind for kind in _OF_COMMANDS if kind in text), None)
        if kind is None:
            return "pass"
        fate = rng.choices(_FATES, (50, 25, 12, 13))[0]
        to_worker = kind == _OF_COMMANDS[way == "up"]
        if fate == "reset" and to_worker:
            if time.monotonic() - link_broke_at_s < LINK_STANDS_S:
                return "lose"
            link_broke_at_s = time.monotonic()
        return fate

    return FrameProxy(("", 0), judge)


@contextmanager
def program(name: str, argument: str = "", **environ: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.control_programs", name, argument],
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def there(client: progress.AsyncClient, handle: str) -> OperationView:
    async def found() -> OperationView | None:
        try:
            return await client.get(handle)
        except (UnknownOperation, progress.FeedUnavailable):
            return None

    return await aeventually(found, 40)


class Setting:
    """A program, its host, and a proxy before it."""

    def __init__(
        self,
        client: progress.AsyncClient,
        process: subprocess.Popen[str],
        target: FeedTarget,
        proxy: FrameProxy,
        view: OperationView,
    ) -> None:
        self.client = client
        """Past the proxy."""
        self.process = process
        self.target = target
        """Through it."""
        self.proxy = proxy
        self.view = view


@asynccontextmanager
async def over_the_feed(rng: random.Random, _folder: Path, name: str) -> AsyncIterator[Setting]:
    with faulty(rng) as proxy, program("counting") as process:
        async with progress.AsyncClient() as client:
            view = await there(client, f"{name}-1")
            (feed,) = await asyncio.to_thread(all_feeds)
            host, _, port = feed.url.removeprefix("ws://").partition("/")[0].rpartition(":")
            proxy.target = (host, int(port))
            yield Setting(client, process, _through(proxy, feed.token), proxy, view)


@asynccontextmanager
async def through_a_collector(rng: random.Random, folder: Path, name: str) -> AsyncIterator[Setting]:
    with CollectorProcess(folder / "data") as collector, faulty(rng) as proxy:
        proxy.target = ("127.0.0.1", collector.http_port)
        environ = {
            # The link suffers; events come another way.
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTELPROGRESS_COLLECTOR": f"http://127.0.0.1:{proxy.port}",
            "OTELPROGRESS_FEED": "off",
            "OTELPROGRESS_TOKEN_FILE": str(folder / "data" / "token"),
        }
        async with progress.AsyncClient(collector.url.replace("http", "ws"), collector.token) as client:
            with program("counting", **environ) as process:
                view = await there(client, f"{name}-1")
                yield Setting(client, process, _through(proxy, collector.token), proxy, view)


def _through(proxy: FrameProxy, token: str) -> FeedTarget:
    return FeedTarget(url=f"ws://127.0.0.1:{proxy.port}/v1/feed", token=token)


async def send_all(setting: Setting, commands: int, rng: random.Random) -> list[CommandStatus]:
    places = asyncio.Semaphore(AT_ONCE)

    async def send(number: int) -> CommandStatus:
        command = Command(command_id=f"c{number}", operation=setting.view.id, action="step", deadline_s=120.0)
        async with places:
            while True:
                status = await send_command(
                    setting.target,
                    command,
                    timeout_s=120.0,
                    backoff_s=(0.005, 0.05),
                    rng=random.Random(rng.random()),
                )
                if status.status != "no_worker":  # its link is just being made anew
                    return status
                await asyncio.sleep(0.05)

    return await asyncio.gather(*map(send, range(commands)))


async def each_is_applied_once(setting: Setting, commands: int, rng: random.Random) -> None:
    words: Counter[tuple[str, str]] = Counter()
    async with setting.client.watch(subtree=setting.view.id, roots=False) as watching:

        async def listen() -> None:
            event: FeedEvent
            async for event in watching:
                if event.control_id is not None:
                    words[event.control_id, event.kind] += 1
                if len(words) == commands:
                    return

        listening = asyncio.create_task(listen())
        await aeventually(lambda: watching.cursor)
        statuses = await send_all(setting, commands, rng)
        assert {status.status for status in statuses} <= {"accepted", "duplicate"}
        async with asyncio.timeout(120):
            await listening
    assert words == {(f"c{number}", "control.applied"): 1 for number in range(commands)}
    assert min(setting.proxy.fates[fate] for fate in ("lose", "double", "reset")) > 0
    # Sent once more, by the calm way, each is told that.
    again = await setting.client.command(setting.view.id, "step", command_id="c0")
    assert (again.status, again.message) == ("duplicate", "accepted before; applied")
    assert (await setting.client.command(setting.view.id, "cancel")).status == "accepted"
    assert await asyncio.to_thread(setting.process.stdout.readline) == f"done {commands}\n"


@pytest.mark.parametrize("setting", [over_the_feed, through_a_collector])
async def test_two_hundred_commands_with_lost_and_doubled_frames_are_each_applied_once(
    rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting
):
    monkeypatch.setattr(command_client, "ANSWER_TIMEOUT_S", 1.0)
    async with setting(rng, tmp_path, "count") as placed:
        await each_is_applied_once(placed, COMMANDS, rng)


# --- what else may happen between a command and its effect ---------------------------------------------------------


@asynccontextmanager
async def calm(
    folder: Path, name: str, handle: str
) -> AsyncIterator[tuple[CollectorProcess, progress.AsyncClient, subprocess.Popen[str]]]:
    """A program that reports to a collector, and nothing between them."""
    with CollectorProcess(folder / "data") as collector:
        environ = {
            "OTELPROGRESS_COLLECTOR": collector.url,
            "OTELPROGRESS_FEED": "off",
            "OTELPROGRESS_TOKEN_FILE": str(folder / "data" / "token"),
        }
        async with progress.AsyncClient(collector.url.replace("http", "ws"), collector.token) as client:
            with program(name, **environ) as process:
                await there(client, handle)
                yield collector, client, process


async def test_a_worker_that_dies_between_accept_and_apply_is_told_as_lost(tmp_path: Path):
    async with calm(tmp_path, "stuck", "stuck-1") as (_, client, process):
        waiting = asyncio.create_task(client.command_and_wait("stuck-1", "cancel", command_id="c1"))

        async def accepted() -> bool:
            again = await client.command("stuck-1", "cancel", command_id="c1")
            return again.status == "duplicate" and "not known yet" in again.message

        await aeventually(accepted)
        process.kill()
        told = await waiting
        assert told.refusal == "worker_lost"
        again = await client.command("stuck-1", "cancel", command_id="c1")
        assert (again.status, again.message) == ("duplicate", "accepted before; refused: worker_lost")
        assert (await client.command("stuck-1", "cancel")).status == "ended"


async def test_a_process_that_dies_between_accept_and_apply_and_takes_its_feed_with_it_is_told_as_lost():
    with program("stuck") as process:
        async with progress.AsyncClient() as client:
            await there(client, "stuck-1")
            waiting = asyncio.create_task(
                client.command_and_wait("stuck-1", "cancel", command_id="c1", timeout_s=60.0)
            )

            async def accepted() -> bool:
                return "not known yet" in (await client.command("stuck-1", "cancel", command_id="c1")).message

            await aeventually(accepted)
            process.kill()
            await asyncio.to_thread(process.wait)
            told = await waiting
            assert (told.refusal, told.applied) == ("worker_lost", False)
            assert (told.operation.state, told.operation.lost_detector) == ("lost", "pid")
            with pytest.raises(progress.FeedUnavailable):
                await client.command("stuck-1", "cancel")


async def test_a_stopped_process_is_said_not_to_answer():
    with program("stuck") as process:
        async with progress.AsyncClient() as client:
            await there(client, "stuck-1")
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(progress.FeedUnavailable, match=f"no feed answers: process {process.pid}"):
                await client.command_and_wait("stuck-1", "cancel", timeout_s=2.0)


@pytest.mark.parametrize("stopped", [False, True], ids=["busy", "stopped"])
async def test_a_command_to_a_worker_that_does_not_come_by_expires(tmp_path: Path, stopped: bool):
    async with calm(tmp_path, "stuck", "stuck-1") as (_, client, process):
        if stopped:
            process.send_signal(signal.SIGSTOP)
        told = await client.command_and_wait("stuck-1", "cancel", deadline_s=0.5)
        assert (told.status.status, told.refusal) == ("accepted", "expired")
        assert (await client.get("stuck-1")).live


async def test_a_command_over_the_feed_of_a_process_that_does_not_come_by_expires():
    with program("stuck"):
        async with progress.AsyncClient() as client:
            await there(client, "stuck-1")
            told = await client.command_and_wait("stuck-1", "cancel", deadline_s=0.5)
            assert (told.status.status, told.refusal) == ("accepted", "expired")
            assert (await client.get("stuck-1")).live


async def test_a_collector_that_is_killed_and_comes_back_has_each_command_applied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command_client, "ANSWER_TIMEOUT_S", 1.0)
    async with calm(tmp_path, "counting", "count-1") as (collector, client, process):
        view = await client.get("count-1")
        target = FeedTarget(url=f"ws://127.0.0.1:{collector.http_port}/v1/feed", token=collector.token)
        answered = 0

        async def send(number: int) -> None:
            nonlocal answered
            command = Command(command_id=f"c{number}", operation=view.id, action="step", deadline_s=120.0)
            # A command is sent until its host says what became of it: one that was killed may have forgotten it.
            while True:
                try:
                    status = await send_command(target, command, timeout_s=60.0, backoff_s=(0.01, 0.1))
                except progress.FeedUnavailable:
                    continue
                answered += status.status == "accepted"
                if status.message == "accepted before; applied":
                    return
                assert status.status in {"accepted", "duplicate", "no_worker"}, status
                await asyncio.sleep(0.1)

        sending = [asyncio.create_task(send(number)) for number in range(40)]
        await aeventually(lambda: answered)
        await asyncio.to_thread(collector.kill)
        await asyncio.to_thread(collector.start)
        async with asyncio.timeout(90):
            await asyncio.gather(*sending)

        async def cancelled() -> bool:  # its link may still be on its way back
            return (await client.command(view.id, "cancel")).status == "accepted"

        await aeventually(cancelled, 30)
        assert await asyncio.to_thread(process.stdout.readline) == "done 40\n"


async def test_whoever_abandons_a_wait_cancels_nothing(tmp_path: Path):
    async with calm(tmp_path, "counting", "count-1") as (collector, client, process):
        view = await client.get("count-1")
        for number in range(5):  # gone as soon as it has spoken, without a farewell
            connection = await open_connection(
                FeedTarget(url=f"ws://127.0.0.1:{collector.http_port}/v1/feed", token=collector.token)
            )
            await connection.send('{"type":"hello","version":1}')
            await connection.recv()
            command = {"command_id": f"c{number}", "operation": view.id, "action": "step"}
            await connection.send(json.dumps({"type": "command", **command}))
            connection.transport.abort()
        waiting = asyncio.create_task(client.command_and_wait(view.id, "step", command_id="waited for"))
        await asyncio.sleep(0)
        for task in (waiting, asyncio.create_task(client.wait(view.id))):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        async def settled() -> bool:
            statuses = [await client.command(view.id, "step", command_id=f"c{number}") for number in range(5)]
            return all(status.message == "accepted before; applied" for status in statuses)

        await aeventually(settled, 30)
        assert (await client.get(view.id)).live
        assert (await client.command(view.id, "cancel")).status == "accepted"
        line = await asyncio.to_thread(process.stdout.readline)
        assert line in {"done 5\n", "done 6\n"}, "the one that was waited for may not have been sent"
