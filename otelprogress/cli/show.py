"""`otelprogress show`: everything about one operation."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from otelprogress.cli import connection, options
from otelprogress.cli.output import json_line, say
from otelprogress.exceptions import FeedUnavailable, UnknownOperation

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.model.events import OperationView


def show(
    *,
    operation: options.OperationId,
    as_json: options.AsJson = False,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """Show one operation with its steps, whether it runs or ended."""
    from otelprogress.visualization.table import page_lines

    view = asyncio.run(find(connection.open_client(url, token_file), operation, history=url is None))
    if as_json:
        say(json_line(view))
        return
    for line in page_lines(view, time.time_ns()):
        say(line)


async def find(client: AsyncClient, operation: str, *, history: bool) -> OperationView:
    """The operation as a feed knows it, else as the history does.

    Raises:
        UnknownOperation: neither knows it.
        AmbiguousOperation: several are meant.
        FeedUnavailable: the feed that was named does not answer.
    """
    async with client:
        try:
            return await client.get(operation)
        except (UnknownOperation, FeedUnavailable) as error:
            if not history:
                raise
            return recorded(operation, error)


def recorded(operation: str, unknown: UnknownOperation | FeedUnavailable) -> OperationView:
    """The operation as the history knows it.

    Raises:
        UnknownOperation, FeedUnavailable: it does not; `unknown`, which says what the feeds answered.
        AmbiguousOperation: several are meant.
    """
    history = connection.open_history()
    try:
        history.lose_orphans()
        return history.get(operation)
    except UnknownOperation:
        raise unknown from None
    finally:
        history.close()
