"""`otelprogress watch`: the tree of what runs now, in all processes of this user."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import typer

from otelprogress.cli import connection, options
from otelprogress.cli.exit_codes import ExitCode
from otelprogress.cli.output import remark, say, while_read

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.visualization.board import Board

REDRAW_EVERY_S: Final = 0.2
_RATE_HZ: Final = 1 / REDRAW_EVERY_S
NOTHING_YET: Final = "nothing runs; a program appears here once it calls otelprogress.configure()"


def watch(
    *, name: options.Name = None, url: options.Url = None, token_file: options.TokenFile = None
) -> None:
    """Show the operations that run now as a tree, and keep it up to date.

    Programs that start appear by themselves, those that are killed turn "lost". Ctrl-C ends it and leaves the last
    state on the screen. When the output is no terminal, every milestone is a line.
    """
    from otelprogress.visualization.render import drawable

    client = connection.open_client(url, token_file)
    try:
        asyncio.run(_draw(client, name) if drawable(sys.stdout) else _print_lines(client, name))
    except asyncio.CancelledError:
        raise typer.Exit(ExitCode.TERMINATED) from None


async def _print_lines(client: AsyncClient, name: str | None) -> None:
    from otelprogress.visualization.lines import line_of

    async def print_milestones() -> None:
        async for event in client.watch(name, level="milestones", roots=False):
            if (line := line_of(event)) is not None:
                say(line)

    async with client:
        await while_read(print_milestones())


async def _draw(client: AsyncClient, name: str | None) -> None:
    from rich.live import Live

    from otelprogress.visualization.board import Board
    from otelprogress.visualization.render import TreeRenderable, make_console
    from otelprogress.visualization.view_model import Limits, tree_rows

    console = make_console(sys.stdout)
    board = Board()

    def tree() -> TreeRenderable:
        now_unix_ns = time.time_ns()
        rows = tree_rows(
            board.views(now_unix_ns),
            now_unix_ns,
            limits=Limits(rows=max(1, console.size.height - 1)),
            handles=True,
        )
        return TreeRenderable(rows, footer="" if rows else NOTHING_YET)

    drawing = asyncio.current_task()
    assert drawing is not None
    # Killed politely, it gives the terminal back first.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drawing.cancel)
    async with client:
        reader = asyncio.create_task(_follow(client, name, board))
        try:
            with Live(
                console=console,
                screen=True,
                auto_refresh=False,
                get_renderable=tree,
                redirect_stdout=False,
                redirect_stderr=False,
            ) as live:
                while not reader.done():
                    live.refresh()
                    await asyncio.wait([reader], timeout=REDRAW_EVERY_S)
        finally:
            reader.cancel()
            console.print(tree(), soft_wrap=True)
        with contextlib.suppress(asyncio.CancelledError):
            await reader
    remark("the feed has ended")


async def _follow(client: AsyncClient, name: str | None, board: Board) -> None:
    async for event in client.watch(name, level="ticks", roots=False, max_rate_hz=_RATE_HZ):
        board.apply(event)
