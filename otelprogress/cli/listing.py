"""`otelprogress list`: what runs, and what ran here."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otelprogress.cli import connection, options
from otelprogress.cli.output import json_line, remark, say
from otelprogress.model.text import clean

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.model.events import OperationView

DEFAULT_LIMIT: Final = 20
MAX_LIVE: Final = 10_000
"""Operations that run and are known from the history only."""
MAX_SERVICE_CHARS: Final = 64


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

    client = connection.open_client(url, token_file)
    told = asyncio.run(_told(client, name, children))
    recorded = _recorded(name, limit, children, live=live) if url is None else []
    known = {view.id for view in told}
    views = [view for view in told if view.live or not live] + [
        view for view in recorded if view.id not in known
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
    elif not client.unanswered:
        remark("nothing runs and nothing is in the history; `otelprogress doctor` says where was looked")
    for target in client.unanswered:
        if target.is_collector:
            remark(f"otelprogress: {target.name} does not answer; `otelprogress doctor` says more")
            continue
        service = f" ({clean(target.service, MAX_SERVICE_CHARS)})" if target.service else ""
        remark(
            f"otelprogress: process {target.pid}{service} does not answer; what runs there is shown as last written down"
        )


async def _told(client: AsyncClient, name: str | None, children: bool) -> list[OperationView]:
    async with client:
        return list(await client.list(name, roots=not children))


def _recorded(name: str | None, limit: int, children: bool, *, live: bool) -> list[OperationView]:
    """What the history knows: what runs in processes that have no feed, or do not answer, and what ended lately."""
    history = connection.open_history()
    try:
        # Whoever looks first after a crash finds out: nobody else is left to say it.
        history.lose_orphans()
        running = history.operations(MAX_LIVE, live=True, name=name, roots=not children)
        if live:
            return running
        return running + history.operations(limit, live=False, name=name, roots=not children)
    finally:
        history.close()
