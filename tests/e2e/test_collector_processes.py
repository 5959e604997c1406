"""Applications and their processes with a real collector: seen once, linked each for itself, nothing lost in an outage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from otelprogress.feed.client import AsyncClient, Client, Watch
from otelprogress.model.events import FeedEvent, OperationView, State
from tests.collector.collecting import CollectorProcess, free_port
from tests.waiting import aeventually, eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectorProcess]:
    one = CollectorProcess(tmp_path / "collector")
    with one:
        monkeypatch.setenv("OTELPROGRESS_COLLECTOR", one.url)
        yield one


class Program:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, f"it ended with {self.process.wait(30)}"
        return line

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def running(
    name: str, *args: str, module: str = "tests.e2e.collector_programs", **environ: str
) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-m", module, name, *args],
        cwd=ROOT,
        env=os.environ | environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process)
        finally:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ()
            for each in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()


def at_collector(collector: CollectorProcess, **clauses: Any) -> list[OperationView]:
    """What it knows, all of it."""
    with Client(collector.url, collector.token) as client:
        return client.list(roots=False, **clauses)


def merged() -> list[OperationView]:
    """What a reader sees who reads everything there is."""
    with Client() as client:
        return client.list(roots=False)


def named(views: list[OperationView], name: str) -> list[OperationView]:
    return [view for view in views if view.name == name]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_processes_of_a_pool_are_one_tree_at_the_collector_and_each_is_seen_once(
    method: str, collector: CollectorProcess
):
    with running("executor", method, module="tests.e2e.process_programs") as program:
        assert program.read() == "ready"

        def all_there() -> list[OperationView]:
            found = at_collector(collector)
            ended = [view for view in named(found, "resize") if view.state is State.SUCCEEDED]
            return found if len(ended) == 8 and named(found, "album") else []

        there = eventually(all_there, 60)
        (album,) = named(there, "album")
        assert {view.parent_id for view in named(there, "resize")} == {album.id}
        assert len(there) == 9
        assert sorted(view.id for view in merged()) == sorted(view.id for view in there)
        assert {view.handle for view in merged()} == {view.handle for view in there}
        program.go_on()
        assert program.process.wait(60) == 0
    assert eventually(lambda: {view.state for view in at_collector(collector)} == {State.SUCCEEDED})


def test_a_killed_worker_of_a_pool_is_lost_at_the_collector_by_its_own_link(collector: CollectorProcess):
    with running("pool", "spawn", module="tests.e2e.process_programs") as program:
        assert program.read() == "ready"

        def lost() -> list[OperationView]:
            return [view for view in at_collector(collector) if view.state is State.LOST]

        (view,) = eventually(lost, 30)
        # Of its own words some may have died with it: then its parent says what is known of it.
        assert (view.name, view.title) == ("resize", "resize 3")
        assert view.lost_detector == "link"
        assert eventually(lambda: len(named(at_collector(collector), "resize")) == 8)
        assert len([each for each in at_collector(collector) if each.state is State.LOST]) == 1
        program.go_on()
        assert program.process.wait(60) == 0


def test_a_killed_application_is_lost_while_its_forked_child_lives(collector: CollectorProcess):
    with running("forking", module="tests.e2e.process_programs") as program:
        child = psutil.Process(int(program.read()))
        eventually(lambda: named(at_collector(collector), "album"))
        eventually(lambda: len(linked(collector)) >= 1)
        program.process.kill()
        (view,) = eventually(
            lambda: [view for view in at_collector(collector) if view.state is State.LOST], 30
        )
        assert view.lost_detector == "link"
        assert [each.state for each in merged()] == [State.LOST]
        assert child.is_running()
        child.kill()


def linked(collector: CollectorProcess) -> list[str]:
    """The writers whose TCP connections to the collector's port stand (feed clients of this test are none)."""
    connections = psutil.Process(collector.pid).net_connections("tcp")
    here = os.getpid()
    mine = {
        connection.laddr.port
        for connection in psutil.Process(here).net_connections("tcp")
        if connection.laddr
    }
    return [
        str(connection.raddr.port)
        for connection in connections
        if connection.status == psutil.CONN_ESTABLISHED
        and connection.laddr.port == collector.http_port
        and connection.raddr.port not in mine
    ]


async def notes_until_the_end(watching: Watch) -> list[str | None]:
    """The notes that come as events, up to the outcome."""
    seen: list[FeedEvent] = []
    async with asyncio.timeout(90):
        async for event in watching:
            seen.append(event)
            if not event.operation.live:
                break
    await watching.aclose()
    return [event.message for event in seen if event.kind == "operation.noted"]


@pytest.mark.parametrize("feed", ["127.0.0.1:0", "off"])
async def test_a_watch_of_everything_shows_each_event_of_an_application_once(
    feed: str, collector: CollectorProcess
):
    async with AsyncClient(backoff_s=(0.01, 0.1)) as client:
        watching = client.watch()
        reading = asyncio.create_task(notes_until_the_end(watching))
        await aeventually(lambda: watching.cursor, 30)
        with running("noting", "50", OTELPROGRESS_FEED=feed) as program:
            assert await asyncio.to_thread(program.read) == "ready"
            program.go_on()
            assert await asyncio.to_thread(program.read) == "half"
            program.go_on()
            notes = await reading
            assert await asyncio.to_thread(program.process.wait, 60) == 0
    assert notes == [f"note {n}" for n in range(100)]


def test_somebody_who_watches_gets_ticks_more_often_than_once_a_second(collector: CollectorProcess):
    async def ticks_in(seconds: float) -> int:
        count = 0
        async with AsyncClient(collector.url, collector.token) as client:
            watching = client.watch(level="ticks", max_rate_hz=10.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for event in watching:
                        count += event.kind == "operation.progressed"
            await watching.aclose()
        return count

    with running("steady") as program:
        assert program.read() == "ready"
        eventually(lambda: at_collector(collector))
        # Of a plain rate of one a second there would be four or five.
        assert asyncio.run(ticks_in(4.0)) >= 8
        program.go_on()
        assert program.process.wait(60) == 0


@pytest.mark.parametrize("spool", ["in memory", "on disk"])
async def test_an_outage_of_the_collector_costs_nothing_and_keeps_the_order(
    spool: str, collector: CollectorProcess, tmp_path: Path
):
    environ = {"OTELPROGRESS_SPOOL_DIR": str(tmp_path / "spools")} if spool == "on disk" else {}
    client = AsyncClient(collector.url, collector.token, backoff_s=(0.01, 0.1))
    async with client:
        watching = client.watch()
        reading = asyncio.create_task(notes_until_the_end(watching))
        await aeventually(lambda: watching.cursor, 30)
        with running("noting", "200", OTELPROGRESS_FEED="off", **environ) as program:
            assert await asyncio.to_thread(program.read) == "ready"
            await asyncio.to_thread(eventually, lambda: at_collector(collector))
            collector.kill()
            program.go_on()
            assert await asyncio.to_thread(program.read) == "half"
            await asyncio.to_thread(collector.start)
            program.go_on()
            assert await asyncio.to_thread(program.process.wait, 60) == 0
        assert await reading == [f"note {n}" for n in range(400)]
    (view,) = at_collector(collector)
    assert (view.state, view.incomplete) == (State.SUCCEEDED, False)


def test_what_a_killed_application_left_on_disk_its_next_start_delivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    collector = CollectorProcess(tmp_path / "collector")
    spools = tmp_path / "spools"
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR", collector.url)
    monkeypatch.setenv("OTELPROGRESS_SPOOL_DIR", str(spools))
    with running("spooling", "300") as program:
        assert program.read() == "ready"
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
    with collector, running("second_life") as program:
        assert program.read() == "ready"

        def delivered() -> list[OperationView]:
            return [view for view in at_collector(collector) if view.message == "note 299"]

        (view,) = eventually(delivered, 30)
        assert view.name == "first life"
        assert not view.incomplete
        program.go_on()
        assert program.process.wait(60) == 0
        assert list(spools.iterdir()) == []


@pytest.mark.parametrize("dead", ["nobody listens", "it accepts and never answers", "it stands still"])
def test_an_exit_waits_no_longer_than_it_may_for_a_collector_that_is_dead(
    dead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with contextlib.ExitStack() as stack:
        port = free_port()
        if dead == "it accepts and never answers":
            tarpit = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = tarpit.getsockname()[1]
        elif dead == "it stands still":
            collector = stack.enter_context(CollectorProcess(tmp_path / "collector"))
            port = collector.http_port
        monkeypatch.setenv("OTELPROGRESS_COLLECTOR", f"http://127.0.0.1:{port}")
        with running("leaving") as program:
            assert program.read() == "ready"
            if dead == "it stands still":
                os.kill(collector.pid, signal.SIGSTOP)
            program.go_on()
            done, at_s = program.read().split()
            assert done == "done"
            assert program.process.wait(30) == 0
            # Two seconds are promised; a busy machine may need a few to take a process down.
            assert time.monotonic() - float(at_s) < 6
        if dead == "it stands still":
            os.kill(collector.pid, signal.SIGCONT)
