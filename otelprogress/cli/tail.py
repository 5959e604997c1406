"""`otelprogress tail`: every event as it comes, for programs and for language models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from otelprogress.cli import connection, options
from otelprogress.cli.output import json_line, say, while_read

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.feed.watch import Watch


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
    every_s: Annotated[
        float,
        typer.Option(
            "--every",
            min=0,
            metavar="SECONDS",
            help="With --digest: what happens within so long is told at once.",
        ),
    ] = 1.0,
    max_tokens: Annotated[
        int,
        typer.Option("--max-tokens", min=50, metavar="N", help="With --digest: the budget of one, about."),
    ] = 800,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """Print every event as a line of JSON, as it comes.

    A line has the event's kind, the state of its operation after it, and the cursor to go on from.
    """
    client = connection.open_client(url, token_file)
    asyncio.run(
        _tail(
            client,
            lambda: client.watch(
                name, level=level.value, cursor=cursor, max_rate_hz=max_rate_hz, roots=not children
            ),
            digest_every_s=every_s if digest else None,
            max_tokens=max_tokens,
        )
    )


async def _tail(
    client: AsyncClient, open_watch: Callable[[], Watch], *, digest_every_s: float | None, max_tokens: int
) -> None:
    async with client:
        watched = open_watch()
        if digest_every_s is None:
            await while_read(_print_events(watched))
        else:
            await while_read(_print_digests(watched, digest_every_s, max_tokens))


async def _print_events(watched: Watch) -> None:
    import msgspec

    async for event in watched:
        say(json_line({**msgspec.to_builtins(event), "cursor": watched.cursor}))


async def _print_digests(watched: Watch, every_s: float, max_tokens: int) -> None:
    from otelprogress.cli.digesting import Digester

    digester = Digester(max_tokens=max_tokens)
    heard = asyncio.Event()

    async def listen() -> None:
        async for event in watched:
            digester.add(event)
            heard.set()

    listener = asyncio.create_task(listen())
    listener.add_done_callback(lambda _: heard.set())
    try:
        while not listener.done():
            await heard.wait()
            heard.clear()
            # What belongs together comes together: one digest for a burst.
            await asyncio.wait([listener], timeout=every_s)
            if (text := digester.speak(time.time_ns())) is not None:
                say(text.rstrip("\n"))
    finally:
        listener.cancel()
    await listener
