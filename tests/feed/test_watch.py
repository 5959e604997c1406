from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time

import msgspec
import pytest
from websockets.asyncio.server import serve

from otelprogress.exceptions import FeedDenied, FeedUnavailable, InvalidValue, LocalProtocolError
from otelprogress.feed import runtime_file
from otelprogress.feed.client import AsyncClient, watch
from otelprogress.feed.connection import ServerLimits
from otelprogress.feed.discovery import Discovery, FeedTarget
from otelprogress.feed.history import History
from otelprogress.feed.host import Host
from otelprogress.feed.watch import Watch, pack_places, unpack_places
from otelprogress.feed.watching import WatchOptions, denial, lost_event
from otelprogress.model.events import OperationView, State
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import SUBPROTOCOL, Limits
from tests.faults.proxy import FaultProxy, Plan
from tests.feed.fakes import ended, noted, progressed, started
from tests.feed.serving import TOKEN, real_host, serving
from tests.waiting import aeventually, eventually


def client_of(server, **options) -> AsyncClient:
    return AsyncClient(server.url, TOKEN, **({"backoff_s": (0.01, 0.05)} | options))


async def take(watching, count: int) -> list[tuple[str, str | None]]:
    taken = []
    async with asyncio.timeout(20):
        async for event in watching:
            taken.append((event.kind, event.message))
            if len(taken) == count:
                break
    return taken


async def has_position(watching) -> None:
    """All snapshots are complete: what happens from now on comes as events."""

    def complete() -> bool:
        if not watching.cursor.startswith("w1."):
            return bool(watching.cursor)
        return all(place.cursor for place in unpack_places(watching.cursor).values())

    await aeventually(complete)


# --- what the iterator gives -----------------------------------------------------------------------------


async def test_a_watch_begins_with_what_is_there_and_goes_on_with_what_happens():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client, client.watch() as watching:
            assert await take(watching, 1) == [("snapshot", None)]
            host.submit(noted(2, message="one"))
            host.submit(ended(3))
            assert await take(watching, 2) == [("operation.noted", "one"), ("operation.ended", None)]
            assert watching.gaps == 0


async def test_the_clauses_of_a_watch_choose_operations():
    host = real_host()
    for run, name in enumerate(("load", "clean"), 1):
        host.submit(started(run=run, name=name, service="etl"))
    with serving(host) as server:
        async with client_of(server) as client:
            async with client.watch("cl*", service="etl") as watching:
                event = await anext(watching)
                assert event.operation.name == "clean"


async def test_a_cursor_goes_on_in_another_client_where_the_first_one_stopped():
    host = real_host()
    with serving(host) as server:
        async with client_of(server) as first, first.watch() as watching:
            host.submit(started())
            await take(watching, 1)
            await has_position(watching)
            cursor = watching.cursor
        host.submit(noted(2, message="while nobody watched"))
        async with client_of(server) as second, second.watch(cursor=cursor) as watching:
            assert await take(watching, 1) == [("operation.noted", "while nobody watched")]


async def test_a_cursor_taken_in_the_middle_of_a_frame_repeats_nothing():
    host = real_host()
    with serving(host) as server:
        async with client_of(server) as first, first.watch() as watching:
            await_first = asyncio.ensure_future(anext(watching))
            await aeventually(lambda: watching.cursor)
            with host.lock:  # the server cannot deliver in between: all of it comes in one frame
                host.submit(started())
                for number in range(2, 8):
                    host.submit(noted(number, message=str(number)))
            await await_first
            assert await take(watching, 3) == [("operation.noted", str(number)) for number in (2, 3, 4)]
            cursor = watching.cursor
        async with client_of(server) as second, second.watch(cursor=cursor) as watching:
            assert await take(watching, 3) == [("operation.noted", str(number)) for number in (5, 6, 7)]


async def test_a_foreign_cursor_is_a_gap_and_a_snapshot_and_never_silence():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client, client.watch(cursor="A" * 60) as watching:
            event = await anext(watching)
            assert (event.kind, event.gap, watching.gaps) == ("snapshot", "invalid", 1)


def test_a_broken_cursor_is_the_callers_mistake():
    with pytest.raises(InvalidValue, match="no cursor"):
        Watch(None, WatchOptions(), cursor="w1.%%%")


def test_places_survive_packing():
    from otelprogress.feed.watch import _Place

    places = {"a": _Place("cursor", {"run": 3}), "b": _Place(None)}
    assert unpack_places(pack_places(places)) == places


async def test_ticks_are_the_newest_state():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client, client.watch(level="ticks", max_rate_hz=10) as watching:
            await take(watching, 1)
            for number in range(1, 101):
                host.submit(progressed(number, total=100))
            async with asyncio.timeout(10):
                async for event in watching:
                    if event.operation.step is not None and event.operation.step.completed == 100:
                        break


async def test_a_slow_reader_gets_everything_in_order():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client, client.watch() as watching:
            await take(watching, 1)
            for number in range(2, 5_002):
                host.submit(noted(number, message=str(number)))
            messages = []
            async for event in watching:
                messages.append(event.message)
                if len(messages) % 500 == 0:
                    await asyncio.sleep(0.01)
                if len(messages) == 5_000:
                    break
            assert messages == [str(number) for number in range(2, 5_002)]


# --- connections that break ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        Plan(reset_down_at=900),
        Plan(cut_down_at=901),
        Plan(reset_up_at=400),
        Plan(slice_bytes=1, reset_down_at=2_000),
    ],
    ids=["reset", "cut", "reset upwards", "bytewise"],
)
async def test_a_broken_connection_is_made_again_and_nothing_is_missed_or_repeated(plan: Plan):
    host = real_host()
    plans = [Plan(), plan, plan, plan]
    with FaultProxy(("", 0), lambda number: plans[number] if number < len(plans) else Plan()) as proxy:
        with serving(host, allowed_hosts=[f"127.0.0.1:{proxy.port}"]) as server:
            proxy.target = server.address
            client = AsyncClient(
                f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.01, 0.02), rng=random.Random(1)
            )
            async with client, client.watch() as watching:
                host.submit(started())
                seen = []
                async with asyncio.timeout(30):
                    async for event in watching:
                        if event.kind == "snapshot" or event.kind == "operation.started":
                            proxy.reset_all()
                            for number in range(2, 52):
                                host.submit(noted(number, message=str(number)))
                            continue
                        seen.append(event.message)
                        if len(seen) == 50:
                            break
                assert seen == [str(number) for number in range(2, 52)]
                assert watching.gaps == 0
                assert proxy.connections > 4


async def test_without_resume_what_happened_in_between_is_missing():
    host = real_host()
    with FaultProxy(("", 0)) as proxy:
        with serving(host, allowed_hosts=[f"127.0.0.1:{proxy.port}"]) as server:
            proxy.target = server.address
            client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.1, 0.2), resume=False)
            async with client, client.watch() as watching:
                host.submit(started())
                await take(watching, 1)
                with socket.create_server(("127.0.0.1", 0)) as nobody:
                    closed_port = nobody.getsockname()
                proxy.target = closed_port  # until what it misses was said
                proxy.reset_all()
                await aeventually(lambda: server.client_count == 0)
                host.submit(noted(2, message="missed"))
                host.drain()
                proxy.target = server.address
                kind, message = (await take(watching, 1))[0]
                assert (kind, message) == ("snapshot", None)


async def test_a_connection_that_falls_silent_is_given_up_and_made_again(monkeypatch: pytest.MonkeyPatch):
    from otelprogress.feed import watching as module
    from otelprogress.protocol.messages import Limits

    monkeypatch.setattr(module, "_SILENCE_SHARE", 1.0)
    host = real_host()
    host.hub.limits = Limits(ping_interval_s=1.0, bookmark_idle_s=0.2)
    plans = [Plan(half_open_at=5_000)]
    with FaultProxy(("", 0), lambda number: plans[number] if number < len(plans) else Plan()) as proxy:
        with serving(host, allowed_hosts=[f"127.0.0.1:{proxy.port}"]) as server:
            proxy.target = server.address
            client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.01, 0.02))
            async with client, client.watch() as watching:
                host.submit(started())
                await take(watching, 1)
                for number in range(2, 32):
                    host.submit(noted(number, message=str(number)))
                async with asyncio.timeout(30):
                    async for event in watching:
                        if event.operation.message == "31":
                            break
                assert proxy.connections == 2


async def test_a_feed_that_restarted_gives_a_gap_and_the_new_state():
    first, second = real_host(), Host(Hub(OperationTree(), epoch="epoch-2", cursor_key=CursorKey(b"k" * 32)))
    with FaultProxy(("", 0)) as proxy:
        allowed = [f"127.0.0.1:{proxy.port}"]
        with serving(first, allowed_hosts=allowed) as server:
            proxy.target = server.address
            client = AsyncClient(f"ws://127.0.0.1:{proxy.port}", TOKEN, backoff_s=(0.01, 0.02))
            watching = client.watch()
            first.submit(started())
            await take(watching, 1)
            await has_position(watching)
            proxy.target = ("127.0.0.1", 9)  # it ends without a word, so that nobody is asked to wait
            proxy.reset_all()
        with serving(second, allowed_hosts=allowed) as server:
            second.submit(started(run=2, name="after the restart"))
            proxy.target = server.address
            async with asyncio.timeout(20):
                event = await anext(watching)
                while event.kind != "snapshot":
                    event = await anext(watching)
            assert (event.operation.name, event.gap, watching.gaps) == ("after the restart", "epoch", 1)
            await client.aclose()


# --- denials ---------------------------------------------------------------------------------------------


async def test_a_wrong_token_is_denied_and_not_tried_again():
    with serving() as server:
        async with AsyncClient(server.url, "wrong") as client:
            with pytest.raises(FeedDenied, match="4401"):
                await anext(client.watch())
            with pytest.raises(FeedDenied):
                await client.list()


async def test_nobody_at_the_address_is_said_at_once():
    async with AsyncClient("ws://127.0.0.1:9", "t") as client:
        with pytest.raises(FeedUnavailable, match="127.0.0.1:9"):
            await anext(client.watch())
        with pytest.raises(FeedUnavailable):
            await client.list()


async def test_something_else_at_the_address_is_no_feed():
    with serving() as server:
        async with AsyncClient(server.url + "/elsewhere", TOKEN) as client:
            with pytest.raises(FeedUnavailable, match="404"):
                await anext(client.watch())


async def test_a_full_feed_is_tried_again_until_there_is_room():
    with serving(limits=ServerLimits(max_feed_clients=1)) as server:
        async with client_of(server) as first, client_of(server) as second:
            keeper = first.watch()
            async with keeper:
                await aeventually(lambda: server.client_count == 1)
                waiting = asyncio.ensure_future(anext(second.watch()))
                # The first refusal of a feed that is named is an answer, not a reason to wait.
                with pytest.raises(FeedUnavailable, match="503"):
                    await waiting


async def test_a_feed_that_skips_a_durable_event_is_left_with_4400_and_asked_for_the_whole_state():
    asked: list[dict] = []
    left_with: list[int] = []
    view = {
        "id": "r",
        "handle": "load-1",
        "name": "load",
        "state": "running",
        "as_of_unix_ns": 1,
        "revision": 1,
    }
    after = {"kind": "operation.noted", "operation": {**view, "revision": 5}, "revision": 5, "message": "end"}

    async def skips(connection) -> None:
        async def tell(kind: str, **fields: object) -> None:
            await connection.send(json.dumps({"type": kind, "id": "1"} | fields), text=True)

        await connection.recv()
        limits = msgspec.to_builtins(Limits())
        await tell(
            "welcome", connection="c", server={}, epoch="e", ping_interval_s=25.0, limits=limits, now=1
        )
        asked.append(json.loads(await connection.recv()))
        await tell("subscribed", mode="snapshot")
        await tell("snapshot", operations=[view])
        await tell("snapshot_end", cursor="c1", complete=True)
        previous = 3 if len(asked) == 1 else 1
        await tell("events", cursor="c5", events=[{**after, "previous_durable": previous}])
        await connection.wait_closed()
        left_with.append(connection.close_code)

    async with serve(skips, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"ws://127.0.0.1:{port}", TOKEN, backoff_s=(0.01, 0.05)) as client:
            taken = await take(client.watch(), 2)
    assert taken[-1] == ("operation.noted", "end")
    assert left_with[0] == 4400
    assert [one.get("cursor") for one in asked] == [None, None]


async def test_a_filter_that_the_feed_refuses_is_the_callers_mistake():
    with serving() as server:
        async with client_of(server) as client:
            with pytest.raises(InvalidValue, match="asleep"):
                await anext(client.watch(state="asleep"))


def test_close_codes_that_say_stop_become_errors_that_say_why():
    assert isinstance(denial(4403, ""), FeedDenied)
    assert isinstance(denial(4400, "bad frame"), LocalProtocolError)
    assert "4429" in str(denial(4429, ""))
    assert isinstance(denial(4242, ""), LocalProtocolError)


# --- all local processes ---------------------------------------------------------------------------------


async def test_all_local_feeds_are_merged_also_those_that_start_later():
    one, two = real_host(), real_host()
    one.submit(started(name="first"))
    two.submit(started(run=2, name="second"))
    with serving(one) as server:
        runtime_file.write(server.url, TOKEN)
        async with AsyncClient() as client, client.watch() as watching:
            assert (await anext(watching)).operation.name == "first"
            with serving(two) as later:
                runtime_file.write(later.url, TOKEN)
                assert (await anext(watching)).operation.name == "second"
                assert watching.feed_count == 2
                await has_position(watching)
                cursor = watching.cursor
                one.submit(noted(2, message="a"))
                two.submit(noted(2, run=2, message="b"))
                assert sorted(message for _, message in await take(watching, 2)) == ["a", "b"]
                async with client.watch(cursor=cursor) as again:
                    assert sorted(message for _, message in await take(again, 2)) == ["a", "b"]


async def test_a_runtime_folder_that_is_not_private_ends_a_watch_with_the_reason():
    runtime_file.runtime_folder().mkdir(mode=0o755, parents=True, exist_ok=True)
    runtime_file.runtime_folder().chmod(0o755)
    async with AsyncClient() as client, client.watch() as watching, asyncio.timeout(20):
        with pytest.raises(InvalidValue, match="chmod 700"):
            await anext(watching)
        with pytest.raises(StopAsyncIteration):
            await anext(watching)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), InvalidValue("it has mode 0755")])
async def test_feeds_are_looked_for_again_after_a_look_that_failed(monkeypatch, caplog, error):
    answers = [[], error, error]
    appeared = Discovery.appeared

    def look(discovery: Discovery) -> list[FeedTarget]:
        answer = answers.pop(0) if answers else appeared(discovery)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Discovery, "appeared", look)
    host = real_host()
    host.submit(started(name="later"))
    with serving(host) as server:
        runtime_file.write(server.url, TOKEN)
        async with AsyncClient() as client, client.watch() as watching, asyncio.timeout(20):
            assert (await anext(watching)).operation.name == "later"
    (said,) = caplog.messages
    assert str(error) in said


async def test_a_first_look_that_the_system_refused_is_repeated(monkeypatch):
    answers = [OSError(24, "Too many open files")]
    appeared = Discovery.appeared

    def look(discovery: Discovery) -> list[FeedTarget]:
        if answers:
            raise answers.pop()
        return appeared(discovery)

    monkeypatch.setattr(Discovery, "appeared", look)
    host = real_host()
    host.submit(started(name="later"))
    with serving(host) as server:
        runtime_file.write(server.url, TOKEN)
        async with AsyncClient() as client, client.watch() as watching, asyncio.timeout(20):
            assert (await anext(watching)).operation.name == "later"


PRODUCER = """
import sys, time
from otelprogress.feed import runtime_file
from tests.feed import fakes
from tests.feed.fakes import noted, progressed, started
from tests.feed.serving import TOKEN, real_host, WebSocketServer
import os
fakes.START_UNIX_NS = time.time_ns()
host = real_host()
if sys.argv[1] == "recorded":
    from otelprogress.feed.history import History
    host.add_listener(History())
server = WebSocketServer(host, token=TOKEN, port=0)
server.start()
runtime_file.write(server.url, TOKEN)
host.submit(started(process_id=os.getpid()))
host.submit(progressed(40, total=100, process_id=os.getpid()))
print(server.url, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def producer():
    def start(mode: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PRODUCER, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started_processes.append(process)
        process.url = process.stdout.readline().strip()
        return process

    started_processes: list[subprocess.Popen[str]] = []
    yield start
    for process in started_processes:
        process.kill()
        process.communicate()


def recorded() -> list[OperationView]:
    with History() as history:
        return history.operations()


async def test_a_killed_process_is_told_by_the_reader_and_written_to_the_history(producer):
    process = producer("recorded")
    async with AsyncClient(backoff_s=(0.01, 0.1)) as client, client.watch() as watching:
        assert (await anext(watching)).operation.live
        await asyncio.to_thread(eventually, recorded)
        process.kill()
        await asyncio.to_thread(process.wait)
        async with asyncio.timeout(10):
            event = await anext(watching)
        assert (event.kind, event.operation.state) == ("operation.ended", State.LOST)
        assert event.operation.lost_detector == "pid"
        assert str(process.pid) in (event.operation.lost_cause or "")
        assert [view.state for view in recorded()] == [State.LOST]


async def test_a_watch_of_one_address_ends_when_its_process_is_gone(producer):
    process = producer()
    async with AsyncClient(
        process.url, backoff_s=(0.01, 0.1)
    ) as client:  # the token stands in the runtime file
        states = []
        async for event in client.watch():
            states.append(event.operation.state)
            if len(states) == 1:
                process.kill()
                await asyncio.to_thread(process.wait)
        assert states == [State.RUNNING, State.LOST]


async def test_a_verdict_says_when_the_operation_was_last_heard():
    view = OperationView(
        id="r",
        handle="h-1",
        name="h",
        state=State.RUNNING,
        revision=4,
        as_of_unix_ns=50,
        started_at_unix_ns=10,
        updated_at_unix_ns=40,
    )
    event = lost_event(view, 99, "process 1 is gone")
    assert (event.revision, event.time_unix_ns, event.operation.ended_at_unix_ns) == (5, 40, 40)
    assert event.operation.as_of_unix_ns == 99


# --- letting go ------------------------------------------------------------------------------------------


async def test_a_closed_watch_ends_its_iterator_and_its_connection():
    with serving() as server:
        async with client_of(server) as client:
            watching = client.watch()
            async with watching:
                await aeventually(lambda: server.client_count == 1)
            with pytest.raises(StopAsyncIteration):
                await anext(watching)
            await aeventually(lambda: server.client_count == 0)


async def test_a_watch_that_is_left_by_break_does_not_stay_connected():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async for _ in watch(url=server.url, token=TOKEN):
            break
        gc.collect()
        await aeventually(lambda: server.client_count == 0)


async def test_a_redirect_is_not_followed_with_our_token():
    class Redirecting(threading.Thread):
        def run(self) -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(
                    b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/v1/feed\r\nContent-Length: 0\r\n\r\n"
                )

    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Redirecting()
        thread.start()
        async with AsyncClient(f"ws://127.0.0.1:{listener.getsockname()[1]}", TOKEN) as client:
            with pytest.raises(FeedUnavailable, match="302"):
                await client.list()
        thread.join()


def test_targets_and_their_tokens_stay_out_of_texts():
    target = FeedTarget(url="ws://127.0.0.1:1/v1/feed", token="secret", pid=os.getpid())
    assert "secret" not in repr(target)
    assert not FeedTarget(url="ws://127.0.0.1:1/v1/feed").gone
    assert time.time() > 0
