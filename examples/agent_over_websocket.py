"""An agent over the feed itself, without a model and without a client of ours: JSON over a WebSocket, docs/protocol.md.

It follows three jobs by digest (docs/digest.md), answers the one that asks, cancels the one that warns, and reads why one
failed. A lost connection costs it nothing: it goes on from the last position, and sends what has no answer yet again,
under the same id. A collector speaks the same: `--url ws://HOST:4318 --token-file FILE`.
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import otelprogress as progress  # the jobs use it, the agent does not

# --- the agent --------------------------------------------------------------------------------------------------------

STATUS = re.compile(r"(?P<handle>[a-z0-9_-]+) (?P<state>RUN|WAIT|PAUSED|DONE|FAILED|CANCELLED|LOST)\b")
QUESTION = re.compile(r"\? (?P<id>[a-z0-9_-]+) \{choice: (?P<choices>[^}]+)\}.* (?P<prompt>\".*\")")
WARNING = re.compile(r"(?:^|; )! (?P<text>\".*\")$")
ERROR = re.compile(r"(?:^|; )x (?P<text>\".*\")$")


@dataclass
class Told:
    """What a digest says of one operation."""

    handle: str
    state: str
    lines: list[str] = field(default_factory=list)

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((found for line in self.lines if (found := pattern.search(line))), None)


def read(digest: str) -> Iterator[Told]:
    """The operations of a digest. Its first line says where to go on and why it speaks."""
    told: Told | None = None
    for line in digest.splitlines()[1:]:
        if status := STATUS.match(line):
            if told is not None:
                yield told
            told = Told(status["handle"], status["state"])
        elif told is not None:
            told.lines.append(line)
    if told is not None:
        yield told


@dataclass
class Agent:
    """Follows what runs in one trace until all of it has ended."""

    url: str
    token: str
    trace_id: str
    cursor: str | None = None
    running: set[str] = field(default_factory=set)
    unanswered: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Commands by their id."""

    async def follow(self) -> None:
        # The iterator connects again, with growing pauses, as often as the connection is lost.
        async for feed in connect(
            f"{self.url}/v1/feed", subprotocols=["otelprogress.v1.json"], compression=None
        ):
            try:
                await self.greet(feed)
                async for frame in feed:
                    await self.hear(feed, json.loads(frame))
                    if self.cursor is not None and not self.running and not self.unanswered:
                        return
            except ConnectionClosed as closed:
                if closed.rcvd is not None and 4000 <= closed.rcvd.code < 4500:
                    raise  # by the protocol: do not try again

    async def greet(self, feed: ClientConnection) -> None:
        await send(feed, type="hello", version=1, client="agent", token=self.token)
        wanted = {"trace_id": [self.trace_id]}
        position = {"cursor": self.cursor} if self.cursor else {}
        await send(feed, type="subscribe", id="1", render="digest", filter=wanted, **position)
        for command in self.unanswered.values():
            await send(feed, **command)

    async def hear(self, feed: ClientConnection, message: dict[str, Any]) -> None:
        match message["type"]:
            case "digest":
                decided: list[dict[str, Any]] = []
                for told in read(message["text"]):
                    self.note(told)
                    decided += self.decide(told)
                # First it is certain what is to be done and where to go on: the connection may break while it is said.
                self.unanswered |= {command["command_id"]: command for command in decided}
                self.cursor = message["cursor"]
                for command in decided:
                    await send(feed, **command)
            case "command_status":
                asked = self.unanswered.pop(message["command_id"])
                if message["status"] not in (
                    "accepted",
                    "duplicate",
                ):  # it ended meanwhile, or somebody was faster
                    print(f"{asked['operation']}: {asked['action']} {message['status']}", flush=True)
            case "error":
                sys.exit(f"the feed refuses: {message['message']}")

    def note(self, told: Told) -> None:
        if told.state in ("RUN", "WAIT", "PAUSED"):
            self.running.add(told.handle)
            return
        self.running.discard(told.handle)
        error = told.find(ERROR) if told.state == "FAILED" else None
        why = f": {json.loads(error['text'])}" if error else ""
        print(f"{told.handle} {told.state.lower()}{why}", flush=True)

    def decide(self, told: Told) -> Iterator[dict[str, Any]]:
        """Where a model would think. What stands in quotes is data: it is reported, and never obeyed."""
        if told.handle not in self.running:
            return
        if question := told.find(QUESTION):
            answer = question["choices"].split("|")[0]
            print(f"{told.handle} asks {question['prompt']}: {answer}", flush=True)
            yield command(told.handle, "input", input_id=question["id"], content=answer)
        elif warning := told.find(WARNING):
            print(f"{told.handle} warns {warning['text']}: cancel", flush=True)
            yield command(told.handle, "cancel", reason="it warned")


def command(operation: str, action: str, **arguments: str) -> dict[str, Any]:
    return {
        "type": "command",
        "command_id": secrets.token_hex(8),
        "operation": operation,
        "action": action,
        "arguments": arguments,
        "deadline_s": 30.0,
    }


async def send(feed: ClientConnection, **message: Any) -> None:
    await feed.send(json.dumps(message))


# --- the jobs, in a program of their own that knows of no agent -------------------------------------------------------


ALL_BEGAN = threading.Barrier(3, action=lambda: print("began", flush=True))


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
        rate = 0.1
        for epoch in progress.track(range(20), unit="epoch"):
            if epoch == 5:
                answer = operation.request_input("the loss is flat: what now?", {"enum": ["halve", "keep"]})
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


def work() -> None:
    """Do all three at once, and stay until the input is closed; standard output says when all have begun."""
    progress.configure(view="off")
    threads = [threading.Thread(target=job, args=(run,)) for run in (export, train, load)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdin.read()


def address(folder: Path) -> tuple[str, str]:
    """A program with a feed says in a file, for its own user only, where it listens and how to get in."""
    (found,) = (json.loads(path.read_text()) for path in folder.glob("*.json"))
    return found["url"], found["token"]


async def follow_own_jobs(folder: Path) -> None:
    trace_id = secrets.token_hex(16)
    jobs = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--work",
        env=os.environ
        | {
            "TRACEPARENT": f"00-{trace_id}-{secrets.token_hex(8)}-01",
            "OTELPROGRESS_RUNTIME_DIR": str(folder),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if not await jobs.stdout.readline():
            sys.exit("the jobs did not begin")
        await Agent(*address(folder), trace_id).follow()
    finally:
        jobs.stdin.close()
        await jobs.wait()


async def main(options: argparse.Namespace) -> None:
    if options.url:
        await Agent(options.url, options.token_file.read_text().strip(), options.trace_id).follow()
        return
    with tempfile.TemporaryDirectory() as folder:
        await follow_own_jobs(Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--url", metavar="ws://HOST:PORT", help="a feed that is there; default: of jobs of its own"
    )
    parser.add_argument("--token-file", type=Path, help="with --url")
    parser.add_argument("--trace-id", help="with --url: what to follow")
    parser.add_argument("--work", action="store_true", help="be the program with the jobs")
    chosen = parser.parse_args()
    if chosen.work:
        work()
    else:
        asyncio.run(main(chosen))
