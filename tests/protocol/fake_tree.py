"""A small tree with the face of `model.tree.OperationTree`: last writer wins, no roll-up, no reordering."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from otelprogress.model import semconv
from otelprogress.model.events import Event, FeedEvent, OperationView, State, StepView


class Applied(NamedTuple):
    event: FeedEvent
    source: Event
    durable: bool
    terminal: bool


class FakeTree:
    def __init__(self) -> None:
        self.views: dict[str, OperationView] = {}
        self.last_durable: dict[str, int] = {}
        self.last_terminal: dict[str, int] = {}
        self.keep_ended_ns = 600 * 10**9

    def run_ids(self) -> list[str]:
        return list(self.views)

    def ancestors(self, run_id: str) -> Iterator[str]:
        view = self.views.get(run_id)
        while view is not None and view.parent_id is not None:
            yield view.parent_id
            view = self.views.get(view.parent_id)

    def apply(self, event: Event, now_unix_ns: int) -> list[Applied]:
        old = self.views.get(event.run_id)
        parent = f"{event.trace_id}-{event.parent_span_id}" if event.parent_span_id else None
        if old is None:
            old = OperationView(
                id=event.run_id, handle=f"{event.name}-1", name=event.name or "?", state=State.RUNNING, revision=0,
                as_of_unix_ns=now_unix_ns, parent_id=parent, label=event.label, service=event.service or "",
                tenant=event.tenant, attributes=event.attributes or {}, started_at_unix_ns=now_unix_ns,
            )  # fmt: skip
        elif not old.live:
            return []
        terminal = event.kind == semconv.OPERATION_ENDED
        revision = old.revision + 1
        view = replace(
            old,
            revision=revision,
            as_of_unix_ns=now_unix_ns,
            updated_at_unix_ns=event.time_unix_ns,
            state=event.state or old.state,
            ended_at_unix_ns=now_unix_ns if terminal else None,
            step=StepView(name="", index=-1, completed=event.completed)
            if event.completed is not None
            else old.step,
        )
        self.views[event.run_id] = view
        feed_event = FeedEvent(
            kind=event.kind.removeprefix(semconv.PREFIX),
            operation=view,
            revision=revision,
            previous_durable=self.last_durable.get(event.run_id, 0),
            previous_terminal=self.last_terminal.get(event.run_id, 0),
            time_unix_ns=event.time_unix_ns,
        )
        if event.durable:
            self.last_durable[event.run_id] = revision
        if terminal:
            self.last_terminal[event.run_id] = revision
        return [Applied(feed_event, event, event.durable, terminal)]

    def touch(self, run_id: str, now_unix_ns: int) -> int:
        view = self.views[run_id]
        self.views[run_id] = replace(view, revision=view.revision + 1, as_of_unix_ns=now_unix_ns)
        return view.revision + 1

    def advance(self, now_unix_ns: int) -> list[Applied]:
        return []

    def evict(self, now_unix_ns: int) -> list[str]:
        old = [
            run_id
            for run_id, view in self.views.items()
            if view.ended_at_unix_ns is not None and view.ended_at_unix_ns < now_unix_ns - self.keep_ended_ns
        ]
        for run_id in old:
            del self.views[run_id]
        return old

    def next_deadline_unix_ns(self) -> int | None:
        return None

    def view(self, run_id: str, now_unix_ns: int, *, steps: bool = False) -> OperationView | None:
        view = self.views.get(run_id)
        return None if view is None else replace(view, as_of_unix_ns=now_unix_ns)
