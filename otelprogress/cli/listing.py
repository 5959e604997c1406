"""`otelprogress list`: what runs, and what ran here."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otelprogress.cli import connection, options
from otelprogress.cli.output import json_line, remark, say

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.model.events import OperationView

DEFAULT_LIMIT: Final = 20


def list_(
    *,
    name: options.Name = None,
    live: Annotated[bool, typer.Option("--live", help="Only what runs now.")] = False,
    children: Annotated[
        bool, typer.Option("--children", help="Also operations that belong to another operation.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="At most so many that have ended.")
    ] = DEFAULT_LIMIT,
    as_json: options.AsJson = False,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """List the operations that run now and those that ended lately, newest first.

    With --json every line is an object with at least handle, id, name, state, ratio (0 to 1), eta (two seconds, from
    and to), step, age (seconds) and service; null means unknown.
    """
    from otelprogress.visualization.table import table_lines

    running = asyncio.run(_running(connection.open_client(url, token_file), name, children))
    ended = [] if live or url is not None else _recorded(name, limit, children)
    known = {view.id for view in running}
    views = [view for view in running if view.live or not live] + [
        view for view in ended if view.id not in known
    ]
    views.sort(key=lambda view: (not view.live, -view.started_at_unix_ns))
    alive = sum(view.live for view in views)
    views = views[: alive + limit]
    now_unix_ns = time.time_ns()
    if as_json:
        from otelprogress.cli.records import record

        for view in views:
            say(json_line(record(view, now_unix_ns)))
    elif views:
        for line in table_lines(views, now_unix_ns):
            say(line)
    else:
        remark("nothing runs and nothing is in the history; `otelprogress doctor` says where was looked")


async def _running(client: AsyncClient, name: str | None, children: bool) -> list[OperationView]:
    async with client:
        return list(await client.list(name, roots=not children))


def _recorded(name: str | None, limit: int, children: bool) -> list[OperationView]:
    history = connection.open_history()
    try:
        # Whoever looks first after a crash finds out: nobody else is left to say it.
        history.lose_orphans()
        return history.operations(limit, live=False, name=name, roots=not children)
    finally:
        history.close()
