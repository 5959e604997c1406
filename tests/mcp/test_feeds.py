"""The source over a client keeps the contract, at a real feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from otelprogress.feed.client import AsyncClient
from otelprogress.mcp.feeds import FeedsSource
from otelprogress.mcp.source import Viewer
from otelprogress.model.events import Event
from otelprogress.protocol.messages import Command, CommandStatus
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
