"""A writer for tests: says events in order, in virtual time."""

from __future__ import annotations

from typing import Any

from otelprogress.model import semconv
from otelprogress.model.events import Event, Source, State, StepState

S = 10**9
T0 = 1_760_000_000 * S
TRACE = "a" * 32


def run_id(number: int, trace: str = TRACE) -> str:
    return f"{trace}-{number:016x}"


class Saying:
    """One run of one writer. `at` is seconds after T0."""

    def __init__(
        self, number: int = 1, *, writer: str = "w1", parent: int | None = None, name: str = "nightly load"
    ) -> None:
        self.id = run_id(number)
        self.writer = writer
        self.name = name
        self.parent = "" if parent is None else f"{parent:016x}"
        self.sequence = 0

    def event(self, kind: str, at: float, **fields: Any) -> Event:
        if kind in semconv.DURABLE_EVENTS and "sequence" not in fields:
            self.sequence += 1
            fields["sequence"] = self.sequence
        fields.setdefault("writer_id", self.writer)
        return Event(kind=kind, run_id=self.id, time_unix_ns=T0 + round(at * S), **fields)

    def started(self, at: float = 0, **fields: Any) -> Event:
        fields.setdefault("name", self.name)
        fields.setdefault("parent_span_id", self.parent)
        return self.event(semconv.OPERATION_STARTED, at, **fields)

    def step(self, name: str, at: float, **fields: Any) -> Event:
        return self.event(semconv.STEP_STARTED, at, step_name=name, step_state=StepState.RUNNING, **fields)

    def step_ended(
        self, name: str, at: float, state: StepState = StepState.SUCCEEDED, **fields: Any
    ) -> Event:
        return self.event(semconv.STEP_ENDED, at, step_name=name, step_state=state, **fields)

    def tick(
        self, at: float, completed: float | None = None, total: float | None = None, **fields: Any
    ) -> Event:
        return self.event(semconv.OPERATION_PROGRESSED, at, completed=completed, total=total, **fields)

    def state(self, state: State, at: float, **fields: Any) -> Event:
        return self.event(semconv.OPERATION_STATE_CHANGED, at, state=state, **fields)

    def note(self, text: str, at: float, **fields: Any) -> Event:
        return self.event(semconv.OPERATION_NOTED, at, message=text, **fields)

    def foreign(self, text: str, at: float, **fields: Any) -> Event:
        return self.event(
            semconv.OPERATION_NOTED, at, message=text, source=Source.FOREIGN, sequence=None, **fields
        )

    def ended(self, at: float, state: State = State.SUCCEEDED, **fields: Any) -> Event:
        return self.event(semconv.OPERATION_ENDED, at, state=state, **fields)

    def lost(self, at: float, detector: str = "link", **fields: Any) -> Event:
        """The verdict of a host: no sequence, no writer."""
        return self.event(
            semconv.OPERATION_ENDED,
            at,
            state=State.LOST,
            sequence=None,
            writer_id="",
            lost_detector=detector,
            lost_evidence_unix_ns=T0 + round(at * S) - S // 2,
            **fields,
        )


class SpanOf:
    """What a run's span says, as a receiver reads it. It comes as a whole once the span has ended."""

    def __init__(self, run: Saying) -> None:
        self.run = run

    def started(self, at: float = 0, **fields: Any) -> Event:
        return self.run.started(at, sequence=None, source=Source.SPAN_END, writer_id="", **fields)

    def step(self, name: str, at: float, **fields: Any) -> Event:
        return self.run.step(name, at, sequence=None, source=Source.SPAN_EVENT, writer_id="", **fields)

    def said_end(self, at: float, **fields: Any) -> Event:
        """The event on it that says how the run ended."""
        return self.run.ended(at, sequence=None, source=Source.SPAN_EVENT, writer_id="", **fields)

    def ended(self, at: float, state: State = State.SUCCEEDED, **fields: Any) -> Event:
        return self.run.ended(at, state, sequence=None, source=Source.SPAN_END, writer_id="", **fields)

    def whole(self, at: float = 0) -> list[Event]:
        """Of a run of three seconds."""
        steps = (self.step("a", at + 1), self.step("b", at + 2))
        return [self.started(at), *steps, self.said_end(at + 3), self.ended(at + 3)]
