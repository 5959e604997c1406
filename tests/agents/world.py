"""A collector's host and its MCP server in virtual time: no sockets, no threads, and workers that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from mcp import Client

from otelprogress.mcp.calls import Calls
from otelprogress.mcp.server import build_server
from otelprogress.mcp.source import ALL_SCOPES
from otelprogress.model.events import Event
from otelprogress.protocol.messages import CommandStatus, LinkCommand
from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.commanding import Commanding
from otelprogress_collector.host import CollectorHost
from otelprogress_collector.mcp.source import CollectorViewer, HubSource
from otelprogress_collector.recording import open_hub
from otelprogress_collector.store.memory import MemoryStore
from tests.agents.virtual_time import VirtualClock
from tests.collector.api.kit import FakeAuthority

Obey = Callable[[LinkCommand], Awaitable[None]]


class World:
    """The parts of a collector that stand between a worker's events and an agent's texts, as its app joins them."""

    def __init__(self) -> None:
        clock = VirtualClock()
        store = MemoryStore()
        hub, recorder = open_hub(store, store.open(), clock.time_unix_ns())
        self.host = CollectorHost(hub, store, recorder, clock=clock)
        self.workers: dict[str, Obey] = {}
        """What each writer does with a command that it is sent."""
        self.commands: list[LinkCommand] = []
        """All that workers were sent."""
        self.commanding = Commanding(self.host, self)
        self.source = HubSource(self.host, FakeAuthority(), self.commanding)
        self.calls = Calls(self.source, clock=clock.monotonic_s)
        self._obeying: set[asyncio.Task[None]] = set()

    async def say(self, *events: Event) -> None:
        """Take the events of a worker's; returns once they are durable."""
        accepted = await self.host.accept(events, 1)
        assert not accepted.rejected, accepted.reason

    def connected_now(self, writer_id: str, tenant: str) -> bool:
        """Of `commanding.Links`."""
        return writer_id in self.workers

    def command(self, writer_id: str, tenant: str, command: LinkCommand) -> None:
        """Of `commanding.Links`: the link takes a tenth of a second, and the worker says that it has it."""
        self.commands.append(command)

        async def pass_on() -> None:
            await asyncio.sleep(0.1)
            self.commanding.received(
                writer_id, tenant, CommandStatus(command_id=command.command_id, status="accepted")
            )
            await self.workers[writer_id](command)

        task = asyncio.create_task(pass_on())
        self._obeying.add(task)
        task.add_done_callback(self._obeying.discard)

    @asynccontextmanager
    async def client(self, actor: str = "ada", mode: str = "auto", **fields: Any) -> AsyncIterator[Client]:
        """The official client, at the collector's server."""
        principal = Principal(**({"actor": actor, "scopes": ALL_SCOPES} | fields))
        viewer = CollectorViewer(actor=actor, key=actor, scopes=principal.scopes, principal=principal)
        async with Client(build_server(self.calls, lambda _: viewer, version="0"), mode=mode) as client:
            yield client

    @property
    def left_behind(self) -> tuple[int, int, int]:
        """Places of waits, runs that are followed, and those who follow everything."""
        return len(self.calls.places), len(self.source._of_runs), len(self.source._of_all)


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """A world that runs."""
    async with AsyncExitStack() as stack:
        world = World()
        world.host.start()
        stack.push_async_callback(world.host.close)
        stack.callback(world.commanding.close)
        world.source.start()
        stack.callback(world.source.stop)
        yield world
