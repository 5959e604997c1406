"""Commands to real programs: over their own feed, to the processes they started, and through a collector."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import otelprogress as progress
from otelprogress.exceptions import UnknownOperation
from otelprogress.model.events import OperationView
from tests.collector.collecting import CollectorProcess
from tests.waiting import aeventually


@contextmanager
def commanded(name: str, argument: str = "") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.control_programs", name, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def moving(client: progress.AsyncClient, handle: str) -> OperationView:
    async def moves() -> OperationView | None:
        try:
            view = await client.get(handle)
        except (UnknownOperation, progress.FeedUnavailable):
            return None
        return view if view.step is not None and view.step.completed else None

    return await aeventually(moves, 30)


@asynccontextmanager
async def reached(
    through: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[progress.AsyncClient]:
    """A client of the program's own feed, or of a collector only."""
    if through == "feed":
        async with progress.AsyncClient() as client:
            yield client
        return
    with CollectorProcess(folder / "data") as collector:
        monkeypatch.setenv("OTELPROGRESS_COLLECTOR", collector.url)
        monkeypatch.setenv("OTELPROGRESS_FEED", "off")
        async with progress.AsyncClient(collector.url.replace("http", "ws"), collector.token) as client:
            yield client


@pytest.mark.parametrize("through", ["feed", "collector"])
async def test_a_cancel_ends_a_loop_between_two_rows_and_says_who_and_why(through, tmp_path, monkeypatch):
    async with reached(through, tmp_path, monkeypatch) as client:
        with commanded("rows") as program:
            await moving(client, "import_rows-1")
            told = await client.command_and_wait("import_rows-1", "cancel", reason="wrong day")
            assert (told.status.status, told.applied) == ("accepted", True)
            assert told.event.control_reason == "wrong day"
            assert told.event.control_actor
            assert program.stdout.readline().startswith("cancelled 'wrong day' after ")
            again = await client.command("import_rows-1", "cancel", command_id=told.status.command_id)
            assert again.status in {"duplicate", "ended"}


@pytest.mark.parametrize("through", ["feed", "collector"])
async def test_a_pause_holds_a_loop_and_its_counts_until_it_is_resumed(through, tmp_path, monkeypatch):
    async with reached(through, tmp_path, monkeypatch) as client:
        with commanded("rows"):
            await moving(client, "import_rows-1")
            assert (await client.command_and_wait("import_rows-1", "pause")).applied

            async def stands() -> OperationView | None:
                view = await client.get("import_rows-1")
                return view if view.state == "paused" else None

            first = await aeventually(stands, 30)
            news = await client.wait("import_rows-1", until="end", timeout_s=1.0)
            assert news.reason == "timeout"
            second = await client.get("import_rows-1")
            assert second.state == "paused"
            assert second.step.completed >= first.step.completed
            assert (await client.command_and_wait("import_rows-1", "resume")).applied
            await aeventually(lambda: _beyond(client, second), 30)


async def _beyond(client: progress.AsyncClient, before: OperationView) -> bool:
    view = await client.get(before.id)
    return view.state == "running" and view.step.completed > before.step.completed


@pytest.mark.parametrize("through", ["feed", "collector"])
async def test_a_question_is_answered_once_by_what_it_allows(through, tmp_path, monkeypatch):
    async with reached(through, tmp_path, monkeypatch) as client:
        with commanded("asking") as program:

            async def asks() -> OperationView | None:
                try:
                    view = await client.get("train-1")
                except (UnknownOperation, progress.FeedUnavailable):
                    return None
                return view if view.input_id else None

            view = await aeventually(asks, 30)
            assert (view.state, view.input_prompt) == ("waiting", "lr?")
            wrong = await client.command("train-1", "input", arguments={"content": "double"})
            assert wrong.status == "invalid"
            assert '"halve", "stop"' in wrong.message
            elsewhere = await client.command(
                "train-1", "input", arguments={"input_id": "in7", "content": "halve"}
            )
            assert "in1" in elsewhere.message
            told = await client.command_and_wait("train-1", "input", arguments={"content": "halve"})
            assert told.applied
            assert program.stdout.readline() == "answered halve\n"


async def test_a_signal_runs_its_handler_once_and_what_is_not_declared_is_named():
    async with progress.AsyncClient() as client:
        with commanded("signalled") as program:
            await moving(client, "simulate-1")
            assert (await client.command_and_wait("simulate-1", "snapshot")).applied
            refused = await client.command("simulate-1", "pause")
            assert refused.status == "unsupported"
            assert "controls=['pause']" in refused.message
            assert (await client.command_and_wait("simulate-1", "cancel")).applied
            assert program.stdout.readline() == "snapshots 1\n"


async def _counts(client: progress.AsyncClient) -> dict[str, float]:
    views = await client.list("resize", roots=False, live=True)
    return {view.id: (view.step.completed or 0.0) if view.step is not None else 0.0 for view in views}


async def _settled(client: progress.AsyncClient) -> dict[str, float] | None:
    """The counts once the tick of a second has shown the last of them."""
    before = await _counts(client)
    await client.wait("resize_all-1", until="end", timeout_s=1.2)
    return before if await _counts(client) == before else None


@pytest.mark.parametrize("method", ["spawn", "fork"])
async def test_a_parents_cancel_and_pause_reach_what_it_does_in_other_processes(method):
    async with progress.AsyncClient() as client:
        with commanded("pool", method) as program:

            async def children() -> list[OperationView] | None:
                try:
                    found = await client.list("resize", roots=False, live=True)
                except progress.FeedUnavailable:
                    return None
                moved = [view for view in found if view.step is not None and (view.step.completed or 0) > 5]
                return found if len(moved) == 2 else None

            await aeventually(children, 40)
            told = await client.command_and_wait("resize_all-1", "pause")
            assert told.applied, told
            first = await aeventually(lambda: _settled(client), 30)
            assert len(first) >= 2
            assert (await client.wait("resize_all-1", until="end", timeout_s=1.0)).reason == "timeout"
            assert await _counts(client) == first
            assert (await client.command_and_wait("resize_all-1", "resume")).applied
            assert (await client.command_and_wait("resize_all-1", "cancel", reason="enough")).applied
            assert program.stdout.readline() == "cancelled 'enough'\n"
            news = await client.wait("resize_all-1", until="end", timeout_s=20)
            assert news.operation.state == "cancelled"


async def test_a_pause_holds_a_worker_in_another_process_at_its_next_item_with_exact_counts(tmp_path):
    ledger = tmp_path / "ledger"

    async def agree() -> int | None:
        view = await client.get("resize-1")
        done = int(ledger.read_text() or 0)
        return done if view.step is not None and view.step.completed == done else None

    async with progress.AsyncClient() as client:
        with commanded("counted", str(ledger)) as program:
            child = await moving(client, "resize-1")
            assert child.process_id != program.pid
            assert (await client.command_and_wait("resize_all-1", "pause")).applied
            done = await aeventually(agree, 30)
            assert (await client.wait("resize_all-1", until="end", timeout_s=1.0)).reason == "timeout"
            assert await agree() == done, "it stood still, and the feed knows exactly where"
            assert (await client.command_and_wait("resize_all-1", "resume")).applied
            await aeventually(lambda: int(ledger.read_text() or 0) > done, 30)
            assert (await client.command_and_wait("resize_all-1", "cancel", reason="enough")).applied
            assert program.stdout.readline() == "cancelled 'enough'\n"
