"""The official MCP client, as an agent's program uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

MODERN, LEGACY = "2026-07-28", "legacy"
ERAS = (MODERN, LEGACY)


def text_of(result: CallToolResult) -> str:
    """The one text of an answer."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    assert result.structured_content is None, "some clients would pay for it twice"
    return content.text


class Agent:
    """Calls tools, and keeps the positions that it was given."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def ask(self, tool: str, **arguments: Any) -> str:
        """A text that is no refusal."""
        result = await self.client.call_tool(f"progress_{tool}", arguments)
        assert not result.is_error, text_of(result)
        return text_of(result)

    async def refused(self, tool: str, **arguments: Any) -> str:
        """A text that is one."""
        result = await self.client.call_tool(f"progress_{tool}", arguments)
        assert result.is_error, text_of(result)
        return text_of(result)


def position_of(text: str) -> str:
    """Where a digest says to go on."""
    assert text.startswith("@"), text
    return text.split(maxsplit=1)[0]


def why_of(text: str) -> str:
    """Why a digest speaks."""
    return text.split("\n", 1)[0].partition("why: ")[2].removesuffix(" full")


@asynccontextmanager
async def over_http(
    port: int, token: str | None, mode: str = MODERN, *, headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Agent]:
    """An agent at a collector."""
    said = ({"Authorization": f"Bearer {token}"} if token else {}) | (headers or {})
    async with (
        httpx2.AsyncClient(headers=said, timeout=60) as http,
        Client(
            streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http), mode=mode, **options
        ) as client,
    ):
        yield Agent(client)


@asynccontextmanager
async def over_stdio(mode: str = MODERN, *arguments: str, **options: Any) -> AsyncIterator[Agent]:
    """An agent at `otelprogress mcp`, which its client starts."""
    program = StdioServerParameters(
        command=sys.executable,
        args=["-m", "otelprogress.cli.main", "mcp", *arguments],
        env=dict(os.environ),
    )
    async with Client(stdio_client(program), mode=mode, **options) as client:
        yield Agent(client)
