"""Operations as the rows of a tree, whatever draws them. Pure: no terminal, no clock.

A row is one line. Texts that come from operations are cleaned and capped here, once, so that no renderer can
forget it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from otelprogress.model import formats
from otelprogress.model.events import NO_STEP_INDEX, ChildCounts, OperationView, State, StepState, StepView
from otelprogress.model.text import clean

MAX_TITLE_CHARS: Final = 120
MAX_NAME_CHARS: Final = 60
MAX_NOTE_CHARS: Final = 160
MAX_DEPTH: Final = 16
"""Deeper operations are folded into their ancestor's count."""
_MAX_DONE_STEPS_SHOWN: Final = 6
_MAX_COUNTERS_SHOWN: Final = 4
_MAX_CONTROLS_SHOWN: Final = 4


class Tone(StrEnum):
    """What a text means; a renderer gives it a colour."""

    PLAIN = "plain"
    DIM = "dim"
    LIVE = "live"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


class Mark(StrEnum):
    """The sign before a row. A renderer that cannot draw it uses `ASCII_MARKS`."""

    NONE = ""
    LIVE = "●"
    STALLED = "▲"
    WAITING = "?"
    PAUSED = "‖"
    SUCCEEDED = "✓"
    FAILED = "✗"
    CANCELLED = "■"
    LOST = "†"
    PENDING = "○"


ASCII_MARKS: Final = {
    Mark.NONE: "",
    Mark.LIVE: "*",
    Mark.STALLED: "!",
    Mark.WAITING: "?",
    Mark.PAUSED: "=",
    Mark.SUCCEEDED: "+",
    Mark.FAILED: "x",
    Mark.CANCELLED: "-",
    Mark.LOST: "X",
    Mark.PENDING: "o",
}

_MARKS: Final = {
    State.RUNNING: (Mark.LIVE, Tone.LIVE),
    State.WAITING: (Mark.WAITING, Tone.WARN),
    State.PAUSED: (Mark.PAUSED, Tone.WARN),
    State.SUCCEEDED: (Mark.SUCCEEDED, Tone.GOOD),
    State.FAILED: (Mark.FAILED, Tone.BAD),
    State.CANCELLED: (Mark.CANCELLED, Tone.DIM),
    State.LOST: (Mark.LOST, Tone.BAD),
}
_STEP_MARKS: Final = {
    StepState.PENDING: (Mark.PENDING, Tone.DIM),
    StepState.RUNNING: (Mark.LIVE, Tone.LIVE),
    StepState.SUCCEEDED: (Mark.SUCCEEDED, Tone.GOOD),
    StepState.FAILED: (Mark.FAILED, Tone.BAD),
    StepState.SKIPPED: (Mark.CANCELLED, Tone.DIM),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a row: a sign and a text, either may be empty."""

    text: str
    tone: Tone = Tone.PLAIN
    mark: Mark = Mark.NONE


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the tree.

    Attributes:
        depth: 0 for a root and 1 for what stands below it.
        head: what is aligned in the first column (sign and title); `None`: a row of details.
        ratio: 0 to 1 draws a bar; `None` draws none.
        parts: what follows, separated by spaces; the first ones matter most.
        aside: stands at the right edge where there is room; empty: nothing.
    """

    depth: int
    head: Part | None = None
    ratio: float | None = None
    parts: tuple[Part, ...] = ()
    aside: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a large tree is shown.

    Attributes:
        rows: lines in all; what does not fit is folded, children first.
        children: shown below one operation; the rest is counted in one line.
    """

    rows: int = 200
    children: int = 8


def quoted(text: str, max_chars: int = MAX_NOTE_CHARS) -> str:
    """The text as a JSON string: cleaned, capped, and clearly data."""
    return json.dumps(clean(text, max_chars), ensure_ascii=False)


def title_of(view: OperationView) -> str:
    """Its title, else its name, else its handle; cleaned."""
    return (
        clean(view.title, MAX_TITLE_CHARS)
        or clean(view.name, MAX_TITLE_CHARS)
        or clean(view.handle, MAX_NAME_CHARS)
    )


def mark_of(view: OperationView) -> tuple[Mark, Tone]:
    """The sign and the tone of its state."""
    if view.stalled and view.state is State.RUNNING:
        return Mark.STALLED, Tone.WARN
    return _MARKS[view.state]


def _steps_said(view: OperationView) -> list[StepView]:
    """Named steps, the current one in its newest form."""
    current = view.step if view.step is not None and view.step.index != NO_STEP_INDEX else None
    steps = [step if current is None or step.index != current.index else current for step in view.steps]
    if current is not None and all(step.index != current.index for step in steps):
        steps.append(current)
    return sorted(steps, key=lambda step: step.index)


def _step_elapsed_s(step: StepView, now_unix_ns: int) -> float | None:
    if step.started_at_unix_ns is None:
        return None
    end = step.ended_at_unix_ns if step.ended_at_unix_ns is not None else now_unix_ns
    return max(0, end - step.started_at_unix_ns) / 1e9


def counts_of(step: StepView, rate: float | None) -> str:
    """`61.2k/120k row (51%) 2.0k/s, rejected 12`; empty where the step counts nothing.

    An ended step says what it counted and no percent that its counts contradict: `3/9` succeeds as a whole.
    """
    texts: list[str] = []
    if step.completed is not None:
        texts.append(formats.counts(step.completed, step.total, step.unit))
        if step.total and step.index != NO_STEP_INDEX:
            counted = formats.percent(step.completed / step.total)
            shown = counted if step.ratio is None else formats.percent(step.ratio)
            if shown == counted or step.state is StepState.RUNNING:
                texts.append(f"({shown})")
        if rate is not None and step.state is StepState.RUNNING:
            texts.append(formats.rate(rate, step.unit))
    text = " ".join(texts)
    named = [
        f"{clean(name, MAX_NAME_CHARS)} {formats.amount(value)}"
        for name, value in list(step.counters.items())[:_MAX_COUNTERS_SHOWN]
    ]
    return ", ".join([text, *named] if text else named)


def expects(view: OperationView) -> bool:
    """Whether an ETA is worth showing: not once it ended, and not beside a step that failed."""
    return (
        view.live and view.eta is not None and (view.step is None or view.step.state is not StepState.FAILED)
    )


def _now_elapsed_s(view: OperationView, now_unix_ns: int) -> float:
    end = view.ended_at_unix_ns if view.ended_at_unix_ns is not None else max(now_unix_ns, view.as_of_unix_ns)
    return max(0, end - view.started_at_unix_ns) / 1e9


def _ago_s(then_unix_ns: int, now_unix_ns: int) -> float:
    return max(0, now_unix_ns - then_unix_ns) / 1e9


def outcome_text(view: OperationView, now_unix_ns: int) -> str:
    """`succeeded in 9m12s`, `failed after 3m at 40%: ValueError: bad date`, `lost after 3m at 18%: SIGKILL`."""
    elapsed = formats.duration(_now_elapsed_s(view, now_unix_ns))
    if view.state is State.SUCCEEDED:
        return f"succeeded in {elapsed}"
    text = f"{view.state} after {elapsed}"
    if view.ratio is not None:
        text += f" at {formats.percent(view.ratio)}"
    reason = reason_of(view)
    return f"{text}: {reason}" if reason else text


def reason_of(view: OperationView) -> str:
    """Why it did not succeed, in a few words; empty where nobody said."""
    match view.state:
        case State.FAILED:
            kind, message = (
                clean(view.error_type or "", MAX_NAME_CHARS),
                clean(view.error_message or "", MAX_NOTE_CHARS),
            )
            return f"{kind}: {message}" if kind and message else kind or message
        case State.LOST:
            if view.lost_cause:
                return clean(view.lost_cause, MAX_NOTE_CHARS)
            return f"seen by {clean(view.lost_detector, MAX_NAME_CHARS)}" if view.lost_detector else ""
        case State.CANCELLED:
            return clean(view.message or "", MAX_NOTE_CHARS)
        case _:
            return ""


def _figures(view: OperationView, now_unix_ns: int) -> list[Part]:
    """What stands behind the title: percent and ETA, or why it does not move, or how it ended."""
    if not view.live:
        return [Part(outcome_text(view, now_unix_ns), mark_of(view)[1])]
    parts: list[Part] = []
    if view.ratio is not None:
        about = "~" if view.ratio_source == "estimated" else ""
        parts.append(Part(about + formats.percent(view.ratio)))
    if view.state is State.WAITING:
        prompt = f" for input {quoted(view.input_prompt)}" if view.input_prompt else ""
        parts.append(Part(f"waiting{prompt}", Tone.WARN))
    elif view.state is State.PAUSED:
        parts.append(Part("paused", Tone.WARN))
    elif view.stalled:
        since = (
            view.stalled_since_unix_ns if view.stalled_since_unix_ns is not None else view.updated_at_unix_ns
        )
        text = f"STALLED {formats.age(_ago_s(since, now_unix_ns))}"
        if view.usual_interval_s:
            text += f" (usually moves every {formats.interval(view.usual_interval_s)})"
        text += f"; alive {formats.age(_ago_s(view.updated_at_unix_ns, now_unix_ns))} ago"
        parts.append(Part(text, Tone.WARN))
    elif view.eta is not None and expects(view):
        parts.append(Part(f"eta {formats.eta(view.eta, passed_s=_ago_s(view.as_of_unix_ns, now_unix_ns))}"))
    else:
        parts.append(Part(formats.duration(_now_elapsed_s(view, now_unix_ns)), Tone.DIM))
    return parts


def _note(view: OperationView) -> Part | None:
    if not view.message or view.state is State.CANCELLED:
        return None
    tone = {"warning": Tone.WARN, "error": Tone.BAD}.get(view.level or "", Tone.DIM)
    return Part(quoted(view.message), tone)


def _rows_of_steps(view: OperationView, depth: int, now_unix_ns: int) -> list[Row]:
    """The ended steps and the last note in one line, the open ones in one line each."""
    done: list[Part] = []
    rows: list[Row] = []
    for step in _steps_said(view):
        mark, tone = _STEP_MARKS[step.state]
        name = clean(step.name, MAX_NAME_CHARS)
        elapsed_s = _step_elapsed_s(step, now_unix_ns)
        elapsed = formats.duration(elapsed_s) if elapsed_s is not None else ""
        if step.state is StepState.RUNNING:
            figures = counts_of(
                step, view.rate if view.step is not None and view.step.index == step.index else None
            )
            if view.live:
                rows.append(Row(depth, parts=(Part(name, tone, mark), Part(figures or elapsed, Tone.DIM))))
            else:
                done.append(Part(f"{name} {figures}".rstrip(), Tone.DIM, Mark.PENDING))
        elif step.state is not StepState.PENDING:
            done.append(Part(f"{name} {elapsed}".rstrip(), tone, mark))
    if len(done) > _MAX_DONE_STEPS_SHOWN:
        left_out = len(done) - _MAX_DONE_STEPS_SHOWN
        done = [Part(f"{left_out} more steps", Tone.DIM), *done[left_out:]]
    note = _note(view)
    if note is not None:
        done.append(note)
    return [Row(depth, parts=tuple(done)), *rows] if done else rows


def _brief_step(view: OperationView) -> Part | None:
    """The current step behind the figures, for operations that get one line only."""
    step = view.step
    if step is None or not view.live:
        return None
    figures = counts_of(step, view.rate)
    if step.index == NO_STEP_INDEX:
        return Part(figures, Tone.DIM) if figures else None
    return Part(f"{clean(step.name, MAX_NAME_CHARS)} {figures}".rstrip(), Tone.DIM)


def _head(view: OperationView, depth: int, now_unix_ns: int, *, brief: bool, aside: str) -> Row:
    mark, tone = mark_of(view)
    figures = _figures(view, now_unix_ns)
    step = (
        _brief_step(view) if brief or (view.step is not None and view.step.index == NO_STEP_INDEX) else None
    )
    if step is not None:
        figures.append(step)
    return Row(
        depth, Part(title_of(view), tone, mark), view.ratio if view.live else None, tuple(figures), aside
    )


def _needs_attention(view: OperationView) -> bool:
    return view.stalled or view.state in {State.WAITING, State.FAILED, State.LOST}


def folded_text(views: Sequence[OperationView], total: int | None = None) -> str:
    """`88 more: 70 running, 18 succeeded`. `total`: how many there are in all, where more is known than seen."""
    by_state: dict[str, int] = {}
    for view in views:
        by_state[view.state] = by_state.get(view.state, 0) + 1
    text = f"… {max(len(views), total or 0)} more"
    return (
        f"{text}: {', '.join(f'{count} {state}' for state, count in by_state.items())}" if by_state else text
    )


def children_text(counts: ChildCounts) -> str:
    """`500 children: 12 live, 488 succeeded`."""
    named = (
        ("live", counts.live),
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("lost", counts.lost),
    )
    told = ", ".join(f"{number} {name}" for name, number in named if number)
    text = f"{counts.total} children" if counts.total != 1 else "1 child"
    return f"{text}: {told}" if told else text


class _Tree:
    """The views by parent, oldest first."""

    def __init__(self, views: Iterable[OperationView]) -> None:
        known = {view.id: view for view in views}
        self.roots: list[OperationView] = []
        self.children: dict[str, list[OperationView]] = {}
        for view in sorted(known.values(), key=lambda view: (view.started_at_unix_ns, view.id)):
            if view.parent_id is not None and view.parent_id in known and view.parent_id != view.id:
                self.children.setdefault(view.parent_id, []).append(view)
            else:
                self.roots.append(view)


def tree_rows(
    views: Iterable[OperationView],
    now_unix_ns: int,
    *,
    limits: Limits = Limits(),
    handles: bool = False,
) -> list[Row]:
    """The rows of all operations, roots by age, children below their parents.

    Args:
        views: any order; of a view whose parent is not among them, a root is made.
        now_unix_ns: ages and ETAs are shown as of then.
        limits: what is more is folded into a count: ended children first, then roots that ended well.
        handles: whether the right edge names the handle, beside the actions that are accepted.
    """
    tree = _Tree(views)
    for children in (limits.children, 4, 2, 1, 0):
        rows = _Fold(tree, now_unix_ns, handles, min(children, limits.children)).rows_of_roots()
        if len(rows) <= limits.rows:
            return rows
    rows = _Fold(tree, now_unix_ns, handles, 0, brief=True).rows_of_roots()
    if len(rows) <= limits.rows:
        return rows
    # One line each is still too much: what ended well goes first, then the oldest that only run.
    by_weight = sorted(
        tree.roots, key=lambda view: (_needs_attention(view), view.live, view.started_at_unix_ns)
    )
    dropped = by_weight[: len(by_weight) - max(0, limits.rows - 1)]
    gone = {view.id for view in dropped}
    kept = _Tree(view for view in tree.roots if view.id not in gone)
    rows = _Fold(kept, now_unix_ns, handles, 0, brief=True).rows_of_roots()
    return [*rows, Row(0, parts=(Part(folded_text(dropped), Tone.DIM),))]


@dataclass(frozen=True, slots=True)
class _Fold:
    """How one tree is drawn."""

    tree: _Tree
    now_unix_ns: int
    handles: bool
    max_children: int
    brief: bool = False
    """One line for each root and nothing below."""

    def rows_of_roots(self) -> list[Row]:
        return [row for view in self.tree.roots for row in self.rows_of(view, 0)]

    def rows_of(self, view: OperationView, depth: int) -> list[Row]:
        asides = [clean(view.handle, MAX_NAME_CHARS)] if self.handles else []
        if view.live:
            asides.extend(clean(name, MAX_NAME_CHARS) for name in view.controls[:_MAX_CONTROLS_SHOWN])
        rows = [_head(view, depth, self.now_unix_ns, brief=self.brief or depth > 0, aside=" ".join(asides))]
        if self.brief:
            return rows
        if depth == 0:
            rows.extend(_rows_of_steps(view, depth + 1, self.now_unix_ns))
        return rows + self._rows_below(view, depth + 1)

    def _rows_below(self, view: OperationView, depth: int) -> list[Row]:
        children = self.tree.children.get(view.id, [])
        if not children and view.live and view.children is not None and view.children.total:
            return [Row(depth, parts=(Part(children_text(view.children), Tone.DIM),))]
        telling = [child for child in children if child.live or _needs_attention(child)]
        if not view.live:
            # What ended is read for what went wrong below it; the rest is in its figures.
            children = telling
        telling.sort(key=lambda child: (not _needs_attention(child), child.started_at_unix_ns))
        shown = telling[: self.max_children if depth <= MAX_DEPTH else 0]
        rows: list[Row] = []
        for child in sorted(shown, key=lambda child: (child.started_at_unix_ns, child.id)):
            rows.extend(self.rows_of(child, depth))
        shown_ids = {child.id for child in shown}
        if folded := [child for child in children if child.id not in shown_ids]:
            total = view.children.total - len(shown) if view.children is not None and view.live else None
            rows.append(Row(depth, parts=(Part(folded_text(folded, total), Tone.DIM),)))
        return rows
