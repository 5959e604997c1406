"""Operations as a table, and one operation as a page of text. Pure: the text is plain and one cell wide a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from otelprogress.model import formats
from otelprogress.model.events import NO_STEP_INDEX, OperationView, State
from otelprogress.model.text import clean
from otelprogress.visualization.question import question_rows
from otelprogress.visualization.view_model import (
    MAX_NAME_CHARS,
    children_text,
    counts_of,
    expects,
    outcome_text,
    quoted,
    reason_of,
)

HEADINGS: Final = ("ID", "STATE", "DONE", "ETA", "STEP", "AGE", "SERVICE")
_NOTHING: Final = "-"


def table_lines(views: Sequence[OperationView], now_unix_ns: int) -> list[str]:
    """The headings and one line for each operation; why it did not succeed stands last."""
    rows = [HEADINGS, *(_cells(view, now_unix_ns) for view in views)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    reasons = ["", *(reason_of(view) for view in views)]
    lines = []
    for row, reason in zip(rows, reasons, strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"{line}  {reason}".rstrip())
    return lines


def step_text(view: OperationView) -> str:
    """`3/3 load`; empty where there are no steps."""
    step = view.step
    if step is None or step.index == NO_STEP_INDEX:
        return ""
    return f"{step.index + 1}/{max(view.step_count, step.index + 1)} {clean(step.name, MAX_NAME_CHARS)}"


def state_text(view: OperationView) -> str:
    """The state, with the flag `stalled` in its place where that is what a reader needs to know."""
    return "stalled" if view.stalled and view.state is State.RUNNING else str(view.state)


def _cells(view: OperationView, now_unix_ns: int) -> tuple[str, ...]:
    passed_s = max(0, now_unix_ns - view.as_of_unix_ns) / 1e9
    return (
        clean(view.handle, MAX_NAME_CHARS),
        state_text(view),
        formats.percent(view.ratio) if view.ratio is not None else _NOTHING,
        formats.eta(view.eta, passed_s=passed_s, dash="-")
        if view.eta is not None and expects(view)
        else _NOTHING,
        step_text(view) or _NOTHING,
        formats.age((now_unix_ns - view.started_at_unix_ns) / 1e9),
        clean(view.service, MAX_NAME_CHARS) or _NOTHING,
    )


def page_lines(view: OperationView, now_unix_ns: int) -> list[str]:
    """All that is known of one operation, for a person."""
    lines = [f"{clean(view.handle, MAX_NAME_CHARS)}  {quoted(view.title or view.name)}"]

    def say(name: str, text: str | None) -> None:
        if text:
            lines.append(f"  {name:<9} {text}")

    say("id", clean(view.id, 64))
    say("label", quoted(view.label) if view.label else None)
    say("service", clean(view.service, MAX_NAME_CHARS))
    say("process", str(view.process_id) if view.process_id is not None else None)
    say("state", outcome_text(view, now_unix_ns) if not view.live else state_text(view))
    say("started", f"{formats.age((now_unix_ns - view.started_at_unix_ns) / 1e9)} ago")
    if view.live:
        say("heard", f"{formats.age((now_unix_ns - view.updated_at_unix_ns) / 1e9)} ago")
    if view.ratio is not None:
        done = formats.percent(view.ratio) + (" (estimated)" if view.ratio_source == "estimated" else "")
        if view.eta is not None and expects(view):
            passed_s = max(0, now_unix_ns - view.as_of_unix_ns) / 1e9
            done += f", eta {formats.eta(view.eta, passed_s=passed_s, dash='-')}"
        say("done", done)
    if view.step is not None and view.step.index == NO_STEP_INDEX:
        say("counts", counts_of(view.step, view.rate))
    _say_steps(view, lines)
    if view.children is not None and view.children.total:
        say("has", children_text(view.children))
    say("accepts", ", ".join(clean(name, MAX_NAME_CHARS) for name in view.controls))
    for name, text in question_rows(view, now_unix_ns):
        say(name, text)
    say("note", f"{view.level or 'info'} {quoted(view.message)}" if view.message else None)
    say("result", quoted(view.result) if view.result else None)
    say("missing", f"{view.dropped} events were dropped" if view.dropped else None)
    if view.incomplete:
        say("missing", "some events of the writer never arrived")
    return lines


def _say_steps(view: OperationView, lines: list[str]) -> None:
    steps = {step.index: step for step in view.steps if step.index != NO_STEP_INDEX}
    if view.step is not None and view.step.index != NO_STEP_INDEX:
        steps.setdefault(view.step.index, view.step)
    for index, step in sorted(steps.items()):
        text = (
            f"{index + 1}/{max(view.step_count, index + 1)} {quoted(step.name, MAX_NAME_CHARS)} {step.state}"
        )
        if step.started_at_unix_ns is not None and step.ended_at_unix_ns is not None:
            text += f" in {formats.duration((step.ended_at_unix_ns - step.started_at_unix_ns) / 1e9)}"
        current = view.step is not None and view.step.index == index
        if figures := counts_of(step, view.rate if current else None):
            text += f", {figures}"
        lines.append(f"  step      {text}")
    if view.steps_folded:
        lines.append(f"  step      … {view.steps_folded} more")
