"""An agent over MCP, without a model: it follows three jobs, answers one, cancels one, and reads why one failed.

It talks to `otelprogress mcp` through the official client, and decides from the text of the answers alone, as a language
model does: docs/digest.md is the grammar. A collector's `/mcp` has the same tools.
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

import otelprogress as progress

# --- the agent --------------------------------------------------------------------------------------------------------

STATUS = re.compile(r"(?P<handle>[a-z0-9_-]+) (?P<state>RUN|WAIT|PAUSED|DONE|FAILED|CANCELLED|LOST)\b")
QUESTION = re.compile(r"\? (?P<id>[a-z0-9_-]+) \{choice: (?P<choices>[^}]+)\}.* (?P<prompt>\".*\")")
WARNING = re.compile(r"(?:^|; )! (?P<text>\".*\")$")
ERROR = re.compile(r"(?:^|; )x (?P<text>\".*\")$")


@dataclass
class Told:
    """What an answer says of one operation."""

    handle: str
    state: str
    lines: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state in ("DONE", "FAILED", "CANCELLED", "LOST")

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((found for line in self.lines if (found := pattern.search(line))), None)


def read(digest: str) -> tuple[str, list[Told]]:
    """The position to go on from, and what is said of each operation."""
    first, *lines = digest.splitlines()
    operations: list[Told] = []
    for line in lines:
        if status := STATUS.match(line):
            operations.append(Told(status["handle"], status["state"], [line]))
        elif operations and not line.startswith("..."):
            operations[-1].lines.append(line)
    return first.split()[0], operations


class Refused(Exception):
    """What was asked for was not done, for the reason that the answer gives."""


class Agent:
    """Follows what runs in its own trace until all of it has ended."""

    def __init__(self, client: Client, traceparent: str) -> None:
        self.client = client
        self.meta = {"traceparent": traceparent}
        self.running: set[str] = set()

    async def ask(self, tool: str, **arguments: object) -> str:
        answer = await self.client.call_tool(f"progress_{tool}", arguments, meta=self.meta)
        text = answer.content[0].text
        if answer.is_error:
            raise Refused(text)
        return text

    async def follow(self) -> None:
        position, operations = read(await self.ask("list", mine=True))
        self.running = {each.handle for each in operations}
        while True:
            for each in operations:
                try:
                    await self.act(each)
                except Refused as refused:  # it ended meanwhile, or somebody else was faster
                    print(f"{each.handle}: {refused}", flush=True)
            if not self.running:
                return
            # No polling: the answer comes when one of them needs attention, or in half a minute.
            waited = await self.ask("wait", ids=sorted(self.running), since=position, timeout_s=30)
            position, operations = read(waited)

    async def act(self, told: Told) -> None:
        """Where a model would think. What stands in quotes is data: it is reported, and never obeyed."""
        if told.ended:
            self.running.discard(told.handle)
            print(f"{told.handle} {told.state.lower()}", flush=True)
        if told.state == "FAILED":
            _, (failed, *_) = read(await self.ask("get", id=told.handle, detail=True))
            error = failed.find(ERROR)
            print(f"{failed.lines[0]}: {json.loads(error['text']) if error else '?'}", flush=True)
        elif question := told.find(QUESTION):
            answer = question["choices"].split("|")[0]
            await self.ask("respond", id=told.handle, input_id=question["id"], content=answer)
            print(f"{told.handle} asked {question['prompt']}: {answer}", flush=True)
        elif not told.ended and (warning := told.find(WARNING)):
            await self.ask("cancel", id=told.handle, reason="it warned")
            print(f"{told.handle} warned {warning['text']}: cancelled", flush=True)


# --- the jobs, in a program of their own that knows of no agent -------------------------------------------------------


ALL_BEGAN = threading.Barrier(3, action=lambda: print("began", flush=True))
EXPORT_ENDED = threading.Event()


def export() -> None:
    with progress.operation("export", controls=["cancel"]) as operation:
        ALL_BEGAN.wait()
        for page in progress.track(itertools.count(), unit="page"):
            if page == 50:
                operation.note("the disk is almost full", level="warning")
            time.sleep(0.01)


def train() -> None:
    with progress.operation("train", controls=["input"]) as operation:
        ALL_BEGAN.wait()
        EXPORT_ENDED.wait()
        rate = 0.1
        for epoch in progress.track(range(20), unit="epoch"):
            if epoch == 5:
                answer = operation.request_input(
                    "the loss is flat, what about the learning rate?", {"enum": ["halve", "keep"]}
                )
                rate = rate / 2 if answer == "halve" else rate
            time.sleep(0.01)


def load() -> None:
    with progress.operation("load", steps=["read", "write"]):
        ALL_BEGAN.wait()
        with progress.step("read"):
            rows = ["2013-07-01"] * 99 + ["yesterday"]
        with progress.step("write") as step:
            for row in step.track(rows, unit="row"):
                time.strptime(row, "%Y-%m-%d")
                time.sleep(0.002)


def job(run: Callable[[], None]) -> None:
    try:
        run()
    except (ValueError, progress.OperationCancelled) as ended:
        print(f"{run.__name__}: {ended}", file=sys.stderr)
    finally:
        if run is export:
            EXPORT_ENDED.set()


def work() -> None:
    """Do all three at once; standard output says when all have begun."""
    progress.configure(view="off")
    threads = [threading.Thread(target=job, args=(run,)) for run in (export, train, load)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def main() -> None:
    # Whoever is started with the agent's trace context is part of its trace: `mine` finds that, and nothing else.
    traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    environment = os.environ | {"TRACEPARENT": traceparent}
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "otelprogress.cli.main", "mcp"], env=dict(os.environ)
    )
    jobs = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--work", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        if not await jobs.stdout.readline():
            sys.exit("the jobs did not begin")
        async with Client(stdio_client(server)) as client:
            await Agent(client, traceparent).follow()
    finally:
        if jobs.returncode is None:
            jobs.terminate()
        await jobs.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", action="store_true", help="be the program with the jobs")
    if parser.parse_args().work:
        work()
    else:
        asyncio.run(main())
