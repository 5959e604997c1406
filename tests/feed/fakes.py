"""Events as a writer would make them, and a hub small enough to see through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from otelprogress.model import semconv
from otelprogress.model.events import Event, State

TRACE = "0af7651916cd43dd8448eb211c80319c"
START_UNIX_NS = 1_700_000_000_000_000_000


def run_id(number: int = 1) -> str:
    return f"{TRACE}-{number:016x}"


def event(kind: str, *, run: int = 1, sequence: int | None = None, at_s: float = 0.0, **fields: Any) -> Event:
    fields.setdefault("writer_id", "writer-1")
    return Event(
        kind=kind,
        run_id=run_id(run),
        sequence=sequence,
        time_unix_ns=START_UNIX_NS + round(at_s * 1e9),
        **fields,
    )


def started(*, run: int = 1, name: str = "nightly load", sequence: int = 1, **fields: Any) -> Event:
    fields.setdefault("parent_span_id", "")
    return event(
        semconv.OPERATION_STARTED,
        run=run,
        sequence=sequence,
        name=name,
        title=name,
        start_unix_ns=START_UNIX_NS,
        **fields,
    )


def noted(sequence: int, *, run: int = 1, message: str = "a note", **fields: Any) -> Event:
    return event(semconv.OPERATION_NOTED, run=run, sequence=sequence, message=message, **fields)


def progressed(completed: float, *, run: int = 1, total: float | None = None, **fields: Any) -> Event:
    return event(semconv.OPERATION_PROGRESSED, run=run, completed=completed, total=total, **fields)


def ended(sequence: int, *, run: int = 1, state: State = State.SUCCEEDED, **fields: Any) -> Event:
    return event(semconv.OPERATION_ENDED, run=run, sequence=sequence, state=state, **fields)


class FakeHub:
    """Remembers what it was told; applies every event as itself."""

    def __init__(self) -> None:
        self.published: list[Event] = []
        self.advanced: list[int] = []
        self.deadline_unix_ns: int | None = None
        self.refuse: dict[str, Exception] = {}

    def publish(self, event: Event, now_unix_ns: int) -> list[Event]:
        if (error := self.refuse.get(event.message or "")) is not None:
            raise error
        self.published.append(event)
        return [event]

    def advance(self, now_unix_ns: int) -> list[Event]:
        self.advanced.append(now_unix_ns)
        self.deadline_unix_ns = None
        return []

    def next_deadline_unix_ns(self) -> int | None:
        return self.deadline_unix_ns

    def messages(self) -> Iterator[str | None]:
        return (each.message for each in self.published)
