"""An operation of ten minutes that stalls, warns, asks and finishes; a seed decides when, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.protocol.messages import LinkCommand
from tests.agents.virtual_time import VirtualClock
from tests.agents.world import World
from tests.model.saying import Saying

DURATION_S = 600.0
PATIENCE_S = 300
"""How long it waits for an answer, before it takes the default."""
WARNING = "12 rows rejected: bad date"
QUESTION = "12 rows have no date. Skip them or abort?"
RESULT = {"rows": 119_988}


class Operation:
    """One run of a worker that is played.

    Args:
        world: hears of it.
        number: of the run, and of its writer.
        seed: of when what happens.
    """

    def __init__(self, world: World, *, number: int = 1, seed: int = 0, name: str = "nightly load") -> None:
        self.random = random.Random(seed)
        self.said = Saying(number, writer=f"w{number}", name=name)
        self.answer: Any = None
        self._world = world
        self._clock = VirtualClock()
        self._answered = asyncio.Event()
        self._on_its_way: set[asyncio.Task[None]] = set()
        world.workers[self.said.writer] = self.obey

    # --- what a worker does

    async def say(self, make: Callable[..., Event], *args: Any, **fields: Any) -> None:
        """Say something now. It takes a while to arrive, and may come after what was said later."""
        at_s = self._now_s()
        event = make(*args, at=at_s, **fields)
        task = asyncio.create_task(self._arrive(event))
        self._on_its_way.add(task)
        task.add_done_callback(self._on_its_way.discard)

    async def _arrive(self, event: Event) -> None:
        await asyncio.sleep(self.random.uniform(0.0, 0.4))
        await self._world.say(event)

    async def obey(self, command: LinkCommand) -> None:
        """Take the first answer, and refuse others."""
        await asyncio.sleep(self.random.uniform(0.0, 3.0))
        refused = self._answered.is_set()
        if not refused:
            self.answer = command.arguments["content"]
            self._answered.set()
        await self.say(
            self.said.event,
            semconv.CONTROL_REFUSED if refused else semconv.CONTROL_APPLIED,
            control_id=command.command_id,
            control_action=command.action,
            control_actor=command.actor,
            control_refusal="it is answered already, or was not asked" if refused else None,
        )

    # --- ten minutes

    async def run(self) -> None:
        """From its start to its end."""
        began_s = asyncio.get_running_loop().time()
        rng = self.random
        await self.say(
            self.said.started,
            title="nightly load 2026-11-21",
            steps=("extract", "clean", "load"),
            controls=("cancel", "input"),
        )
        ends_s = sorted(rng.uniform(60, 540) for _ in range(2))
        incidents: list[Callable[[], Awaitable[None]]] = [self._stall, self._warn, self._ask]
        rng.shuffle(incidents)
        due_s = sorted(rng.uniform(20, 440) for _ in incidents)
        notes_s = sorted(rng.uniform(20, 580) for _ in range(rng.randrange(3)))
        for name, until_s in zip(("extract", "clean", "load"), (*ends_s, DURATION_S), strict=True):
            total = rng.randrange(20_000, 200_000)
            await self.say(self.said.step, name, total=total, unit="{row}", completed=0)
            completed = 0
            while (now_s := asyncio.get_running_loop().time() - began_s) < until_s - 3.0:
                if due_s and now_s >= due_s[0]:
                    del due_s[0]
                    await incidents.pop()()
                    continue
                if notes_s and now_s >= notes_s[0]:
                    del notes_s[0]
                    await self.say(self.said.note, "checkpoint written", level="info")
                left = total - completed
                completed += round(left * 2.0 / max(2.0, until_s - now_s) * rng.uniform(0.8, 1.2))
                await self.say(
                    self.said.tick, completed=min(completed, total), total=total, unit="{row}", step_name=name
                )
                await asyncio.sleep(rng.uniform(0.5, 3.0))
            await self.say(self.said.step_ended, name, completed=total, total=total, unit="{row}")
        assert not incidents
        await asyncio.sleep(max(0.0, began_s + DURATION_S - asyncio.get_running_loop().time()))
        await self.say(self.said.ended, state=State.SUCCEEDED, result=json.dumps(RESULT))
        while self._on_its_way:
            await asyncio.gather(*self._on_its_way)

    async def _stall(self) -> None:
        await asyncio.sleep(self.random.uniform(45, 120))

    async def _warn(self) -> None:
        await self.say(self.said.note, WARNING, level="warning")

    async def _ask(self) -> None:
        await self.say(
            self.said.event,
            semconv.INPUT_REQUESTED,
            state=State.WAITING,
            input_id="in1",
            input_prompt=QUESTION,
            input_schema='{"enum": ["skip", "abort"]}',
            input_default='"skip"',
            input_deadline_unix_ns=self._clock.time_unix_ns() + PATIENCE_S * 10**9,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._answered.wait()
        self.answer = self.answer or "skip"
        await self.say(self.said.event, semconv.OPERATION_STATE_CHANGED, state=State.RUNNING)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
