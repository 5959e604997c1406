"""`otelprogress wait`: for scripts, until one operation has something to say."""

from __future__ import annotations

import asyncio
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otelprogress.cli import connection, exit_codes, options
from otelprogress.cli.output import json_line, remark, say
from otelprogress.cli.show import recorded
from otelprogress.exceptions import FeedUnavailable, UnknownOperation

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.feed.news import News, Reason
    from otelprogress.model.events import OperationView

LOOK_EVERY_S: Final = 0.5
"""Where only the history knows of the operation; its process writes an end down at once, counts every five seconds."""


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

    loop = asyncio.get_running_loop()
    deadline_s = math.inf if timeout_s is None else loop.time() + timeout_s
    left_s = timeout_s
    before: OperationView | None = None
    async with client:
        while True:
            try:
                return await client.wait(operation, until=until.value, timeout_s=left_s, cursor=cursor)
            except (UnknownOperation, FeedUnavailable) as error:
                if not history:
                    raise
                view = recorded(operation, error)
            # No feed tells of it: its process has none, or is stopped. What it wrote down is looked at instead,
            # and the feeds again, which know more.
            reason = _recorded_reason(before, view, until, resumed=cursor is not None)
            if reason is not None:
                return News(reason=reason, operation=view, cursor=cursor or "")
            before = view
            if loop.time() >= deadline_s:
                return News(reason="timeout", operation=view, cursor=cursor or "")
            await asyncio.sleep(min(LOOK_EVERY_S, deadline_s - loop.time()))
            left_s = None if timeout_s is None else max(0.0, deadline_s - loop.time())


def _recorded_reason(
    before: OperationView | None, after: OperationView, until: Until, *, resumed: bool
) -> Reason | None:
    """Why the wait is over, as far as two looks at the history tell; `None`: it goes on.

    Args:
        before: what the look before found; `None`: this is the first.
        after: what stands there now.
        until: what is waited for.
        resumed: as for `standing_reason`.
    """
    from otelprogress.feed.news import news_reason, standing_reason
    from otelprogress.model.events import FeedEvent

    if before is None:
        return standing_reason(after, until.value, resumed=resumed)
    if _steps(before) != _steps(after):
        kind = "step.started"
    elif _milestone(before) != _milestone(after):
        kind = "operation.noted"
    else:
        return None  # only its counts moved
    event = FeedEvent(kind=kind, operation=after, revision=after.revision)
    return news_reason(event, before, until.value, resumed=resumed)


def _steps(view: OperationView) -> list[tuple[int, str]]:
    return [(step.index, step.state) for step in view.steps]


def _milestone(view: OperationView) -> tuple[object, ...]:
    return view.state, view.stalled, view.warnings, view.message
