"""Events for the tests of this folder."""

from __future__ import annotations

from otelprogress.model import semconv
from otelprogress.model.events import Event, State, StepState, run_id

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
START_NS = 1_700_000_000_000_000_000


def a_run(number: int = 1) -> str:
    return run_id(TRACE_ID, number)


def event(kind: str, number: int = 1, at_s: float = 0.0, **said) -> Event:
    said.setdefault("run_id", a_run(number))
    return Event(kind=kind, time_unix_ns=START_NS + int(at_s * 1e9), writer_id="writer", **said)


def started(number: int = 1, **said) -> Event:
    said.setdefault("name", "import flights")
    return event(semconv.OPERATION_STARTED, number, start_unix_ns=START_NS, parent_span_id="", **said)


def step_started(index: int, number: int = 1, **said) -> Event:
    return event(
        semconv.STEP_STARTED,
        number,
        at_s=index,
        step_name=f"step {index}",
        step_index=index,
        step_state=StepState.RUNNING,
        **said,
    )


def step_ended(index: int, number: int = 1, **said) -> Event:
    return event(
        semconv.STEP_ENDED,
        number,
        at_s=index + 0.5,
        step_name=f"step {index}",
        step_index=index,
        step_state=StepState.SUCCEEDED,
        **said,
    )


def ticked(completed: float, number: int = 1, **said) -> Event:
    return event(semconv.OPERATION_PROGRESSED, number, completed=completed, **said)


def ended(number: int = 1, state: State = State.SUCCEEDED, **said) -> Event:
    return event(semconv.OPERATION_ENDED, number, at_s=1000, state=state, **said)
