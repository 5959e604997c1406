"""Numbers and times that cannot be meant, kept out of the state.

Decided once: a number that is negative, not finite or beyond 2^63 is taken as not said, so that the rest of the
event (an end, a note) still counts; a time more than a day ahead of the host's clock, or ten years behind it, is
replaced by the host's clock. Both are counted. More done than there is to do stays as it was said; only the
ratio is limited to 1.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import OUTCOMES, Event

MAX_NUMBER: Final = 2.0**63
FUTURE_NS: Final = 86_400 * 10**9
PAST_NS: Final = 10 * 366 * 86_400 * 10**9

_RUN_ID: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_RARE_NUMBERS: Final = ("initial", "weight", "lease_s", "stall_after_s")
_WHOLE: Final = ("attempt", "expected_children", "folded")
_TIMES: Final = ("start_unix_ns", "lost_evidence_unix_ns")


class Repairs(msgspec.Struct, gc=False):
    """How often something had to be repaired."""

    numbers: int = 0
    times: int = 0


def check_run_id(run_id: str) -> None:
    """Refuse what cannot be the id of a run.

    Raises:
        InvalidRecord: not 32 hex digits, a hyphen and 16 hex digits.
    """
    if _RUN_ID.fullmatch(run_id) is None:
        raise refused_run_id(run_id)


def refused_run_id(run_id: str) -> InvalidRecord:
    """The refusal of an id that cannot be a run of whoever says it, whatever the reason."""
    return InvalidRecord(
        f"run id must be <32 hex digits>-<16 hex digits> of a span of its writer's own, not {run_id[:64]!r}"
    )


def check_durable(event: Event) -> None:
    """Refuse a durable event that says something impossible.

    Raises:
        InvalidRecord: unknown kind, a sequence below 1, a malformed parent, a state that does not fit the kind.
    """
    if event.kind not in semconv.DURABLE_EVENTS:
        raise InvalidRecord(f"unknown event {event.kind[:64]!r}")
    if event.sequence is not None and not 0 < event.sequence < 2**63:
        raise InvalidRecord(f"{semconv.WRITER_SEQUENCE} must be from 1, not {event.sequence}")
    if event.parent_span_id and _SPAN_ID.fullmatch(event.parent_span_id) is None:
        raise InvalidRecord(f"{semconv.OPERATION_PARENT_SPAN_ID} must be 16 hex digits")
    if event.state is None:
        return
    if event.kind == semconv.OPERATION_ENDED and event.state not in OUTCOMES:
        raise InvalidRecord(
            f"{semconv.OPERATION_STATE} of an ended operation must be an outcome, not {event.state}"
        )
    if event.kind == semconv.OPERATION_STATE_CHANGED and event.state in OUTCOMES:
        raise InvalidRecord(f"{semconv.OPERATION_STATE} {event.state} needs {semconv.OPERATION_ENDED}")


def repaired(event: Event, now_unix_ns: int, repairs: Repairs) -> Event:
    """The event with what cannot be meant taken out; the same object when nothing is wrong, which is cheap."""
    changes: dict[str, Any] = {}
    time_ns = event.time_unix_ns
    if not now_unix_ns - PAST_NS <= time_ns <= now_unix_ns + FUTURE_NS or time_ns <= 0:
        changes["time_unix_ns"] = time_ns = max(1, now_unix_ns)
        repairs.times += 1
    number = event.completed
    if number is not None and not 0.0 <= number <= MAX_NUMBER:
        _forget(changes, repairs, "completed")
    number = event.total
    if number is not None and not 0.0 <= number <= MAX_NUMBER:
        _forget(changes, repairs, "total")
    number = event.ratio
    if number is not None and not 0.0 <= number <= 1.0:
        _forget(changes, repairs, "ratio")
    if event.counters:
        bad = [name for name, value in event.counters.items() if not abs(value) <= MAX_NUMBER]
        if bad:
            changes["counters"] = {name: value for name, value in event.counters.items() if name not in bad}
            repairs.numbers += len(bad)
    if event.kind != semconv.OPERATION_PROGRESSED:
        _repair_rare(event, time_ns, now_unix_ns, changes, repairs)
    return msgspec.structs.replace(event, **changes) if changes else event


def _repair_rare(
    event: Event, time_ns: int, now_unix_ns: int, changes: dict[str, Any], repairs: Repairs
) -> None:
    if (
        event.initial is event.weight is event.lease_s is event.stall_after_s is None
        and event.attempt is event.expected_children is event.folded is None
        and event.start_unix_ns is event.lost_evidence_unix_ns is None
        and event.step_weights is None
        and event.input_deadline_unix_ns is None
    ):
        return  # almost every event: most of these are said once, at the start
    for name in _RARE_NUMBERS:
        number = getattr(event, name)
        if number is not None and not 0.0 <= number <= MAX_NUMBER:
            _forget(changes, repairs, name)
    for name in _WHOLE:
        number = getattr(event, name)
        if number is not None and not 0 <= number <= 2**31:
            _forget(changes, repairs, name)
    for name in _TIMES:
        moment = getattr(event, name)
        if moment is not None and not (
            moment > 0 and now_unix_ns - PAST_NS <= moment <= now_unix_ns + FUTURE_NS
        ):
            changes[name] = time_ns
            repairs.times += 1
    weights = event.step_weights
    if weights is not None and not all(0.0 <= weight <= MAX_NUMBER for weight in weights):
        changes["step_weights"] = tuple(weight if 0.0 <= weight <= MAX_NUMBER else 1.0 for weight in weights)
        repairs.numbers += 1
    deadline = event.input_deadline_unix_ns
    if deadline is not None and not 0 < deadline < 2**63:
        _forget(changes, repairs, "input_deadline_unix_ns")


def _forget(changes: dict[str, Any], repairs: Repairs, name: str) -> None:
    changes[name] = None
    repairs.numbers += 1
