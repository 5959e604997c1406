"""Clients that read the local processes and a collector: real feeds, the collector's played by a second one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otelprogress.exceptions import AmbiguousOperation
from otelprogress.feed import runtime_file
from otelprogress.feed.client import AsyncClient
from otelprogress.feed.history import History
from otelprogress.feed.host import Host
from otelprogress.feed.watch import unpack_places
from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from tests.feed import fakes
from tests.feed.fakes import ended, event, noted, progressed, run_id, started
from tests.feed.serving import TOKEN, real_host, serving
from tests.waiting import aeventually


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fakes, "START_UNIX_NS", time.time_ns())


def host_of_collector(epoch: str = "collector", numbers_from: int = 7) -> Host:
    """Its handles are other ones: it numbers the runs of all processes."""
    numbers = iter(range(numbers_from, 10_000))
    tree = OperationTree(next_number=lambda _: next(numbers))
    return Host(Hub(tree, epoch=epoch, cursor_key=CursorKey(b"c" * 32)))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Both:
    """One process and one collector, which hears what it is told to hear."""

    def __init__(self) -> None:
        self.process, self.collector = real_host(), host_of_collector()

    def say(self, *events: Event) -> None:
        for each in events:
            self.process.submit(each)
            self.collector.submit(each)


@pytest.fixture
def both() -> Iterator[Both]:
    both = Both()
    with serving(both.process) as process, serving(both.collector) as collector:
        runtime_file.write(process.url, TOKEN)
        runtime_file.write(collector.url, TOKEN, kind="collector")
        both.collector_server = collector
        yield both


def client() -> AsyncClient:
    return AsyncClient(backoff_s=(0.01, 0.05))


async def take(watching, count: int) -> list[tuple[str, str | None]]:
    taken = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            each = await anext(watching)
            taken.append((each.kind, each.message))
    return taken


async def until(watching, message: str) -> list[str | None]:
    """The messages of all that comes, up to and with this one."""
    messages: list[str | None] = []
    async with asyncio.timeout(20):
        while not messages or messages[-1] != message:
            messages.append((await anext(watching)).message)
    return messages


async def has_positions(watching, count: int = 2) -> None:
    """So many feeds have told what is there: what happens from now on comes as events."""

    def complete() -> bool:
        cursor = watching.cursor
        places = unpack_places(cursor) if cursor.startswith("w1.") else {}
        return len([each for each in places.values() if each.cursor]) == count

    await aeventually(complete)


async def settled(watching) -> None:
    """The same where something is there: it is read and left aside."""

    async def read() -> None:
        async for _ in watching:
            pass

    reading = asyncio.ensure_future(read())
    await has_positions(watching)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading


async def nothing_more(watching) -> None:
    """What a stranger starts now is the next thing that is given."""
    async with asyncio.timeout(20):
        each = await anext(watching)
    assert each.operation.name == "stranger", each


# --- a watch ---------------------------------------------------------------------------------------------


async def test_each_durable_event_of_a_run_that_both_know_comes_once(both: Both):
    async with client() as reader, reader.watch() as watching:
        await has_positions(watching)
        both.say(started())
        for number in range(2, 300):
            both.say(noted(number, at_s=number / 1000, message=str(number)))
        messages = await until(watching, "299")
        assert [each for each in messages if each is not None] == [str(number) for number in range(2, 300)]
        both.say(started(run=2, name="stranger"))
        await nothing_more(watching)


async def test_an_end_that_the_process_has_said_itself_is_the_last_word_whatever_the_collector_takes_it_for(
    both: Both,
):
    both.say(started())
    async with client() as reader, reader.watch() as watching:
        await settled(watching)
        both.say(noted(2, at_s=0.1, message="both say it"))
        await until(watching, "both say it")
        both.process.submit(noted(3, at_s=0.2, message="the process says it"))
        both.process.submit(ended(4, at_s=0.3))
        both.collector.submit(ended(None, state=State.LOST, at_s=0.2, writer_id="", lost_detector="link"))
        async with asyncio.timeout(20):
            while (await anext(watching)).operation.state is not State.SUCCEEDED:
                pass
        both.collector.submit(ended(4, at_s=0.3))
        both.say(started(run=2, name="stranger"))
        await nothing_more(watching)


async def test_the_collectors_verdict_is_shown_and_the_process_is_not_heard_against_it(both: Both):
    both.say(started())
    async with client() as reader, reader.watch() as watching:
        await settled(watching)
        both.collector.submit(ended(None, state=State.LOST, at_s=1.0, writer_id="", lost_detector="lease"))
        async with asyncio.timeout(20):
            while (each := await anext(watching)).operation.live:
                pass
        assert (each.operation.state, each.operation.lost_detector) == (State.LOST, "lease")
        both.process.submit(noted(2, at_s=2.0, message="still here"))
        both.process.submit(progressed(5, at_s=3.0))
        both.collector.submit(started(run=2, name="stranger"))
        await nothing_more(watching)


DYING = """
import os, sys, time
from otelprogress.feed import runtime_file
from tests.feed import fakes
from tests.feed.fakes import started
from tests.feed.serving import TOKEN, real_host, WebSocketServer
fakes.START_UNIX_NS = int(sys.argv[1])
host = real_host()
server = WebSocketServer(host, token=TOKEN, port=0)
server.start()
runtime_file.write(server.url, TOKEN)
host.submit(started(process_id=os.getpid()))
print("ready", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def dying_process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", DYING, str(fakes.START_UNIX_NS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


async def test_a_process_that_dies_is_no_verdict_where_the_collector_goes_on():
    collector = host_of_collector()
    collector.submit(started())
    with serving(collector) as server, dying_process() as process:
        runtime_file.write(server.url, TOKEN, kind="collector")
        async with client() as reader, reader.watch() as watching:
            await settled(watching)
            process.kill()
            await asyncio.to_thread(process.wait)
            taking = asyncio.ensure_future(anext(watching))
            await aeventually(lambda: watching.feed_count == 1)
            assert not taking.done()
            collector.submit(ended(2, at_s=1.0))
            async with asyncio.timeout(20):
                assert (await taking).operation.state is State.SUCCEEDED


async def test_a_process_that_dies_is_lost_where_the_collector_cannot_be_reached(monkeypatch):
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR", f"http://127.0.0.1:{free_port()}")
    with dying_process() as process:
        async with client() as reader, reader.watch() as watching:
            assert (await anext(watching)).operation.live
            process.kill()
            async with asyncio.timeout(20):
                each = await anext(watching)
            assert (each.operation.state, each.operation.lost_detector) == (State.LOST, "pid")


async def test_without_the_collector_the_process_is_heard_and_with_it_again_the_collector(
    both: Both, monkeypatch
):
    monkeypatch.setattr("otelprogress.protocol.backoff.Backoff.asked_delay_s", lambda *_: 0.3)
    both.say(started())
    async with client() as reader, reader.watch() as watching:
        await settled(watching)
        both.say(noted(2, at_s=0.1, message="both"))
        assert (await until(watching, "both"))[-1] == "both"
        address = both.collector_server.address
        both.collector_server.close(2.0)
        both.process.submit(noted(3, at_s=0.2, message="alone"))
        assert await until(watching, "alone") == ["alone"]
        with serving_at(both.collector, address):
            both.collector.submit(noted(3, at_s=0.2, message="alone"))
            both.say(noted(4, at_s=0.3, message="again"))
            assert await until(watching, "again") == ["again"]
            both.say(started(run=2, name="stranger"))
            await nothing_more(watching)


@contextlib.contextmanager
def serving_at(host: Host, address: tuple[str, int]) -> Iterator[Any]:
    from otelprogress.feed.server import WebSocketServer

    server = WebSocketServer(host, token=TOKEN, port=address[1])
    server.start()
    try:
        assert server.address == address
        yield server
    finally:
        server.close(2.0)


async def test_a_saved_cursor_has_a_place_for_each_feed_and_repeats_and_misses_nothing(both: Both):
    seen: list[str | None] = []
    cursor = None
    both.say(started())
    for lap in range(6):
        async with client() as reader, reader.watch(cursor=cursor) as watching:
            if cursor is None:
                await settled(watching)
            for number in range(5):
                at = 2 + lap * 10 + number
                both.say(noted(at, at_s=at / 100, message=str(at)))
            seen += await until(watching, str(2 + lap * 10 + 4))
            cursor = watching.cursor
        for number in range(5, 10):  # while nobody watches
            at = 2 + lap * 10 + number
            both.say(noted(at, at_s=at / 100, message=str(at)))
    async with client() as reader, reader.watch(cursor=cursor) as watching:
        seen += await until(watching, "61")
        both.say(started(run=2, name="stranger"))
        await nothing_more(watching)
    assert [int(each) for each in seen if each is not None] == list(range(2, 62))


async def test_a_collectors_place_outlives_the_collectors_process(both: Both, monkeypatch):
    both.say(started())
    async with client() as reader, reader.watch() as watching:
        await settled(watching)
        cursor = watching.cursor
    address = both.collector_server.address
    both.collector_server.close(2.0)
    for found in runtime_file.scan():
        if found.content.kind == "collector":
            runtime_file.remove(found.path)
    both.collector.submit(noted(2, at_s=0.1, message="meanwhile"))
    with serving_at(both.collector, address):  # as it comes back: another runtime file, the same log
        monkeypatch.setenv("OTELPROGRESS_COLLECTOR", f"http://localhost:{address[1]}")
        runtime_file.write(f"http://127.0.0.1:{address[1]}", TOKEN, kind="collector")
        async with client() as reader, reader.watch(cursor=cursor) as watching:
            assert await take(watching, 1) == [("operation.noted", "meanwhile")]
            assert watching.feed_count == 2


async def test_the_cursor_of_one_feed_is_taken_by_a_watch_of_all(both: Both):
    both.say(started())
    process = next(one.content for one in runtime_file.scan() if one.content.kind == "process")
    async with AsyncClient(process.url, TOKEN) as reader, reader.watch() as watching:
        await take(watching, 1)
        await aeventually(lambda: watching.cursor and not watching.cursor.startswith("w1."))
        old = watching.cursor
    both.process.submit(noted(2, at_s=0.1, message="since then"))
    async with client() as reader, reader.watch(cursor=old) as watching:
        assert "since then" in await until(watching, "since then")
        assert watching.gaps <= 1  # the collector's feed says that it is not its own


async def test_a_collector_that_refuses_us_is_left_out_and_said(
    both: Both, monkeypatch, caplog, tmp_path: Path
):
    token = tmp_path / "token"
    token.write_text("s3cret")
    monkeypatch.setenv("OTELPROGRESS_TOKEN_FILE", str(token))
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR", both.collector_server.url.replace("ws://", "http://"))
    both.process.submit(started())
    async with client() as reader, reader.watch() as watching:
        assert (await anext(watching)).operation.name == "nightly load"
        reading = asyncio.ensure_future(anext(watching))
        await aeventually(lambda: "left out" in caplog.text)
        both.process.submit(noted(2, message="goes on"))
        assert (await reading).message == "goes on"
        assert [view.name for view in await reader.list()] == ["nightly load"]
    assert "s3cret" not in caplog.text


# --- list, get, wait -------------------------------------------------------------------------------------


async def test_a_list_shows_each_run_once_as_the_collector_has_it(both: Both):
    both.say(started(), started(run=2))
    both.collector.submit(ended(None, run=2, state=State.LOST, at_s=1.0, writer_id=""))
    both.collector.submit(started(run=3, name="of another machine"))
    both.process.submit(started(run=4, name="of this process"))
    async with client() as reader:
        views = {view.id: view for view in await reader.list()}
    assert len(views) == 4
    assert views[run_id(1)].handle == "nightly_load-7"
    assert views[run_id(2)].state is State.LOST


async def test_an_end_that_the_collector_was_not_told_of_yet_is_an_end(both: Both):
    both.say(started())
    both.process.submit(ended(2, at_s=1.0))
    async with client() as reader:
        (view,) = await reader.list()
        assert (view.state, view.handle) == (State.SUCCEEDED, "nightly_load-7")
        assert (await reader.wait(run_id(), until="end", timeout_s=20)).reason == "ended"


@pytest.fixture
def written_down() -> None:
    """A process wrote into this machine's history that its run succeeded, and no feed is left that tells of it."""
    write_down(started(), ended(2, at_s=1.0))


def write_down(*events: Event) -> None:
    tree, history = OperationTree(), History()
    for each in events:
        history(tree.apply(each, each.time_unix_ns))
    history.close()


@pytest.mark.usefixtures("written_down")
@pytest.mark.parametrize("taken_for", [State.RUNNING, State.LOST])
async def test_an_end_that_is_in_the_history_is_an_end_though_the_collector_was_away(taken_for: State):
    collector = host_of_collector()
    collector.submit(started(attributes={"region": "north"}))
    collector.submit(started(run=2, name="of another machine"))
    if taken_for is State.LOST:
        collector.submit(ended(None, state=State.LOST, at_s=9.0, writer_id="", lost_detector="lease"))
    with serving(collector) as server:
        runtime_file.write(server.url, TOKEN, kind="collector")
        async with client() as reader:
            views = {view.id: view for view in await reader.list()}
            assert views[run_id(2)].state is State.RUNNING
            view = views[run_id()]
            assert (view.state, view.handle, view.lost_detector) == (State.SUCCEEDED, "nightly_load-7", None)
            assert view.attributes == {"region": "north"}
            assert [each.id for each in await reader.list(live=True)] == [run_id(2)]
            for text in ("nightly_load-7", run_id(), "nightly_load-"):
                assert (await reader.get(text)).state is State.SUCCEEDED
            assert (await reader.wait(run_id(), until="end", timeout_s=20)).reason == "ended"
        async with AsyncClient(
            server.url, TOKEN
        ) as reader:  # who asks the collector alone hears the collector
            assert (await reader.get(run_id())).state is taken_for


async def test_a_wait_is_not_told_of_a_loss_where_the_history_has_the_end():
    collector = host_of_collector()
    collector.submit(started())
    with serving(collector) as server:
        runtime_file.write(server.url, TOKEN, kind="collector")
        async with client() as reader:
            waiting = asyncio.ensure_future(reader.wait(run_id(), until="end", timeout_s=60))
            await aeventually(lambda: len(reader._watches) > 0)
            write_down(started(), ended(2, at_s=1.0))
            collector.submit(ended(None, state=State.LOST, at_s=9.0, writer_id="", lost_detector="lease"))
            news = await waiting
        assert (news.reason, news.operation.state) == ("ended", State.SUCCEEDED)


async def test_a_handle_of_the_process_finds_what_the_collector_knows_by_another(both: Both):
    both.say(started())
    async with client() as reader:
        for text in ("nightly_load-1", "nightly_load-7", run_id(), "nightly_load-"):
            assert (await reader.get(text)).handle == "nightly_load-7"


async def test_a_handle_that_means_another_run_at_each_host_is_ambiguous_and_ids_are_named(both: Both):
    both.process.submit(started(name="copy"))
    both.collector.submit(started(run=2, name="copy"))
    for run in range(3, 10):
        both.process.submit(started(run=run, name="copy"))
    async with client() as reader:
        with pytest.raises(AmbiguousOperation) as ambiguous:
            await reader.get("copy-7")
    assert set(ambiguous.value.candidates) == {run_id(2), run_id(8)}


async def test_a_wait_hears_the_collector_where_the_process_dies():
    collector = host_of_collector()
    with serving(collector) as server, dying_process() as process:
        runtime_file.write(server.url, TOKEN, kind="collector")
        collector.submit(started())
        async with client() as reader:
            waiting = asyncio.ensure_future(reader.wait(run_id(), until="end", timeout_s=60))
            await aeventually(lambda: server.client_count > 0 or waiting.done())
            process.kill()
            await asyncio.to_thread(process.wait)
            collector.submit(ended(2, at_s=1.0, state=State.FAILED, error_message="disk full"))
            news = await waiting
        assert (news.reason, news.operation.error_message) == ("failed", "disk full")


async def test_a_wait_at_a_process_is_not_over_because_the_collector_hears_of_the_start(both: Both):
    both.process.submit(started())
    async with client() as reader:
        waiting = asyncio.ensure_future(reader.wait("nightly", until="change", timeout_s=60))
        await aeventually(lambda: len(reader._watches) > 0)
        (watching,) = reader._watches
        await has_positions(watching)
        both.collector.submit(started())
        both.say(event(semconv.OPERATION_STATE_CHANGED, sequence=2, at_s=1.0, state=State.PAUSED))
        news = await waiting
        assert (news.reason, news.event and news.event.kind, news.operation.state) == (
            "changed",
            "operation.state_changed",
            State.PAUSED,
        )


async def test_a_dead_collector_hides_nothing_and_is_named(both: Both, monkeypatch):
    port = free_port()
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR", f"http://127.0.0.1:{port}")
    both.collector_server.close(2.0)
    for found in runtime_file.scan():
        if found.content.kind == "collector":
            runtime_file.remove(found.path)
    both.process.submit(started())
    async with client() as reader:
        assert [view.name for view in await reader.list()] == ["nightly load"]
        assert [target.name for target in reader.unanswered] == [
            f"the collector at ws://127.0.0.1:{port}/v1/feed"
        ]
        assert (await reader.get("nightly")).name == "nightly load"
        assert len(reader.unanswered) == 1


def test_our_pid_is_not_a_collectors():
    runtime_file.write("ws://127.0.0.1:4318", TOKEN, kind="collector")
    from otelprogress.feed.discovery import all_feeds

    (target,) = all_feeds({})
    assert (target.pid, target.gone, target.is_collector) == (0, False, True)
    assert os.getpid() > 0
