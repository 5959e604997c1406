"""The collector's source keeps the contract; and what only it has: tenants, services, tokens that end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from otelprogress.exceptions import UnknownOperation
from otelprogress.mcp import arguments
from otelprogress.mcp.calls import Calls
from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.source import ALL_SCOPES, Wanted
from otelprogress.model.events import Event
from otelprogress.protocol.command_judging import Asker
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import Command, CommandStatus
from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.mcp.source import CollectorViewer, HubSource
from tests.collector.api.kit import FakeAuthority, FakeHost
from tests.feed import fakes
from tests.mcp.contract import SourceContract, Starts, noted, started


class ApplyingHost(FakeHost):
    """Tells what it applied, too."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Callable[[Sequence[Any]], None]] = []

    def on_applied(self, listener: Callable[[Sequence[Any]], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.clear()

    def publish(self, *events: Event) -> None:
        for event in events:
            applied = self.hub.publish(event, self.clock.time_unix_ns())
            for listener in self.listeners:
                listener(applied)
        self.commit()


class HubWorld:
    def __init__(self) -> None:
        self.host = ApplyingHost()
        self.authority = FakeAuthority()
        self.source = HubSource(self.host, self.authority, self)
        self.viewer = viewer()
        self.commands: list[Command] = []
        self.askers: list[Asker] = []
        self.answer = lambda command: CommandStatus(command_id=command.command_id, status="unsupported")

    def submit(self, command: Command, asker: Asker, matcher: Matcher, now_unix_ns: int) -> CommandStatus:
        self.commands.append(command)
        self.askers.append(asker)
        return self.answer(command)

    async def publish(self, *events: Event) -> None:
        self.host.publish(*events)

    tick = publish


def viewer(**fields: Any) -> CollectorViewer:
    principal = Principal(**({"actor": "ada", "scopes": ALL_SCOPES} | fields))
    return CollectorViewer(actor=principal.actor, scopes=principal.scopes, principal=principal)


@pytest.fixture
def world():
    made = HubWorld()
    made.source.start()
    yield made
    made.source.stop()


class TestHubSource(SourceContract):
    @pytest.fixture
    def world(self, world):
        return world


@pytest.fixture
def calls(world: HubWorld) -> Calls:
    return Calls(world.source)


async def seen(world: HubWorld, who: CollectorViewer) -> list[str]:
    return [view.handle for view in (await world.source.search(who, Wanted(query="load"))).views]


async def test_a_viewer_sees_its_tenant_only_in_whatever_it_asks(world: HubWorld, calls: Calls) -> None:
    red, blue = viewer(tenant="red"), viewer(tenant="blue")
    await world.publish(started(tenant="red"))
    assert await seen(world, red) == ["nightly_load-1"]
    assert await seen(world, blue) == []
    for name in ("nightly_load-1", fakes.run_id(), "nightly"):
        with pytest.raises(UnknownOperation):
            await world.source.find(blue, name)
    position = (await world.source.since(blue, "", ())).position
    await world.publish(noted(2, tenant="red"))
    since = await world.source.since(blue, position, [fakes.run_id()])
    assert (since.events, since.before) == ([], {})
    assert len((await world.source.since(red, position, [fakes.run_id()])).events) == 1


async def test_who_follows_everything_hears_of_its_own_only(world: HubWorld) -> None:
    red, web = viewer(tenant="red"), viewer(tenant="red", services=("web",))
    hears_all, hears_web = world.source.follow(red, None), world.source.follow(web, None)
    await world.publish(started(tenant="red", service="etl"), started(tenant="blue", run=2))
    assert [event.operation.service for event in (await hears_all.take()).events] == ["etl"]
    assert not (await hears_web.take()).events
    hears_all.close()
    hears_web.close()


async def test_a_predicate_of_services_is_asked_in_every_lookup(world: HubWorld) -> None:
    web = viewer(services=("web",))
    await world.publish(started(service="etl"), started(run=2, service="web", writer_id="w2"))
    assert await seen(world, web) == ["nightly_load-2"]
    # What is hidden does not make a name ambiguous.
    assert (await world.source.find(web, "nightly")).handle == "nightly_load-2"


async def test_a_token_that_expires_ends_a_wait(world: HubWorld, calls: Calls) -> None:
    await world.publish(started())
    short = viewer(expires_at_unix_s=time.time() + 0.2)
    with pytest.raises(Refusal, match="the token expired"):
        await calls.wait(short, arguments.WaitArguments(ids=["nightly_load-1"], timeout_s=1))


async def test_a_token_that_is_revoked_hears_nothing_any_more(world: HubWorld) -> None:
    await world.publish(started())
    following = world.source.follow(world.viewer, [fakes.run_id()])
    await world.publish(noted(2))
    world.authority.denied.add("ada")
    with pytest.raises(Refusal, match="the token was revoked"):
        await following.take()
    following.close()


async def test_who_left_is_not_waited_for(world: HubWorld, calls: Calls, monkeypatch) -> None:
    monkeypatch.setattr("otelprogress.mcp.calls.REPORT_EVERY_S", 0.02)
    await world.publish(started())
    gone = msgspec.structs.replace(world.viewer, gone=lambda: True)
    with pytest.raises(Refusal, match="nobody listens"):
        await calls.wait(gone, arguments.WaitArguments(ids=["nightly_load-1"], timeout_s=600))
    assert not len(calls.places)


async def test_a_collector_that_ends_says_so_to_who_waits(world: HubWorld, calls: Calls) -> None:
    await world.publish(started())
    following = world.source.follow(world.viewer, [fakes.run_id()])
    world.source.stop()
    assert await following.wait(10)
    with pytest.raises(Refusal, match="the collector ends or restarts"):
        await following.take()
    following.close()


async def test_a_position_past_the_retention_of_the_log_gives_the_full_state(world: HubWorld) -> None:
    await world.publish(started())
    old = (await world.source.since(world.viewer, "", ())).position
    world.host.hub.ring._capacity = 1
    await world.publish(noted(2), noted(3))
    assert (await world.source.since(world.viewer, old, [fakes.run_id()])).before is None


async def test_nobody_looks_between_the_beginning_and_the_end_of_a_commit(world: HubWorld) -> None:
    world.host.begin()
    asking = asyncio.create_task(world.source.since(world.viewer, "", ()))
    await asyncio.sleep(0.01)
    assert not asking.done()
    world.host.commit()
    await asking


async def test_followings_that_are_closed_leave_nothing_behind(world: HubWorld) -> None:
    one, two = (world.source.follow(world.viewer, [fakes.run_id()]) for _ in range(2))
    one.close()
    two.close()
    two.close()
    assert not world.source._of_runs


@pytest.mark.parametrize("narrowed", [{"tenant": "blue"}, {"services": ("web",)}])
async def test_who_could_not_see_what_it_starts_starts_nothing(world: HubWorld, narrowed: Any) -> None:
    starts = Starts()
    calls = Calls(world.source, starter=starts)
    with pytest.raises(Refusal, match="forbidden: what is started here belongs to no tenant"):
        await calls.start(viewer(**narrowed), arguments.StartArguments(name="nightly"))
    assert starts.count == 0


async def test_a_command_is_given_in_the_name_of_the_principal(world: HubWorld, calls: Calls) -> None:
    await world.publish(started())
    with pytest.raises(Refusal, match="unsupported"):
        await calls.cancel(world.viewer, arguments.CancelArguments(id="nightly_load-1"))
    assert [asker.actor for asker in world.askers] == ["ada"]
