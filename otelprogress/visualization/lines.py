"""Events as lines of text, one each, for pipes, log files and terminals that cannot redraw. Pure.

A line starts with the handle, so that `grep nightly_load-2` finds one operation's story; texts that come from the
operation are quoted.
"""

from __future__ import annotations

from typing import Final

from otelprogress.model import formats
from otelprogress.model.events import NO_STEP_INDEX, FeedEvent, OperationView, State, StepState, StepView
from otelprogress.model.text import clean
from otelprogress.visualization.question import json_value
from otelprogress.visualization.view_model import (
    MAX_NAME_CHARS,
    counts_of,
    expects,
    outcome_text,
    quoted,
    title_of,
)

SNAPSHOT: Final = "snapshot"
PROGRESSED: Final = "operation.progressed"


def line_of(event: FeedEvent) -> str | None:
    """The event in one line without a line end; `None` for what says nothing to a reader (ticks, `left`)."""
    view = event.operation
    text = _text_of(event, view)
    if text is None:
        return None
    line = f"{clean(view.handle, MAX_NAME_CHARS)} {text}"
    if event.folded:
        line += f" (and {event.folded} more)"
    return f"{line} (late)" if event.late else line


def _text_of(event: FeedEvent, view: OperationView) -> str | None:
    match event.kind:
        case "operation.started":
            return f"started {quoted(title_of(view))}"
        case "step.started":
            step = event.step or view.step
            return f"step {_step_name(step, view)} started" if step is not None else None
        case "step.ended":
            return _step_ended(event.step or view.step, view)
        case "operation.noted":
            return f"{event.level or 'info'} {quoted(event.message or '')}"
        case "operation.state_changed":
            return _state_text(view)
        case "input.requested":
            default = f" default {json_value(view.input_default)}" if view.input_default is not None else ""
            return f"asks {clean(view.input_id or '?', MAX_NAME_CHARS)} {quoted(view.input_prompt or '')}{default}"
        case "control.applied" | "control.refused":
            return _control_text(event)
        case "operation.ended":
            return _ended_text(view)
        case "snapshot":
            return _ended_text(view) if not view.live else _state_text(view)
        case _:
            return None


def _step_name(step: StepView, view: OperationView) -> str:
    name = clean(step.name, MAX_NAME_CHARS)
    shown = name if name.replace("_", "").replace("-", "").isalnum() else quoted(name, MAX_NAME_CHARS)
    return f"{step.index + 1}/{max(view.step_count, step.index + 1)} {shown}"


def _step_ended(step: StepView | None, view: OperationView) -> str | None:
    if step is None:
        return None
    text = f"step {_step_name(step, view)} {step.state}"
    if step.started_at_unix_ns is not None and step.ended_at_unix_ns is not None:
        text += f" in {formats.duration((step.ended_at_unix_ns - step.started_at_unix_ns) / 1e9)}"
    if figures := counts_of(step, None):
        text += f", {figures}"
    if view.live and view.ratio is not None:
        text += f"; {formats.percent(view.ratio)} done"
        if view.eta is not None and expects(view) and step.state is not StepState.FAILED:
            text += f", eta {formats.eta(view.eta, dash='-')}"
    return text


def _state_text(view: OperationView) -> str:
    if view.stalled and view.state is State.RUNNING:
        since = view.stalled_since_unix_ns
        text = "stalled"
        if since is not None:
            text += f", not moved for {formats.age((view.as_of_unix_ns - since) / 1e9)}"
        return text
    text = str(view.state)
    if view.ratio is not None:
        text += f" at {formats.percent(view.ratio)}"
        if view.eta is not None and expects(view):
            text += f", eta {formats.eta(view.eta, dash='-')}"
    step = view.step
    if step is not None:
        figures = counts_of(step, view.rate)
        name = "" if step.index == NO_STEP_INDEX else f"step {_step_name(step, view)} "
        text += f"; {name}{figures}".rstrip() if name or figures else ""
    return text


def _ended_text(view: OperationView) -> str:
    # The reason is a text of the operation's: quoted here, where a line may be parsed.
    bare = outcome_text(view, view.as_of_unix_ns)
    head, colon, reason = bare.partition(": ")
    return f"{head}{colon}{quoted(reason)}" if colon else head


def _control_text(event: FeedEvent) -> str:
    action = clean(event.control_action or "command", MAX_NAME_CHARS)
    actor = f" by {clean(event.control_actor, MAX_NAME_CHARS)}" if event.control_actor else ""
    if event.kind == "control.refused":
        return f"{action} refused: {clean(event.control_refusal or 'no reason given', MAX_NAME_CHARS)}"
    reason = f": {quoted(event.control_reason)}" if event.control_reason else ""
    return f"{action} applied{actor}{reason}"


def state_line(view: OperationView) -> str:
    """`nightly_load-2 running at 67%, eta 1-2m; step 3/3 load …`: one operation as it stands."""
    return f"{clean(view.handle, MAX_NAME_CHARS)} {_ended_text(view) if not view.live else _state_text(view)}"
