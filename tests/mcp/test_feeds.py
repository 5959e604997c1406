"""The source over a client keeps the contract, at a real feed."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from otelprogress.exceptions import AmbiguousOperation
from otelprogress.feed.client import AsyncClient
from otelprogress.mcp import feeds
from otelprogress.mcp.feeds import FeedsSource
from otelprogress.mcp.source import Viewer
from otelprogress.model.events import Event, OperationView, State
from otelprogress.protocol.messages import Command, CommandStatus
from tests.feed import fakes
from tests.feed.serving import TOKEN, real_host, serving
from tests.mcp.contract import SourceContract
from tests.waiting import aeventually


class CommandingClient(AsyncClient):
    """A client whose commands a test answers."""

    world: FeedsWorld

    async def command(self, operation: str, action: str, **said: Any) -> CommandStatus:
        command = Command(
            operation=operation,
            action=action,
            command_id=said["command_id"],
            arguments=said["arguments"],
            deadline_s=said["deadline_s"],
        )
        self.world.commands.append(command)
        return self.world.answer(command)


class FeedsWorld:
    def __init__(self, host: Any, source: FeedsSource) -> None:
        self.host = host
        self.source = source
        self.viewer = Viewer()
        self.commands: list[Command] = []
        self.answer = lambda command: CommandStatus(command_id=command.command_id, status="unsupported")

    async def publish(self, *events: Event) -> None:
        for event in events:
            before = self.source.mirror.position
            self.host.submit(event)
            await aeventually(lambda: self.source.mirror.position != before, every_s=0.002)

    async def tick(self, event: Event) -> None:
        before = self.source.mirror.view(event.run_id, 0)
        self.host.submit(event)
        await aeventually(
            lambda: self.source.mirror.view(event.run_id, 0).revision > before.revision, every_s=0.002
        )


class TestFeedsSource(SourceContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[FeedsWorld]:
        host = real_host()
        with serving(host) as server:
            client = CommandingClient(server.url, TOKEN)
            async with FeedsSource(client, history=False) as source:
                client.world = FeedsWorld(host, source)
                await source._settled.wait()
                yield client.world


@pytest.fixture
async def source(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FeedsSource]:
    monkeypatch.setattr(feeds, "_AGAIN_S", 0.01)
    with serving(real_host()) as server:
        async with FeedsSource(AsyncClient(server.url, TOKEN), history=False) as opened:
            yield opened


@pytest.mark.parametrize(
    "trouble", [sqlite3.OperationalError("disk I/O error"), AmbiguousOperation("several", [])]
)
async def test_a_history_that_cannot_be_read_once_is_read_again(
    source: FeedsSource, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    view = OperationView(
        id=fakes.run_id(), handle="load-1", name="load", state=State.RUNNING, revision=1, as_of_unix_ns=1
    )
    answers: list[OperationView | Exception] = [
        trouble,
        msgspec.structs.replace(view, state=State.SUCCEEDED, revision=2),
    ]

    def recorded(run_id: str, *, lose_orphans: bool) -> OperationView:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(feeds, "_recorded", recorded)
    source._take_recorded(view)
    await aeventually(lambda: not source._unheard)
    assert source.mirror.view(view.id, 0).state is State.SUCCEEDED


async def test_what_cannot_be_heard_once_is_listened_to_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeds, "_AGAIN_S", 0.01)
    watches = AsyncClient.watch
    troubles = [RuntimeError("a fault of ours"), RuntimeError("a fault of ours")]

    def watch(self: AsyncClient, *clauses: Any, **said: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return watches(self, *clauses, **said)

    monkeypatch.setattr(AsyncClient, "watch", watch)
    host = real_host()
    host.submit(fakes.started())
    with serving(host) as server:
        async with FeedsSource(AsyncClient(server.url, TOKEN), history=False) as opened:
            await aeventually(lambda: opened.mirror.knows(fakes.run_id()))
    assert caplog.text.count("nothing is heard for now, which is a bug") == 1
