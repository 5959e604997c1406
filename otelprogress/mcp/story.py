"""What a viewer is told about some operations: what it knew, what happened, how they stand, and whether that is news. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from otelprogress.mcp.source import MAX_HEARD, Since, Taken
from otelprogress.model import digest
from otelprogress.model.digest_budget import LeftOut
from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.model.news import LOUDEST_FIRST, Reason, Until, news_reason, standing_reason


class Story:
    """Collects until something happened that was waited for.

    Args:
        views: the operations as they stand, in the order in which they are told.
        since: what happened to them after the viewer's position.
        until: what ends the wait.
        asked_since: whether the viewer gave a position.
        elapsed_s: since it was given that position; `None`: unknown.

    Attributes:
        position: where the viewer goes on from.
        reason: why it is time to speak; `None`: it is not.
        waited_s: since it was made.
    """

    def __init__(
        self,
        views: Sequence[OperationView],
        since: Since,
        until: Until,
        *,
        asked_since: bool = False,
        elapsed_s: float | None = None,
    ) -> None:
        self.position = since.position
        self.reason: Reason | None = None
        self.waited_s = 0.0
        self._until: Until = until
        self._views = {view.id: view for view in views}
        self._known: Mapping[str, OperationView] | None = since.before
        self._elapsed_s = elapsed_s
        self._events: list[FeedEvent] = []
        self._own: list[FeedEvent] = []
        self._left_out = since.left_out
        self._last: dict[str, OperationView] = dict(since.before or {})
        self._told: dict[str, int] = {}
        for event in since.events:
            self._add(event)
        for view in views:
            # What the snapshot shows is told by it: an event that comes once more is none.
            self._last[view.id] = view
            self._told[view.id] = max(view.revision, self._told.get(view.id, 0))
        self._look_at_what_stands(views, lost_its_place=asked_since and since.before is None)

    def _look_at_what_stands(self, views: Sequence[OperationView], *, lost_its_place: bool) -> None:
        resumed = self._known is not None
        if not resumed:
            for view in views:
                self._hear(standing_reason(view, self._until, resumed=False))
            if lost_its_place:
                # Something may have been missed: better to say how it stands than to wait for what was.
                self._hear("changed")
        elif not any(view.live for view in views):
            # All ended before: there is nothing to wait for. One of several that ended is no news any more.
            for view in views:
                self._hear(standing_reason(view, self._until, resumed=True))

    @property
    def views(self) -> list[OperationView]:
        """The operations as they stand."""
        return list(self._views.values())

    def take(self, taken: Taken) -> None:
        """Go on with what was heard."""
        self.position = taken.position
        self._left_out += taken.left_out
        for event in taken.events:
            if event.revision > self._told.get(event.operation.id, 0):
                self._add(event)
        for view in taken.views:
            self._views[view.id] = view

    def _add(self, event: FeedEvent) -> None:
        view = event.operation
        before = self._last.get(view.id)
        self._events.append(event)
        if len(self._events) > MAX_HEARD:
            # The digest's budget is long used up.
            del self._events[0]
            self._left_out += 1
        if before is not None:
            self._hear(news_reason(event, before, self._until, resumed=True))
        else:
            began: Reason | None = "started" if self._until == "change" else None
            self._hear(standing_reason(view, self._until, resumed=False) or began)
        self._last[view.id] = view
        self._told[view.id] = event.revision

    def _hear(self, reason: Reason | None) -> None:
        if reason is None:
            return
        if self.reason is None or LOUDEST_FIRST.index(reason) < LOUDEST_FIRST.index(self.reason):
            self.reason = reason

    def outcome_of(self, command_id: str) -> FeedEvent | None:
        """What became of a command, as far as it was heard."""
        for event in reversed(self._events):
            if event.control_id == command_id:
                return event
        return None

    def add_own(self, event: FeedEvent) -> None:
        """Tell something that no operation said, before all that was heard."""
        self._own.append(event)

    def text(self, why: Reason, *, max_tokens: int) -> str:
        """The digest: everything, for who knows nothing; else only what is new."""
        known = self._known
        events = [*self._own, *self._events]
        mentioned = {event.operation.id for event in events}
        views: Iterable[OperationView] = self._views.values()
        if known is not None:
            views = [view for view in views if view.id in mentioned or _moved(view, known.get(view.id))]
        return digest.render(
            views,
            [event for event in events if event.kind != "snapshot" or event.gap is not None],
            position=self.position,
            why=why,
            elapsed_s=None if known is None or self._elapsed_s is None else self._elapsed_s + self.waited_s,
            max_tokens=max_tokens,
            previously=known,
            left_out=LeftOut(changes=self._left_out),
        )

    def glance(self) -> str:
        """How the first of them stands, for a progress notification."""
        for view in self._views.values():
            done = "" if view.ratio is None else f" {int(view.ratio * 100)}%"
            return f"{digest.called(view)} {view.state}{done}"
        return ""


def _moved(view: OperationView, known: OperationView | None) -> bool:
    return known is None or view.revision > known.revision
