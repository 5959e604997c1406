"""An agent that knows only what it is told: it decides from texts, read by the grammar of docs/digest.md.

It counts what it costs: its calls, and the tokens of each call's name, arguments and answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from mcp import Client
from mcp_types import CallToolResult, TextContent

from tests.model.digest_grammar import Digest, Operation, parse
from tests.tokenizer import count_tokens

OUTCOMES = frozenset({"DONE", "FAILED", "CANCELLED", "LOST"})


@dataclass
class Call:
    """One call of a tool, as a conversation keeps it."""

    tool: str
    arguments: dict[str, Any]
    answer: str
    at_s: float
    """When the answer was there."""
    took_s: float

    @property
    def tokens(self) -> int:
        return count_tokens(f"{self.tool}{json.dumps(self.arguments)}") + count_tokens(self.answer)

    def __str__(self) -> str:
        said = f"{self.tool}{json.dumps(self.arguments)}"
        return f"--- {self.at_s:.1f}s, {self.took_s:.1f}s, {self.tokens} tokens\n{said}\n{self.answer}"


@dataclass
class Known:
    """What the agent has read of one operation."""

    handle: str
    state: str = ""
    percent: int | None = None
    stalled: bool = False
    changes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def read(self, operation: Operation) -> None:
        self.state, self.stalled = operation.state, operation.stalled
        self.percent = operation.percent if operation.percent is not None else self.percent
        self.changes += operation.changes
        self.texts += operation.texts
        if operation.question is not None:
            self.texts.append(operation.question["prompt"] or "")


class Refused(Exception):
    """The answer to a call is an error, in these words."""


class Agent:
    """See the module.

    Args:
        client: connected.
        limit_s: its client gives up a call that takes longer; `None`: it has all the time of the world.
    """

    def __init__(self, client: Client, limit_s: float | None = None) -> None:
        self.client = client
        self.limit_s = limit_s
        # The answer has to come before the client gives up, and it needs some time for the way.
        self.wait_s = 600 if limit_s is None else int(limit_s) - 1
        self.calls: list[Call] = []
        self.known: dict[str, Known] = {}
        self.position = ""
        """Of the last digest."""

    @property
    def tokens(self) -> int:
        """What the conversation was charged for."""
        return sum(call.tokens for call in self.calls)

    async def call(self, tool: str, **arguments: Any) -> str:
        """Call a tool; a call over the limit raises, as its client does."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        result = await self.client.call_tool(tool, arguments, read_timeout_seconds=self.limit_s)
        took_s = loop.time() - began_s
        answer = text_of(result)
        self.calls.append(Call(tool, arguments, answer, loop.time(), took_s))
        if result.is_error:
            raise Refused(answer)
        return answer

    async def ask(self, tool: str, **arguments: Any) -> Digest:
        """Call a tool, and read its answer."""
        digest = parse(await self.call(tool, **arguments))
        self.position = digest.position
        for operation in digest.operations:
            self.known.setdefault(operation.handle, Known(operation.handle)).read(operation)
        return digest

    async def follow(self, **query: Any) -> Known:
        """Find the operation that runs, see it through, answer what it asks; returns what was read of it."""
        digest = await self.ask("progress_list", **query)
        (found,) = [each.handle for each in digest.operations if each.state not in OUTCOMES]
        return await self.see_through(found, digest)

    async def see_through(self, handle: str, digest: Digest | None = None) -> Known:
        """Follow one operation from a digest on, to its end."""
        while handle not in self.known or self.known[handle].state not in OUTCOMES:
            asking = [each for each in digest.operations if each.handle == handle] if digest else []
            digest = None
            if asking and asking[0].question is not None:
                with contextlib.suppress(Refused):  # somebody else was faster
                    digest = await self._answer(self.known[handle], asking[0])
            if digest is None:
                digest = await self.wait(handle)
        return self.known[handle]

    async def wait(self, handle: str) -> Digest:
        """Wait until it needs attention, as long as the client's patience lasts."""
        return await self.ask("progress_wait", ids=[handle], since=self.position, timeout_s=self.wait_s)

    async def _answer(self, known: Known, operation: Operation) -> Digest:
        question = operation.question
        assert question is not None
        choices = (question["choices"] or "").split("|")
        return await self.ask(
            "progress_respond",
            id=known.handle,
            input_id=question["id"],
            content=question["default"] or choices[0] or "go on",
            then_wait_s=self.wait_s,
        )


def text_of(result: CallToolResult) -> str:
    """The one text of an answer."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text
