"""Events of a watch as digests: what `tail --digest` prints. Pure but for the digest's own renderer."""

from __future__ import annotations

from otelprogress.model import digest, news
from otelprogress.model.digest_budget import DEFAULT_MAX_TOKENS
from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.visualization.board import Board


class Digester:
    """Collects events between two digests.

    Args:
        max_tokens: the budget of one digest.
    """

    def __init__(self, *, max_tokens: int = DEFAULT_MAX_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._board = Board()
        self._told: dict[str, OperationView] = {}
        self._events: list[FeedEvent] = []
        self._count = 0
        self._spoke_at_unix_ns: int | None = None

    def add(self, event: FeedEvent) -> None:
        """Take note of an event."""
        self._board.apply(event)
        self._events.append(event)

    def speak(self, now_unix_ns: int) -> str | None:
        """The digest of what was added since the last one; `None`: nothing was."""
        if not self._events:
            return None
        events, self._events = self._events, []
        mentioned = {event.operation.id for event in events}
        views = [view for view in self._board.views(now_unix_ns) if view.id in mentioned]
        elapsed_s = None if self._spoke_at_unix_ns is None else (now_unix_ns - self._spoke_at_unix_ns) / 1e9
        self._count += 1
        previously = None if self._count == 1 else self._told
        text = digest.render(
            views,
            [event for event in events if event.kind != "snapshot" or event.gap is not None],
            position=f"t{self._count}",
            why=news.why(events, previously),
            elapsed_s=elapsed_s,
            max_tokens=self._max_tokens,
            previously=previously,
        )
        self._spoke_at_unix_ns = now_unix_ns
        known = {view.id: view for view in self._board.views(now_unix_ns)}
        self._told = {run_id: view for run_id, view in (self._told | known).items() if run_id in known}
        return text
