"""The names on the wire: the contract with every OpenTelemetry SDK in any language.

`docs/semconv/registry.yaml` says the same for people and tools; a test keeps the two equal.
"""

from __future__ import annotations

from typing import Final

SCOPE_NAME: Final = "otelprogress"
"""Instrumentation scope of every span, log record and metric of ours."""

PREFIX: Final = "otelprogress."

# --- the operation -------------------------------------------------------------------------------------
OPERATION_ID: Final = "otelprogress.operation.id"
OPERATION_NAME: Final = "otelprogress.operation.name"
OPERATION_TITLE: Final = "otelprogress.operation.title"
OPERATION_PARENT_SPAN_ID: Final = "otelprogress.operation.parent_span_id"
OPERATION_START_TIME: Final = "otelprogress.operation.start_time_unix_nano"
OPERATION_SPAN_KIND: Final = "otelprogress.operation.span_kind"
OPERATION_TRACE_STATE: Final = "otelprogress.operation.trace_state"
OPERATION_STEPS: Final = "otelprogress.operation.steps"
OPERATION_STEP_WEIGHTS: Final = "otelprogress.operation.step_weights"
OPERATION_EXPECTED_CHILDREN: Final = "otelprogress.operation.expected_children"
OPERATION_ATTEMPT: Final = "otelprogress.operation.attempt"
OPERATION_WEIGHT: Final = "otelprogress.operation.weight"
OPERATION_CONTROLS: Final = "otelprogress.operation.controls"
OPERATION_STATE: Final = "otelprogress.operation.state"
OPERATION_STALLED: Final = "otelprogress.operation.stalled"
OPERATION_RATIO: Final = "otelprogress.operation.ratio"
OPERATION_RATIO_SOURCE: Final = "otelprogress.operation.ratio_source"
OPERATION_STALL_AFTER: Final = "otelprogress.operation.stall_after"
ATTRIBUTE_PREFIX: Final = "otelprogress.attribute."
"""Before each attribute of the caller's that is meant for filters and views; on `operation.started`."""

# --- the writer ----------------------------------------------------------------------------------------
WRITER_ID: Final = "otelprogress.writer.id"
WRITER_SEQUENCE: Final = "otelprogress.writer.sequence"
WRITER_LEASE: Final = "otelprogress.writer.lease"

# --- the current step ----------------------------------------------------------------------------------
STEP_NAME: Final = "otelprogress.step.name"
STEP_INDEX: Final = "otelprogress.step.index"
STEP_STATE: Final = "otelprogress.step.state"
STEP_FOLDED: Final = "otelprogress.step.folded"
ITEMS_COMPLETED: Final = "otelprogress.items.completed"
ITEMS_TOTAL: Final = "otelprogress.items.total"
ITEMS_UNIT: Final = "otelprogress.items.unit"
ITEMS_INITIAL: Final = "otelprogress.items.initial"
COUNTER_PREFIX: Final = "otelprogress.counter."

# --- texts, endings, audit -----------------------------------------------------------------------------
MESSAGE: Final = "otelprogress.message"
MESSAGE_LEVEL: Final = "otelprogress.message.level"
RESULT: Final = "otelprogress.result"
LOST_DETECTOR: Final = "otelprogress.lost.detector"
LOST_EVIDENCE_TIME: Final = "otelprogress.lost.evidence_time"
LOST_CAUSE: Final = "otelprogress.lost.cause"
INPUT_ID: Final = "otelprogress.input.id"
INPUT_PROMPT: Final = "otelprogress.input.prompt"
INPUT_SCHEMA: Final = "otelprogress.input.schema"
INPUT_DEFAULT: Final = "otelprogress.input.default"
INPUT_DEADLINE: Final = "otelprogress.input.deadline"
CONTROL_ID: Final = "otelprogress.control.id"
CONTROL_ACTION: Final = "otelprogress.control.action"
CONTROL_ACTOR: Final = "otelprogress.control.actor"
CONTROL_REASON: Final = "otelprogress.control.reason"
CONTROL_REFUSAL: Final = "otelprogress.control.refusal"
ERROR_TYPE: Final = "error.type"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
SERVICE_NAME: Final = "service.name"
PROCESS_PID: Final = "process.pid"

# --- event names, as they stand on log records and span events -------------------------------------------
OPERATION_STARTED: Final = "otelprogress.operation.started"
STEP_STARTED: Final = "otelprogress.step.started"
STEP_ENDED: Final = "otelprogress.step.ended"
OPERATION_NOTED: Final = "otelprogress.operation.noted"
OPERATION_STATE_CHANGED: Final = "otelprogress.operation.state_changed"
INPUT_REQUESTED: Final = "otelprogress.input.requested"
CONTROL_APPLIED: Final = "otelprogress.control.applied"
CONTROL_REFUSED: Final = "otelprogress.control.refused"
OPERATION_ENDED: Final = "otelprogress.operation.ended"
OPERATION_PROGRESSED: Final = "otelprogress.operation.progressed"
WRITER_ALIVE: Final = "otelprogress.writer.alive"
STEPS_FOLDED: Final = "otelprogress.steps.folded"

DURABLE_EVENTS: Final = frozenset(
    {
        OPERATION_STARTED,
        STEP_STARTED,
        STEP_ENDED,
        OPERATION_NOTED,
        OPERATION_STATE_CHANGED,
        INPUT_REQUESTED,
        CONTROL_APPLIED,
        CONTROL_REFUSED,
        OPERATION_ENDED,
    },
)
"""Never conflated, never dropped once accepted."""

CONFLATED_EVENTS: Final = frozenset({OPERATION_PROGRESSED, WRITER_ALIVE})
"""The latest wins; losing an older one loses nothing."""

# --- metrics -------------------------------------------------------------------------------------------
METRIC_OPERATION_DURATION: Final = "otelprogress.operation.duration"
METRIC_STEP_DURATION: Final = "otelprogress.step.duration"
METRIC_OPERATION_ACTIVE: Final = "otelprogress.operation.active"
METRIC_OPERATION_STALLED: Final = "otelprogress.operation.stalled"
METRIC_ITEMS: Final = "otelprogress.items"

# --- limits, in characters or entries --------------------------------------------------------------------
MAX_TITLE_CHARS: Final = 120
MAX_NAME_CHARS: Final = 256
MAX_MESSAGE_CHARS: Final = 1024
MAX_COUNTERS: Final = 8
MAX_PLANNED_STEPS: Final = 4096
MAX_STACKTRACE_CHARS: Final = 16_384
MAX_INPUT_SCHEMA_CHARS: Final = 4096
MAX_STEPS_IN_SNAPSHOT: Final = 256
MAX_RESULT_BYTES: Final = 4096
SPAN_EVENT_BUDGET: Final = 100
"""Progress events put on one span; the SDK drops the oldest of more than 128 without a word."""
