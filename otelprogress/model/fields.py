"""The fields of an `Event` and the attributes that carry them: one table, read in both directions.

Also where texts are made fit to keep: `sanitized` is what every host applies to events before it stores or shows
them, wherever they came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event, State, StepState
from otelprogress.model.redaction import REDACTED, allowed_attributes, redact, redacted
from otelprogress.model.text import clean

Item = TypeVar("Item")

MAX_ID_CHARS: Final = 128
MAX_COUNTER_NAME_CHARS: Final = 64
MAX_TRACE_STATE_CHARS: Final = 512


class Text(NamedTuple):
    """How one text is made fit to keep."""

    field: str
    attribute: str
    max_chars: int
    secret: bool = False
    """Whether it may hold secrets, so that it is looked through for them."""


TEXTS: Final = (
    Text("writer_id", semconv.WRITER_ID, MAX_ID_CHARS),
    Text("name", semconv.OPERATION_NAME, semconv.MAX_NAME_CHARS, secret=True),
    Text("title", semconv.OPERATION_TITLE, semconv.MAX_TITLE_CHARS, secret=True),
    Text("label", semconv.OPERATION_ID, semconv.MAX_NAME_CHARS, secret=True),
    Text("parent_span_id", semconv.OPERATION_PARENT_SPAN_ID, 16),
    Text("span_kind", semconv.OPERATION_SPAN_KIND, 16),
    Text("trace_state", semconv.OPERATION_TRACE_STATE, MAX_TRACE_STATE_CHARS),
    Text("step_name", semconv.STEP_NAME, semconv.MAX_NAME_CHARS, secret=True),
    Text("unit", semconv.ITEMS_UNIT, MAX_COUNTER_NAME_CHARS),
    Text("ratio_source", semconv.OPERATION_RATIO_SOURCE, 16),
    Text("message", semconv.MESSAGE, semconv.MAX_MESSAGE_CHARS, secret=True),
    Text("level", semconv.MESSAGE_LEVEL, 16),
    Text("error_type", semconv.ERROR_TYPE, semconv.MAX_NAME_CHARS, secret=True),
    Text("error_message", semconv.EXCEPTION_MESSAGE, semconv.MAX_MESSAGE_CHARS, secret=True),
    Text("lost_detector", semconv.LOST_DETECTOR, 32),
    Text("lost_cause", semconv.LOST_CAUSE, semconv.MAX_NAME_CHARS, secret=True),
    Text("control_id", semconv.CONTROL_ID, MAX_ID_CHARS),
    Text("control_action", semconv.CONTROL_ACTION, MAX_ID_CHARS),
    Text("control_actor", semconv.CONTROL_ACTOR, semconv.MAX_NAME_CHARS, secret=True),
    Text("control_reason", semconv.CONTROL_REASON, semconv.MAX_MESSAGE_CHARS, secret=True),
    Text("control_refusal", semconv.CONTROL_REFUSAL, semconv.MAX_NAME_CHARS, secret=True),
    Text("input_id", semconv.INPUT_ID, MAX_ID_CHARS),
    Text("input_prompt", semconv.INPUT_PROMPT, semconv.MAX_MESSAGE_CHARS, secret=True),
    Text("input_default", semconv.INPUT_DEFAULT, semconv.MAX_MESSAGE_CHARS, secret=True),
)

FLOATS: Final = (
    ("lease_s", semconv.WRITER_LEASE),
    ("weight", semconv.OPERATION_WEIGHT),
    ("stall_after_s", semconv.OPERATION_STALL_AFTER),
    ("completed", semconv.ITEMS_COMPLETED),
    ("total", semconv.ITEMS_TOTAL),
    ("initial", semconv.ITEMS_INITIAL),
    ("ratio", semconv.OPERATION_RATIO),
)
INTEGERS: Final = (
    ("sequence", semconv.WRITER_SEQUENCE),
    ("start_unix_ns", semconv.OPERATION_START_TIME),
    ("expected_children", semconv.OPERATION_EXPECTED_CHILDREN),
    ("attempt", semconv.OPERATION_ATTEMPT),
    ("step_index", semconv.STEP_INDEX),
    ("lost_evidence_unix_ns", semconv.LOST_EVIDENCE_TIME),
    ("input_deadline_unix_ns", semconv.INPUT_DEADLINE),
    ("folded", semconv.STEP_FOLDED),
)
TEXT_LISTS: Final = (
    ("steps", semconv.OPERATION_STEPS, semconv.MAX_PLANNED_STEPS),
    ("controls", semconv.OPERATION_CONTROLS, 64),
)
JSON_TEXTS: Final = (
    ("result", semconv.RESULT, semconv.MAX_RESULT_BYTES),
    ("input_schema", semconv.INPUT_SCHEMA, semconv.MAX_INPUT_SCHEMA_CHARS),
)


def text_in(text: Text, value: str) -> str:
    """One text as it may be kept."""
    if text.secret:
        return redacted(value, text.max_chars) or ""
    return clean(value, text.max_chars)


def sanitized(event: Event) -> Event:
    """The event with every text cleaned, capped and redacted; the same object when nothing had to change.

    Idempotent, so that a host may apply it to what another host passed on.
    """
    changes: dict[str, Any] = {}
    for text in TEXTS:
        value = getattr(event, text.field)
        if value is not None and value != "":
            kept = text_in(text, value)
            if kept != value:
                changes[text.field] = kept
    if event.service is not None:
        _note_change(changes, "service", event.service, clean(event.service, semconv.MAX_NAME_CHARS))
    if event.error_stacktrace is not None:
        _note_change(
            changes, "error_stacktrace", event.error_stacktrace, stacktrace_in(event.error_stacktrace)
        )
    for field, _, limit in JSON_TEXTS:
        value = getattr(event, field)
        if value is not None:
            _note_change(changes, field, value, json_in(value, limit, schema=field == "input_schema"))
    for field, _, most in TEXT_LISTS:
        value = getattr(event, field)
        if value is not None:
            _note_change(changes, field, value, names_in(value, most))
    if event.step_weights is not None and len(event.step_weights) > semconv.MAX_PLANNED_STEPS:
        changes["step_weights"] = event.step_weights[: semconv.MAX_PLANNED_STEPS]
    if event.counters is not None:
        _note_change(changes, "counters", event.counters, counters_in(event.counters))
    if event.attributes is not None:
        _note_change(
            changes,
            "attributes",
            event.attributes,
            allowed_attributes(event.attributes, allowed=None) or None,
        )
    return msgspec.structs.replace(event, **changes) if changes else event


def _note_change(changes: dict[str, Any], field: str, before: Any, after: Any) -> None:
    if before != after:
        changes[field] = after


def names_in(names: tuple[str, ...], most: int) -> tuple[str, ...]:
    """Names of steps or controls: each cleaned and redacted, no more than `most`."""
    return tuple(redacted(name, semconv.MAX_NAME_CHARS) or "" for name in names[:most])


def counters_in(counters: Mapping[str, float]) -> dict[str, float] | None:
    """The first eight counters, their names cleaned; `None` when none is left."""
    kept: dict[str, float] = {}
    for name, value in counters.items():
        if len(kept) == semconv.MAX_COUNTERS:
            break
        shown = redacted(name, MAX_COUNTER_NAME_CHARS)
        if shown:
            kept[shown] = value
    return kept or None


def json_in(text: str, limit: int, *, schema: bool = False) -> str | None:
    """A JSON text as it may be kept: redacted, and whole or not at all; `None`: too long, or no JSON.

    Args:
        text: the JSON.
        limit: of its characters, and of its bytes.
        schema: it describes values and has none: what stands below a member `password` is no password.
    """
    if len(text) > limit:
        return None
    try:
        value = json.loads(text)
        kept = json.dumps(
            _redacted_json(value, 16, schema=schema, secret=False),
            ensure_ascii=False,
            separators=(",", ":"),
            allow_nan=False,
        )
        return kept if len(kept.encode()) <= limit else None
    except (ValueError, RecursionError):  # no JSON, a lone surrogate, a number JSON does not have
        return None


def _redacted_json(value: Any, depth: int, *, schema: bool, secret: bool) -> Any:
    """A value without secrets; `secret`: it stands below a member whose name says that it is one, whatever it looks like."""
    if depth == 0:
        return None
    if isinstance(value, str):
        return REDACTED if secret else redact(value)
    if isinstance(value, list):
        return [_redacted_json(item, depth - 1, schema=schema, secret=secret) for item in value]
    if isinstance(value, dict):
        return {
            redact(key): _redacted_json(
                item,
                depth - 1,
                schema=schema,
                secret=secret or (_names_secret(key) and not (schema and isinstance(item, dict))),
            )
            for key, item in value.items()
        }
    # A number may be a PIN; whether there is anything is no secret.
    return REDACTED if secret and not (value is None or isinstance(value, bool)) else value


def _names_secret(key: str) -> bool:
    probe = f"{key}=value"
    return redact(probe) != probe


def stacktrace_in(text: str) -> str:
    """A stack trace keeps its lines; each is cleaned, and the end, where the error stands, survives the cap."""
    kept = redact(text[-semconv.MAX_STACKTRACE_CHARS :])
    lines = [_indent(line) + clean(line, semconv.MAX_MESSAGE_CHARS) for line in kept.split("\n")]
    return redact("\n".join(lines))[-semconv.MAX_STACKTRACE_CHARS :]


def _indent(line: str) -> str:
    return " " * min(64, len(line) - len(line.lstrip(" ")))


# --- reading attributes ------------------------------------------------------------------------------------


def as_text(attribute: str, value: object) -> str:
    """The value of a text attribute.

    Raises:
        InvalidRecord: it is no text.
    """
    if not isinstance(value, str):
        raise InvalidRecord(f"{attribute} must be a string, not {_shown(value)}")
    return value


def as_float(attribute: str, value: object) -> float:
    """The value of a number attribute; it may be infinite or negative, which the host judges.

    Raises:
        InvalidRecord: it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRecord(f"{attribute} must be a number, not {_shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRecord(f"{attribute} is too large") from None


def as_integer(attribute: str, value: object) -> int:
    """The value of an integer attribute; a double without a fraction will do (some languages have no other).

    Raises:
        InvalidRecord: it is no integer of 64 bits.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRecord(f"{attribute} must be an integer, not {_shown(value)}")
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidRecord(f"{attribute} must fit in 64 bits")
    return value


def as_flag(attribute: str, value: object) -> bool:
    """The value of a boolean attribute.

    Raises:
        InvalidRecord: it is no boolean.
    """
    if not isinstance(value, bool):
        raise InvalidRecord(f"{attribute} must be a boolean, not {_shown(value)}")
    return value


def as_list(
    attribute: str, value: object, read: Callable[[str, object], Item], most: int
) -> tuple[Item, ...]:
    """The items of a list attribute, no more than `most`.

    Raises:
        InvalidRecord: it is no list, or an item is of another type.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple)):
        raise InvalidRecord(f"{attribute} must be a list, not {_shown(value)}")
    return tuple(read(attribute, item) for item in value[:most])


def as_state(attribute: str, value: object) -> State:
    """The state an operation is said to be in.

    Raises:
        InvalidRecord: unknown.
    """
    try:
        return State(as_text(attribute, value))
    except ValueError:
        raise InvalidRecord(f"{attribute} must be one of {', '.join(State)}, not {_shown(value)}") from None


def as_step_state(attribute: str, value: object) -> StepState:
    """The state a step is said to be in.

    Raises:
        InvalidRecord: unknown.
    """
    try:
        return StepState(as_text(attribute, value))
    except ValueError:
        raise InvalidRecord(
            f"{attribute} must be one of {', '.join(StepState)}, not {_shown(value)}"
        ) from None


def _shown(value: object) -> str:
    return clean(repr(value) if isinstance(value, (str, int, float, bool)) else type(value).__name__, 64)
