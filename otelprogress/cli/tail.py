"""`otelprogress tail`: every event as it comes, for programs and for language models."""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from otelprogress.cli import connection, options
from otelprogress.cli.output import json_line, say

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient


class Level(StrEnum):
    """How much is told."""

    TICKS = "ticks"
    MILESTONES = "milestones"
    TERMINAL = "terminal"


def tail(
    *,
    name: options.Name = None,
    level: Annotated[
        Level,
        typer.Option(
            "--level", help="ticks: everything; milestones: all but counts; terminal: outcomes only."
        ),
    ] = Level.MILESTONES,
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", metavar="CURSOR", help="Go on after the line that had this cursor."),
    ] = None,
    max_rate_hz: Annotated[
        float | None,
        typer.Option(
            "--max-rate", min=0.01, metavar="HZ", help="At most so many ticks a second of one operation."
        ),
    ] = None,
    children: Annotated[
        bool, typer.Option("--children/--roots", help="Also operations that belong to another operation.")
    ] = True,
    digest: Annotated[
        bool, typer.Option("--digest", help="Short text for language models instead of JSON.")
    ] = False,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """Print every event as a line of JSON, as it comes.

    A line has the event's kind, the state of its operation after it, and the cursor to go on from.
    """
    client = connection.open_client(url, token_file)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_tail(client, name, level, cursor, max_rate_hz, children=children))


async def _tail(
    client: AsyncClient,
    name: str | None,
    level: Level,
    cursor: str | None,
    max_rate_hz: float | None,
    *,
    children: bool,
) -> None:
    import msgspec

    async with client:
        watched = client.watch(
            name, level=level.value, cursor=cursor, max_rate_hz=max_rate_hz, roots=not children
        )
        async for event in watched:
            say(json_line({**msgspec.to_builtins(event), "cursor": watched.cursor}))
