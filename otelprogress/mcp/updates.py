"""Operations as resources: what they are called, and who is told that they changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final
from urllib.parse import quote, unquote

from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.source import Following
from otelprogress.model.events import FeedEvent

ALL_URI: Final = "progress://operations"
ONE_URI: Final = "progress://operations/{id}"
MAX_URIS: Final = 64
"""That one subscription may name."""
UPDATES_EVERY_S: Final = 1.0
"""How often one subscriber is told at most: an update only says that reading again is worth it."""
_LOOK_EVERY_S: Final = 30.0
"""How often it is looked whether a subscriber may still be told, where nothing happens."""


def uri_of(name: str) -> str:
    """The URI of an operation, by its id or its handle."""
    return f"{ALL_URI}/{quote(name, safe='')}"


def operation_in(uri: str) -> str | None:
    """The name of the operation in a URI; empty: all of them; `None`: no URI of ours."""
    if uri.rstrip("/") == ALL_URI:
        return ""
    prefix = f"{ALL_URI}/"
    name = unquote(uri.removeprefix(prefix)) if uri.startswith(prefix) else ""
    return name or None


def changed_uris(events: Iterable[FeedEvent]) -> set[str]:
    """What a reader of resources should read again."""
    uris: set[str] = set()
    for event in events:
        view = event.operation
        uris |= {ALL_URI, uri_of(view.id), uri_of(view.handle)}
    return uris


async def tell_updates(
    following: Following, uris: Collection[str], send: Callable[[str], Awaitable[None]]
) -> None:
    """Tell of updates until the viewer may not look any more, or the task is cancelled.

    Args:
        following: hears what happens.
        uris: what is told of; may change meanwhile.
        send: tells of one.
    """
    while True:
        await following.wait(_LOOK_EVERY_S)
        try:
            taken = await following.take()
        except Refusal:
            return
        changed = changed_uris(taken.events)
        told = [uri for uri in uris if uri in changed]
        for uri in told:
            await send(uri)
        if told:
            await asyncio.sleep(UPDATES_EVERY_S)
