"""An agent follows operations by what it reads, and what that costs. Time is virtual; everything else is the product."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from otelprogress.model import semconv
from otelprogress.model.events import State, StepState
from otelprogress.protocol.messages import LinkCommand
from tests.agents.agent import Agent, Known, Refused
from tests.agents.operation import QUESTION, RESULT, WARNING, Operation
from tests.agents.virtual_time import run_virtually
from tests.agents.world import World, open_world
from tests.model.digest_grammar import Digest, parse
from tests.model.saying import TRACE, Saying

SEEDS = range(24)
MODES = ("auto", "legacy")
HANDLE = "nightly_load-1"


def in_a_world(test: Callable[[World], Awaitable[Any]]) -> Any:
    """Run something in a world of its own, which has nothing left to do for anybody afterwards."""

    async def main() -> Any:
        async with open_world() as world:
            answer = await test(world)
            await asyncio.sleep(1)
            assert world.left_behind == (0, 0, 0)
            return answer

    return run_virtually(main())


def followed(seed: int, limit_s: float | None) -> tuple[Agent, Known, Operation]:
    """An agent that comes in a few seconds after the start, and stays to the end."""

    async def scenario(world: World) -> tuple[Agent, Known, Operation]:
        operation = Operation(world, seed=seed)
        running = asyncio.create_task(operation.run())
        await asyncio.sleep(operation.random.uniform(1, 5))
        async with world.client() as client:
            agent = Agent(client, limit_s)
            known = await agent.follow()
        await running
        return agent, known, operation

    return in_a_world(scenario)


def knows_all(known: Known, operation: Operation) -> bool:
    """Whether what was read is what happened, each thing once."""
    for each in ("stalled", "!", "+ extract", "+ clean", "+ load", "result", "input applied"):
        assert sum(change.startswith(each) for change in known.changes) == 1, (each, known.changes)
    # A question ends a stall, too.
    assert 1 <= sum(change.startswith("resumed") for change in known.changes) <= 2
    assert [known.texts.count(text) for text in (WARNING, QUESTION, json.dumps(RESULT))] == [1, 1, 1]
    assert operation.answer == "skip"
    return (known.state, known.percent) == ("DONE", 100)


# --- ten minutes


@pytest.mark.parametrize("seed", SEEDS)
def test_an_agent_that_waits_as_long_as_it_likes_follows_in_six_calls_and_six_hundred_tokens(seed):
    agent, known, operation = followed(seed, None)
    assert knows_all(known, operation)
    assert len(agent.calls) <= 6
    assert agent.tokens <= 600, "\n".join(map(str, agent.calls))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_client_of_sixty_seconds_follows_in_fourteen_calls_and_a_thousand_tokens(seed):
    agent, known, operation = followed(seed, 60)
    assert knows_all(known, operation)
    assert len(agent.calls) <= 14
    assert agent.tokens <= 1_000, "\n".join(map(str, agent.calls))
    assert max(call.took_s for call in agent.calls) < 60


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_a_client_of_five_seconds_follows_too(seed):
    agent, known, operation = followed(seed, 5)
    assert knows_all(known, operation)
    assert max(call.took_s for call in agent.calls) < 5
    # It waits all the time: what it pays for is how often it has to ask.
    assert len(agent.calls) <= 600 / 4 + 6


@pytest.mark.parametrize("limits", [(None, None), (None, 60), (60, 5)])
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_two_agents_follow_at_once_and_one_answer_counts(seed, limits):
    async def scenario(world: World) -> None:
        operation = Operation(world, seed=seed)
        running = asyncio.create_task(operation.run())
        await asyncio.sleep(2)
        async with world.client("ada") as first, world.client("bob") as second:
            agents = [Agent(client, limit) for client, limit in zip((first, second), limits, strict=True)]
            knowing = await asyncio.gather(*(agent.follow() for agent in agents))
        await running
        assert [known.state for known in knowing] == ["DONE", "DONE"]
        for known in knowing:
            assert [known.texts.count(text) for text in (WARNING, QUESTION)] == [1, 1]
            assert known.changes.count("input applied") == 1
        assert operation.answer == "skip"

    in_a_world(scenario)


# --- silence


async def silence(world: World, seconds: float) -> None:
    """An operation that says that it starts, and that it ends."""
    said = Saying(name="reindex")
    loop = asyncio.get_running_loop()
    await world.say(said.started(loop.time()))
    await asyncio.sleep(seconds)
    await world.say(said.ended(loop.time()))


@pytest.mark.parametrize(("limit_s", "calls", "tokens"), [(None, 2, 110), (60, 12, 500)])
def test_a_silent_operation_costs_nothing_but_its_waits(limit_s, calls, tokens):
    async def scenario(world: World) -> None:
        running = asyncio.create_task(silence(world, 590))
        await asyncio.sleep(1)
        async with world.client() as client:
            agent = Agent(client, limit_s)
            known = await agent.follow()
        await running
        assert known.state == "DONE"
        waits = [call.answer for call in agent.calls[1:-1]]
        assert [answer for answer in waits if answer.count("\n") > 1] == []
        assert len(agent.calls) <= calls
        assert agent.tokens <= tokens, "\n".join(map(str, agent.calls))

    in_a_world(scenario)


def test_a_client_that_counts_any_word_as_life_hears_one_every_five_seconds():
    async def scenario(world: World) -> None:
        running = asyncio.create_task(silence(world, 120))
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        heard_s = [loop.time()]

        async def hear(done: float, total: float | None, message: str | None) -> None:
            heard_s.append(loop.time())
            assert message == "reindex-1 running"

        async with world.client() as client:
            await client.call_tool(
                "progress_wait", {"ids": ["reindex-1"], "timeout_s": 600}, progress_callback=hear
            )
        heard_s.append(loop.time())
        await running
        assert heard_s[-1] - heard_s[0] > 118
        assert max(after - before for before, after in zip(heard_s, heard_s[1:], strict=False)) <= 5

    in_a_world(scenario)


# --- failure


@pytest.mark.parametrize("steps_before", [1, 80])
@pytest.mark.parametrize("step", ["load", "Load the rows"])
def test_a_failure_is_explained_in_one_get(step, steps_before):
    async def scenario(world: World) -> None:
        said = Saying()
        before = [f"part{number}" for number in range(steps_before)]
        await world.say(said.started(0, steps=(*before, step)))
        for name in before:
            await world.say(said.step(name, 1), said.step_ended(name, 2))
        await world.say(
            said.step(step, 3, total=120_000, unit="{row}"),
            said.note("12 rows rejected", 4, level="warning"),
            said.tick(5, 61_200, 120_000, unit="{row}", step_name=step, counters={"failed": 12}),
            said.step_ended(step, 6, StepState.FAILED),
            said.ended(6, State.FAILED, error_type="OSError", error_message="no space left on device"),
        )
        async with world.client() as client:
            agent = Agent(client)
            digest = await agent.ask("progress_get", id="nightly")
        (operation,) = digest.operations
        assert (digest.why, operation.state, operation.trace) == ("failed", "FAILED", TRACE)
        failed_in = operation.step
        assert (failed_in.name, failed_in.number, failed_in.of) == (step, steps_before + 1, steps_before + 1)
        assert (failed_in.done, failed_in.total, failed_in.unit) == ("61.2k", "120k", "row")
        assert failed_in.counters == {"failed": "12"}
        assert "OSError: no space left on device" in operation.texts
        assert agent.tokens <= 400

    in_a_world(scenario)


# --- what an agent says


def obeying(
    world: World, said: Saying, after_s: float, kind: str = semconv.CONTROL_APPLIED, **fields: Any
) -> None:
    """Have a worker come by its gate only after a while."""

    async def obey(command: LinkCommand) -> None:
        await asyncio.sleep(after_s)
        at_s = asyncio.get_running_loop().time()
        await world.say(
            said.event(kind, at_s, control_id=command.command_id, control_action=command.action, **fields)
        )
        if kind == semconv.CONTROL_APPLIED:
            await world.say(said.ended(at_s, State.CANCELLED))

    world.workers[said.writer] = obey


@pytest.mark.parametrize(("after_s", "first"), [(0.5, "cancel applied"), (20, "cancel accepted")])
def test_an_agent_cancels_and_hears_of_the_end(after_s, first):
    async def scenario(world: World) -> None:
        said = Saying()
        await world.say(said.started(0, controls=("cancel",)))
        obeying(world, said, after_s)
        async with world.client() as client:
            agent = Agent(client, 60)
            digest = await agent.ask("progress_cancel", id=HANDLE, reason="wrong day")
            assert digest.operations[0].changes[0] == first
            known = await agent.see_through(HANDLE, digest)
        assert known.state == "CANCELLED"
        assert known.changes.count("cancel applied") == 1
        assert len(agent.calls) == 2

    in_a_world(scenario)


def test_an_agent_whose_cancel_is_refused_hears_it_at_once():
    async def scenario(world: World) -> None:
        said = Saying()
        await world.say(said.started(0, controls=("cancel",)))
        obeying(world, said, 20, semconv.CONTROL_REFUSED, control_refusal="expired")
        async with world.client() as client:
            agent = Agent(client)
            await agent.ask("progress_cancel", id=HANDLE)
            digest = await agent.wait(HANDLE)
        assert digest.why == "warning"
        assert digest.operations[0].changes == ["cancel refused"]
        assert digest.operations[0].texts == ["expired"]
        assert agent.calls[-1].took_s < 20

    in_a_world(scenario)


def test_what_cannot_be_done_is_said_in_one_line_that_tells_what_to_do():
    async def scenario(world: World) -> None:
        said = Saying()
        await world.say(said.started(0, controls=("cancel",)))
        async with world.client() as client, world.client("eve", scopes=frozenset()) as powerless:
            agent, eve = Agent(client), Agent(powerless)
            for one, tool, arguments, word in (
                (agent, "progress_get", {"id": "nothing"}, "not_found: "),
                (agent, "progress_signal", {"id": HANDLE, "action": "pause"}, "unsupported: "),
                (agent, "progress_cancel", {"id": HANDLE}, "no_worker: "),
                (agent, "progress_respond", {"id": HANDLE, "content": "yes"}, "invalid: "),
                (agent, "progress_wait", {"ids": [HANDLE], "timeout_s": 0}, "invalid arguments: "),
                (eve, "progress_cancel", {"id": HANDLE}, "forbidden: "),
            ):
                with pytest.raises(Refused, match=f"^{word}[^\n]+$"):
                    await one.ask(tool, **arguments)
        assert world.commands == []

    in_a_world(scenario)


# --- leaving


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_a_wait_that_is_abandoned_leaves_nothing_behind_and_cancels_nothing(seed, mode):
    async def scenario(world: World) -> None:
        operation = Operation(world, seed=seed)
        rng = random.Random(seed)
        running = asyncio.create_task(operation.run())
        await asyncio.sleep(2)
        async with world.client(mode=mode) as client:
            agent = Agent(client)
            digest = await agent.ask("progress_list")
            for _ in range(10):
                waiting = asyncio.create_task(agent.wait(HANDLE))
                await asyncio.sleep(rng.uniform(0.0, 15.0))
                waiting.cancel()
                (answer,) = await asyncio.gather(waiting, return_exceptions=True)
                digest = answer if isinstance(answer, Digest) else digest
                await asyncio.sleep(0.1)
                assert world.left_behind == (0, 0, 0)
            # What it had heard before it left, and what it missed, come once.
            assert knows_all(await agent.see_through(HANDLE, digest), operation)
        await running
        assert [command.action for command in world.commands] == ["input"]

    in_a_world(scenario)


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_gives_up_sooner_than_it_said_finds_all_at_its_next_call(mode):
    async def scenario(world: World) -> None:
        operation = Operation(world, seed=3)
        running = asyncio.create_task(operation.run())
        await asyncio.sleep(2)
        async with world.client(mode=mode) as client:
            agent = Agent(client, 5)
            digest = await agent.ask("progress_list")
            agent.wait_s = 600
            given_up = 0
            while given_up < 8:
                try:
                    await agent.wait(HANDLE)
                except MCPError:
                    given_up += 1
                    await asyncio.sleep(0.1)
                    assert world.left_behind == (0, 0, 0)
            agent.wait_s = 4
            known = await agent.see_through(HANDLE, digest)
        await running
        assert known.state == "DONE"

    in_a_world(scenario)


def test_a_position_lost_costs_one_full_digest_and_no_more():
    async def scenario(world: World) -> None:
        operation = Operation(world, seed=1)
        running = asyncio.create_task(operation.run())
        await asyncio.sleep(200)
        async with world.client() as client:
            agent = Agent(client, 60)
            agent.position = "zz99"
            answers = [await agent.wait(HANDLE)]
            known = await agent.see_through(HANDLE, answers[0])
        await running
        assert known.state == "DONE"
        assert answers[0].full
        assert [parse(call.answer).full for call in agent.calls[1:]] == [False] * (len(agent.calls) - 1)

    in_a_world(scenario)
