"""A client and a history that answer from lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Self

from otelprogress.exceptions import UnknownOperation
from otelprogress.feed.client import Commanded
from otelprogress.feed.discovery import FeedTarget
from otelprogress.feed.news import News
from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.protocol.messages import CommandStatus


class FakeWatch:
    def __init__(self, events: Iterable[FeedEvent]) -> None:
        self._events = list(events)
        self.cursor = ""
        self.gaps = 0

    def __aiter__(self) -> AsyncIterator[FeedEvent]:
        return self._run()

    async def _run(self) -> AsyncIterator[FeedEvent]:
        for number, event in enumerate(self._events, 1):
            self.cursor = f"c{number}"
            yield event
            await asyncio.sleep(0)


class FakeClient:
    """`error` is raised by everything; `asked` remembers the calls."""

    def __init__(
        self,
        views: Iterable[OperationView] = (),
        events: Iterable[FeedEvent] = (),
        error: BaseException | None = None,
    ) -> None:
        self.views = {view.handle: view for view in views}
        self.events = list(events)
        self.error = error
        self.reason = "ended"
        self.answer = CommandStatus(command_id="c-1", status="accepted")
        self.became: FeedEvent | None = None
        """What comes of a command."""
        self.asked: list[tuple[object, ...]] = []
        self.unanswered: tuple[FeedTarget, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def watch(self, name: str | None = None, **options: object) -> FakeWatch:
        self.asked.append(("watch", name, options))
        if self.error is not None:
            raise self.error
        return FakeWatch(self.events)

    async def list(self, name: str | None = None, **options: object) -> list[OperationView]:
        self.asked.append(("list", name, options))
        if self.error is not None:
            raise self.error
        return list(self.views.values())

    async def get(self, operation: str) -> OperationView:
        self.asked.append(("get", operation))
        if self.error is not None:
            raise self.error
        if operation not in self.views:
            raise UnknownOperation(f"no operation {operation!r}")
        return self.views[operation]

    async def wait(
        self, operation: str, *, until: str, timeout_s: float | None, cursor: str | None = None
    ) -> News:
        self.asked.append(("wait", operation, until, timeout_s, cursor))
        return News(reason=self.reason, operation=await self.get(operation), cursor="c1")

    async def command(self, operation: str, action: str, **options: object) -> CommandStatus:
        self.asked.append(("command", operation, action, options))
        await self.get(operation)
        return self.answer

    async def command_and_wait(self, operation: str, action: str, **options: object) -> Commanded:
        self.asked.append(("command_and_wait", operation, action, options))
        return Commanded(status=self.answer, operation=await self.get(operation), event=self.became)


class FakeHistory:
    """`later` is what stands in it at the second look, the third, and so on."""

    def __init__(self, views: Iterable[OperationView] = ()) -> None:
        self.views = list(views)
        self.later: list[list[OperationView]] = []
        self.looks = 0

    def lose_orphans(self) -> list[OperationView]:
        self.looks += 1
        if self.looks > 1 and self.later:
            self.views = self.later.pop(0)
        return []

    def operations(self, limit: int = 100, *, live: bool | None = None, **_: object) -> list[OperationView]:
        return [view for view in self.views if live in (None, view.live)][:limit]

    def get(self, operation: str) -> OperationView:
        for view in self.views:
            if view.handle == operation:
                return view
        raise UnknownOperation(f"no operation {operation!r} is in the history")

    def close(self) -> None:
        return None
