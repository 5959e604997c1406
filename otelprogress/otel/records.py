"""How one event reads as an OpenTelemetry record: severity, body, and what of it stands on a span."""

from __future__ import annotations

from typing import Final

from otelprogress.model import semconv
from otelprogress.model.events import Event, State

SEVERITY_INFO: Final = 9
SEVERITY_WARN: Final = 13
SEVERITY_ERROR: Final = 17
SEVERITY_TEXT: Final = {SEVERITY_INFO: "INFO", SEVERITY_WARN: "WARN", SEVERITY_ERROR: "ERROR"}

_PREFIX_CHARS: Final = len(semconv.PREFIX)


def severity_of(event: Event) -> int:
    """The OTel severity number: INFO; a note may be WARN or ERROR; an end that failed or was lost is ERROR."""
    if event.level == "error" or (
        event.kind == semconv.OPERATION_ENDED and event.state in (State.FAILED, State.LOST)
    ):
        return SEVERITY_ERROR
    if event.level == "warning":
        return SEVERITY_WARN
    return SEVERITY_INFO


def body_of(event: Event) -> str:
    """One line for people who read the record in a log viewer: the message, else what happened to what."""
    if event.message:
        return event.message
    subject = event.step_name or event.title or event.name
    happened = event.kind[_PREFIX_CHARS:]
    return f"{happened} {subject}" if subject else happened


def span_event_attributes(event: Event) -> dict[str, str | bool | int | float]:
    """What a span event says of `event`: the step, its counts, texts and audit; ids stand on the span already."""
    said: dict[str, str | bool | int | float] = {}
    if event.step_name is not None:
        said[semconv.STEP_NAME] = event.step_name
    if event.step_index is not None:
        said[semconv.STEP_INDEX] = event.step_index
    if event.step_state is not None:
        said[semconv.STEP_STATE] = event.step_state.value
    if event.completed is not None:
        said[semconv.ITEMS_COMPLETED] = event.completed
    if event.total is not None:
        said[semconv.ITEMS_TOTAL] = event.total
    if event.unit is not None:
        said[semconv.ITEMS_UNIT] = event.unit
    if event.counters:
        said |= {semconv.COUNTER_PREFIX + name: count for name, count in event.counters.items()}
    if event.kind in _PLAIN_STEP_EVENTS:
        return said
    if event.state is not None:
        said[semconv.OPERATION_STATE] = event.state.value
    if event.stalled is not None:
        said[semconv.OPERATION_STALLED] = event.stalled
    for key, value in (
        (semconv.MESSAGE, event.message),
        (semconv.MESSAGE_LEVEL, event.level),
        (semconv.ERROR_TYPE, event.error_type),
        (semconv.LOST_DETECTOR, event.lost_detector),
        (semconv.LOST_CAUSE, event.lost_cause),
        (semconv.CONTROL_ID, event.control_id),
        (semconv.CONTROL_ACTION, event.control_action),
        (semconv.CONTROL_ACTOR, event.control_actor),
        (semconv.CONTROL_REASON, event.control_reason),
        (semconv.CONTROL_REFUSAL, event.control_refusal),
        (semconv.INPUT_ID, event.input_id),
        (semconv.INPUT_PROMPT, event.input_prompt),
    ):
        if value is not None:
            said[key] = value
    return said


_PLAIN_STEP_EVENTS: Final = frozenset({semconv.STEP_STARTED})


def start_attributes(event: Event) -> dict[str, str | float | tuple[str, ...] | tuple[float, ...]]:
    """What the span itself says from the start on: the plan, the label, the attempt; empty when none was given."""
    said: dict[str, str | float | tuple[str, ...] | tuple[float, ...]] = {}
    if event.label is not None:
        said[semconv.OPERATION_ID] = event.label
    if event.title and event.title != event.name:
        said[semconv.OPERATION_TITLE] = event.title
    if event.steps:
        said[semconv.OPERATION_STEPS] = event.steps
    if event.step_weights:
        said[semconv.OPERATION_STEP_WEIGHTS] = event.step_weights
    if event.attempt is not None:
        said[semconv.OPERATION_ATTEMPT] = event.attempt
    if event.weight is not None:
        said[semconv.OPERATION_WEIGHT] = event.weight
    return said


def summary_attributes(event: Event, *, folded: int = 0) -> dict[str, str | int | float]:
    """What the span says at its end: the outcome, the final counts, the error, how many step events were folded.

    Written before `span.end()`: an ended span takes no attributes.
    """
    said: dict[str, str | int | float] = {}
    if event.state is not None:
        said[semconv.OPERATION_STATE] = event.state.value
    if event.completed is not None:
        said[semconv.ITEMS_COMPLETED] = event.completed
    if event.total is not None:
        said[semconv.ITEMS_TOTAL] = event.total
    if event.unit is not None:
        said[semconv.ITEMS_UNIT] = event.unit
    if event.counters:
        said |= {semconv.COUNTER_PREFIX + name: count for name, count in event.counters.items()}
    if event.ratio is not None:
        said[semconv.OPERATION_RATIO] = event.ratio
    if event.error_type is not None:
        said[semconv.ERROR_TYPE] = event.error_type
    if event.result is not None:
        said[semconv.RESULT] = event.result
    if folded:
        said[semconv.STEP_FOLDED] = folded
    return said
