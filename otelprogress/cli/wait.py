"""`otelprogress wait`: for scripts, until one operation has something to say."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from otelprogress.cli import connection, exit_codes, options
from otelprogress.cli.output import json_line, remark, say
from otelprogress.cli.show import recorded
from otelprogress.exceptions import FeedUnavailable, UnknownOperation

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.feed.news import News


class Until(StrEnum):
    """What is waited for."""

    END = "end"
    ATTENTION = "attention"
    STEP = "step"
    CHANGE = "change"


def wait(
    *,
    operation: options.OperationId,
    until: Annotated[
        Until,
        typer.Option(
            "--until",
            help="end: it has an outcome; attention: also a warning, a question, a stall; step: also a step that "
            "started or ended; change: any milestone.",
        ),
    ] = Until.END,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=0,
            metavar="SECONDS",
            help="Give up after so long (exit code 124). Default: never.",
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        typer.Option(
            "--cursor",
            metavar="CURSOR",
            help="What happened since then counts too: of an earlier --json answer.",
        ),
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """Wait for one operation, for scripts.

    Exits as it ended: 0 succeeded, 1 failed or lost, 6 cancelled; 124 if it goes on after --timeout.
    """
    from otelprogress.visualization.lines import line_of, state_line

    client = connection.open_client(url, token_file)
    news = asyncio.run(_wait(client, operation, until, timeout_s, cursor, history=url is None))
    view = news.operation
    if as_json:
        say(json_line({"why": news.reason, "cursor": news.cursor, "operation": view}))
    else:
        line = line_of(news.event) if news.event is not None and view.live else None
        say(line or state_line(view))
    if news.reason == "timeout":
        remark(f"otelprogress: {timeout_s:g} s are over; the operation goes on")
        raise typer.Exit(exit_codes.ExitCode.TIMEOUT)
    raise typer.Exit(exit_codes.of_state(view.state))


async def _wait(
    client: AsyncClient,
    operation: str,
    until: Until,
    timeout_s: float | None,
    cursor: str | None,
    *,
    history: bool,
) -> News:
    from otelprogress.feed.news import News

    async with client:
        try:
            return await client.wait(operation, until=until.value, timeout_s=timeout_s, cursor=cursor)
        except (UnknownOperation, FeedUnavailable) as error:
            if not history:
                raise
            return News(reason="ended", operation=recorded(operation, error))
