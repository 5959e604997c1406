from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from otelprogress.exceptions import AmbiguousOperation, FeedUnavailable, InvalidValue, UnknownOperation
from otelprogress.feed import runtime_file
from otelprogress.feed.client import AsyncClient
from otelprogress.feed.command_client import send_command
from otelprogress.feed.discovery import FeedTarget, target_at
from otelprogress.model import semconv
from otelprogress.model.events import State, StepState
from otelprogress.protocol.messages import Command, CommandStatus
from tests.feed import fakes
from tests.feed.fakes import ended, event, noted, run_id, started
from tests.feed.serving import TOKEN, real_host, serving
from tests.visualization.screen import make_view
from tests.waiting import aeventually


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch):
    """Operations that ended years ago are in no list."""
    import time

    monkeypatch.setattr(fakes, "START_UNIX_NS", time.time_ns())


def client_of(server, **options) -> AsyncClient:
    return AsyncClient(server.url, TOKEN, **options)


# --- list and get ----------------------------------------------------------------------------------------


async def test_list_gives_roots_oldest_first_with_their_steps():
    host = real_host()
    host.submit(started(run=1, name="old", steps=("extract", "load")))
    host.submit(started(run=2, name="child", parent_span_id=run_id(1)[33:]))
    host.submit(started(run=3, name="new"))
    host.submit(ended(2, run=3))
    with serving(host) as server:
        async with client_of(server) as client:
            views = await client.list()
            assert [view.name for view in views] == ["old", "new"]
            assert [step.name for step in views[0].steps] == ["extract", "load"]
            assert [view.name for view in await client.list(live=True)] == ["old"]
            assert [view.name for view in await client.list(live=False)] == ["new"]
            assert [view.name for view in await client.list("n*")] == ["new"]
            assert {view.name for view in await client.list(roots=False)} == {"old", "child", "new"}


async def test_list_turns_pages_until_all_are_there():
    host = real_host()
    for run in range(1, 1_203):
        host.submit(started(run=run, name=f"load {run}"))
    with serving(host) as server:
        async with client_of(server) as client:
            views = await client.list()
            assert len({view.id for view in views}) == len(views) == 1_202


async def test_list_of_all_local_processes_leaves_out_the_ones_that_do_not_answer():
    host = real_host()
    host.submit(started())
    runtime_file.write("ws://127.0.0.1:9", TOKEN)
    with serving(host) as server:
        runtime_file.write(server.url, TOKEN)
        async with AsyncClient() as client:
            assert [view.name for view in await client.list()] == ["nightly load"]


@pytest.fixture
def silent_url():
    """A local feed that is there and does not answer, as that of a stopped process; its connections are counted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        runtime_file.write(url, TOKEN)
        yield url, listener


def connections(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


async def test_a_list_says_which_processes_did_not_answer(silent_url):
    url, _ = silent_url
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        runtime_file.write(server.url, TOKEN)
        async with AsyncClient(open_timeout_s=0.2) as client:
            assert [view.name for view in await client.list()] == ["nightly load"]
            assert [target.url for target in client.unanswered] == [f"{url}/v1/feed"]


async def test_a_process_that_does_not_answer_is_asked_once_for_an_operation(silent_url):
    _, listener = silent_url
    with serving() as server:
        runtime_file.write(server.url, TOKEN)
        async with AsyncClient(open_timeout_s=0.2) as client:
            with pytest.raises(UnknownOperation, match="no answer from process"):
                await client.get("load-9")
            assert len(client.unanswered) == 1
    assert connections(listener) == 1


async def test_where_no_feed_answers_that_is_what_is_said(silent_url):
    async with AsyncClient(open_timeout_s=0.1) as client:
        with pytest.raises(FeedUnavailable, match="no feed answers: process"):
            await client.get("load-9")


async def test_a_wait_gives_feeds_that_do_not_answer_no_more_than_half_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
):
    given_s: list[float] = []

    async def answers_nothing(target, wanted, *, timeout_s):
        given_s.append(timeout_s)
        raise FeedUnavailable("timed out")

    monkeypatch.setattr("otelprogress.feed.client.snapshot", answers_nothing)
    runtime_file.write("ws://127.0.0.1:9", TOKEN)
    async with AsyncClient() as client:
        for timeout_s in (0.0, 4.0, None):
            with pytest.raises(FeedUnavailable):
                await client.wait("load-9", timeout_s=timeout_s)
    assert given_s == [1.0, 2.0, 5.0]


async def test_without_any_feed_a_list_is_empty_and_a_get_says_so():
    async with AsyncClient() as client:
        assert await client.list() == []
        with pytest.raises(FeedUnavailable, match="no process of yours"):
            await client.get("x")


async def test_get_finds_by_handle_id_label_and_prefix():
    host = real_host()
    host.submit(started(label="tuesday"))
    with serving(host) as server:
        async with client_of(server) as client:
            for text in ("nightly_load-1", run_id(1), "tuesday", "nightly", run_id(1)[:8]):
                assert (await client.get(text)).id == run_id(1)
            for text in ("daily", "", "nightly_load-12"):
                with pytest.raises(UnknownOperation):
                    await client.get(text)


async def test_an_ambiguous_name_lists_its_candidates_unless_one_alone_lives():
    host = real_host()
    host.submit(started(run=1))
    host.submit(started(run=2))
    with serving(host) as server:
        async with client_of(server) as client:
            with pytest.raises(AmbiguousOperation) as ambiguous:
                await client.get("nightly")
            assert set(ambiguous.value.candidates) == {"nightly_load-1", "nightly_load-2"}
            host.submit(ended(2, run=1))
            await aeventually(lambda: host.pending == 0)
            assert (await client.get("nightly")).id == run_id(2)


# --- wait ------------------------------------------------------------------------------------------------


async def after(host, *events, delay_s: float = 0.05) -> None:
    await asyncio.sleep(delay_s)
    for each in events:
        host.submit(each)


@pytest.mark.parametrize(
    ("until", "events", "reason"),
    [
        ("end", [noted(2, level="warning"), ended(3)], "ended"),
        ("end", [ended(2, state=State.FAILED, error_message="disk full")], "failed"),
        ("attention", [noted(2), noted(3, level="warning", message="12 rows rejected")], "warning"),
        (
            "attention",
            [event(semconv.INPUT_REQUESTED, sequence=2, input_id="in1", input_prompt="go on?")],
            "input",
        ),
        (
            "step",
            [event(semconv.STEP_STARTED, sequence=2, step_name="load", step_state=StepState.RUNNING)],
            "step",
        ),
        ("change", [noted(2)], "changed"),
        ("change", [event(semconv.OPERATION_STATE_CHANGED, sequence=2, state=State.PAUSED)], "changed"),
    ],
)
async def test_a_wait_ends_with_what_it_waits_for(until, events, reason):
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            submitting = asyncio.create_task(after(host, *events))
            news = await client.wait("nightly_load-1", until=until, timeout_s=20)
            await submitting
            assert news.reason == reason
            assert news.event is not None
            assert news.operation == news.event.operation


async def test_a_wait_that_takes_too_long_says_timeout_and_how_it_stands():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            news = await client.wait("nightly", until="end", timeout_s=0.1)
            assert (news.reason, news.operation.state) == ("timeout", State.RUNNING)


async def test_a_wait_for_what_has_ended_returns_at_once():
    host = real_host()
    host.submit(started())
    host.submit(ended(2))
    with serving(host) as server:
        async with client_of(server) as client:
            news = await client.wait("nightly_load-1", timeout_s=20)
            assert (news.reason, news.event) == ("ended", None)


async def test_nothing_is_missed_between_two_waits_with_a_cursor():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            first = await client.wait("nightly", until="attention", timeout_s=0.2)
            assert first.reason == "timeout"
            host.submit(noted(2, level="warning", message="while nobody waited"))
            second = await client.wait("nightly", until="attention", timeout_s=20, cursor=first.cursor)
            assert (second.reason, second.operation.message) == ("warning", "while nobody waited")


async def test_an_open_question_ends_a_wait_once_and_not_again_with_its_cursor():
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            submitting = asyncio.create_task(
                after(host, event(semconv.INPUT_REQUESTED, sequence=2, input_id="in1", input_prompt="go on?"))
            )
            first = await client.wait("nightly", timeout_s=20)
            await submitting
            assert first.reason == "input"
            again = await client.wait("nightly", timeout_s=0.2, cursor=first.cursor)
            assert again.reason == "timeout"
            assert (await client.wait("nightly", timeout_s=0.2)).reason == "input"


async def test_an_unknown_until_is_the_callers_mistake():
    with serving() as server:
        async with client_of(server) as client:
            with pytest.raises(InvalidValue, match="attention"):
                await client.wait("x", until="sunday")


async def test_a_wait_hears_that_the_process_was_killed():
    code = (
        "import os,sys,time;from otelprogress.feed import runtime_file;from tests.feed.fakes import started;"
        "from tests.feed.serving import *;h=real_host();s=WebSocketServer(h,token=TOKEN,port=0);s.start();"
        "runtime_file.write(s.url,TOKEN);h.submit(started(process_id=os.getpid()));print(1,flush=True);time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            async with AsyncClient(backoff_s=(0.01, 0.1)) as client:
                waiting = asyncio.create_task(client.wait("nightly_load-1", until="end", timeout_s=30))
                await asyncio.sleep(0.3)
                os.kill(process.pid, signal.SIGKILL)
                await asyncio.to_thread(process.wait)
                news = await waiting
                assert (news.reason, news.operation.lost_detector) == ("lost", "pid")
        finally:
            process.kill()


async def test_a_process_that_was_stopped_just_before_it_was_told_does_not_answer(silent_url, monkeypatch):
    url, _ = silent_url
    async with AsyncClient() as client:

        async def found(text, timeout_s):
            return target_at(url), make_view(1)

        monkeypatch.setattr(client, "_find", found)
        with pytest.raises(FeedUnavailable, match="does not answer: it was not commanded"):
            await client.command_and_wait("load-1", "pause", timeout_s=0.2)


async def test_what_was_found_is_not_said_to_be_unknown_a_moment_later(monkeypatch):
    async def forgot(target, command, **_):
        return CommandStatus(command_id=command.command_id, status="not_found")

    monkeypatch.setattr("otelprogress.feed.client.send_command", forgot)
    host = real_host()
    host.submit(started())
    with serving(host) as server:
        async with client_of(server) as client:
            for tell in (client.command, client.command_and_wait):
                with pytest.raises(FeedUnavailable, match="does not know the operation any more"):
                    await tell("nightly_load-1", "cancel")


async def test_finding_what_is_to_be_told_takes_no_more_than_half_of_the_time(monkeypatch):
    given_s: list[float] = []

    async def answers_nothing(target, wanted, *, timeout_s):
        given_s.append(timeout_s)
        raise FeedUnavailable("timed out")

    monkeypatch.setattr("otelprogress.feed.client.snapshot", answers_nothing)
    runtime_file.write("ws://127.0.0.1:9", TOKEN)
    async with AsyncClient() as client:
        for tell in (client.command, client.command_and_wait):
            with pytest.raises(FeedUnavailable):
                await tell("load-9", "cancel", timeout_s=4.0)
    assert given_s == [2.0, 2.0]


async def test_a_command_is_not_sent_again_and_again_to_a_process_that_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    target = FeedTarget(url="ws://127.0.0.1:9/v1/feed", pid=process.pid)
    command = Command(command_id="c1", operation="x", action="cancel")
    async with asyncio.timeout(60):
        with pytest.raises(FeedUnavailable, match="it is gone; whether it was taken is not known"):
            await send_command(target, command, timeout_s=600.0)


def test_settings_that_cannot_be_meant_are_refused():
    for options in ({"backoff_s": (0, 1)}, {"backoff_s": (2, 1)}):
        with pytest.raises(InvalidValue):
            AsyncClient("ws://127.0.0.1:1", "t", **options)
    with pytest.raises(InvalidValue, match="HOST:PORT"):
        AsyncClient("ftp://example")
