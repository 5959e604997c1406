"""What an operation says when it ends, and the texts it says: fit to leave the process.

Imported with the first operation (`run.begin`), not before: it needs the event model.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from otelprogress import active
from otelprogress.exceptions import OperationCancelled, WorkerCancelled
from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.model.redaction import allowed_attributes, redact, redacted
from otelprogress.model.text import clean
from otelprogress.otel.registry import REGISTRY
from otelprogress.plan import AttributeScalar, Plan

if TYPE_CHECKING:
    from opentelemetry.context import Context


__all__ = [
    "as_result",
    "clean_message",
    "clean_plan",
    "clean_step",
    "clean_title",
    "error_fields",
    "outcome_of",
    "parent_span_id",
    "reason_of",
    "shown",
    "type_name",
]

_MAX_UNIT_CHARS: Final = 63
MAX_STACKTRACE_CHARS: Final = 16_384


def outcome_of(error: BaseException | None) -> State:
    """The outcome that leaving with `error` means; see `docs/api` for the list. `None`: returned."""
    if error is None:
        return State.SUCCEEDED
    if isinstance(error, BaseExceptionGroup):
        # A TaskGroup collects what its tasks raised: where all of them were cancelled, it was.
        outcomes = {outcome_of(each) for each in error.exceptions}
        return State.CANCELLED if outcomes == {State.CANCELLED} else State.FAILED
    if isinstance(error, SystemExit):
        return State.SUCCEEDED if error.code in (None, 0) else State.FAILED
    if isinstance(error, (OperationCancelled, WorkerCancelled, KeyboardInterrupt, GeneratorExit)):
        return State.CANCELLED
    asyncio: Any = sys.modules.get("asyncio.exceptions")
    if asyncio is not None and isinstance(error, asyncio.CancelledError):
        return State.CANCELLED
    return State.FAILED


def reason_of(error: BaseException | None) -> str:
    """What a canceller gave as its reason; empty: nothing, or it was no command that cancelled."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(reason_of, error.exceptions)), "")
    return error.reason if isinstance(error, (OperationCancelled, WorkerCancelled)) else ""


def type_name(error: BaseException) -> str:
    """As `error.type` has it: qualified, built-in ones bare."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def error_fields(error: BaseException) -> dict[str, str | None]:
    """Type, message and stack trace of a failure, redacted, as fields of an event."""
    try:
        trace_text = "".join(traceback.format_exception(error))
        text = str(error)
    except Exception:  # a __str__ of the user's
        trace_text = text = ""
    return {
        "error_type": type_name(error),
        "error_message": redacted(text, semconv.MAX_MESSAGE_CHARS) or None,
        "error_stacktrace": redact(trace_text[-MAX_STACKTRACE_CHARS:]) or None,
    }


def clean_message(message: str) -> str:
    """A note as it may leave: one line, redacted, at most 1,024 characters."""
    return redacted(str(message), semconv.MAX_MESSAGE_CHARS) or ""


def clean_title(title: str) -> str:
    """A title as it may be shown: one line of at most 120 characters."""
    return clean(title, semconv.MAX_TITLE_CHARS)


def clean_plan(plan: Plan) -> Plan:
    """Names come from anywhere: none may carry control characters into a terminal or a log.

    Steps whose names are the same once they are clean are one step.
    """
    longest = semconv.MAX_NAME_CHARS
    steps: dict[str, float] = {}
    for step, weight in zip(plan.steps, plan.weights, strict=True):
        steps.setdefault(clean_step(step), weight)
    return plan._replace(
        name=clean(plan.name, longest) or "operation",
        label=None if plan.label is None else clean(str(plan.label), longest) or None,
        steps=tuple(steps),
        weights=tuple(steps.values()),
        unit=None if plan.unit is None else clean(str(plan.unit), _MAX_UNIT_CHARS),
    )


def clean_step(name: str) -> str:
    """A step's name as it may be shown; never empty."""
    return clean(name, semconv.MAX_NAME_CHARS) or "step"


def shown(attributes: Mapping[str, AttributeScalar]) -> dict[str, AttributeScalar] | None:
    """What of the user's attributes may be shown; `None`: nothing."""
    if not attributes:
        return None

    return allowed_attributes(attributes, allowed=None) or None


def as_result(value: object) -> str | None:
    """A result as redacted JSON; `None`: it is none, or longer than 4 KiB, which is misuse."""
    from otelprogress.model.fields import json_in

    try:
        text = json.dumps(value, default=str, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except Exception as problem:  # a __str__ of the user's may raise anything
        active.misuse(f"a result that is no JSON was left out: {type(problem).__name__}: {problem}")
        return None
    size = len(text.encode("utf-8", "replace"))
    if size > semconv.MAX_RESULT_BYTES:
        active.misuse(f"a result of {size} bytes was left out: at most {semconv.MAX_RESULT_BYTES}")
        return None
    return json_in(text, semconv.MAX_RESULT_BYTES)


def parent_span_id(context: Context | None, trace_id: int, span_parent_id: int) -> str:
    """The operation around it: 16 hex digits; empty: a root.

    Ordinary spans between an operation and its child are passed over; a span of another process may be an
    operation, which only a host can know.
    """
    if not span_parent_id:
        return ""
    span_context = trace.get_current_span(context).get_span_context()
    if span_context.trace_id == trace_id and (known := REGISTRY.find(span_context)) is not None:
        return known.run_id[33:]  # the nearest: a rule's operation, also where the span is one of its steps'
    around = active.step_of(context) or active.inherited_step_of(context)
    if around is not None:
        run = around.operation.run_id
        return run[33:] if run[:32] == f"{trace_id:032x}" else ""
    return (
        f"{span_context.span_id:016x}" if span_context.trace_id == trace_id and span_context.is_remote else ""
    )
