from __future__ import annotations

import msgspec
import pytest

from otelprogress.model.events import FeedEvent, State, StepState
from otelprogress.visualization.lines import line_of, state_line
from otelprogress.visualization.table import page_lines, table_lines
from otelprogress.visualization.view_model import tree_rows
from tests.visualization.screen import NOW, SECOND, make_step, make_view, nightly_load, reindex


def line(kind: str, view=None, **fields: object) -> str | None:
    return line_of(FeedEvent(kind=kind, operation=view or nightly_load(), **fields))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (line("operation.started"), 'nightly_load-2 started "nightly load 2026-11-21"'),
        (line("step.started"), "nightly_load-2 step 3/3 load started"),
        (
            line("step.ended", step=make_step("clean it", 1, StepState.FAILED)),
            'nightly_load-2 step 2/3 "clean it" failed; 67% done',
        ),
        (
            line(
                "step.ended",
                step=make_step("clean", 1, StepState.FAILED, completed=3.0, total=9.0, ratio=1 / 3),
            ),
            "nightly_load-2 step 2/3 clean failed, 3/9 (33%); 67% done",
        ),
        (
            line("step.ended", step=make_step("clean", 1, completed=3.0, total=9.0, ratio=1.0)),
            "nightly_load-2 step 2/3 clean succeeded, 3/9; 67% done, eta 1-2m",
        ),
        (
            line("step.ended", step=make_step("clean", 1, completed=9.0, total=9.0, ratio=1.0)),
            "nightly_load-2 step 2/3 clean succeeded, 9/9 (100%); 67% done, eta 1-2m",
        ),
        (line("operation.noted", message="x\ny", level="warning"), 'nightly_load-2 warning "x y"'),
        (line("operation.noted", message="x", folded=9), 'nightly_load-2 info "x" (and 9 more)'),
        (line("operation.state_changed", reindex()), "reindex-1 stalled, not moved for 45s"),
        (
            line("operation.state_changed", make_view(1, state=State.PAUSED, ratio=0.5)),
            "load-1 paused at 50%",
        ),
        (
            line(
                "input.requested", make_view(1, input_id="in1", input_prompt="lr?", input_default='"halve"')
            ),
            'load-1 asks in1 "lr?" default "halve"',
        ),
        (
            line("control.applied", control_action="cancel", control_actor="ann", control_reason="late"),
            'nightly_load-2 cancel applied by ann: "late"',
        ),
        (
            line("control.refused", control_action="cancel", control_refusal="expired"),
            "nightly_load-2 cancel refused: expired",
        ),
        (
            line(
                "operation.ended",
                make_view(1, state=State.FAILED, ended_at_unix_ns=NOW, error_type="ValueError"),
            ),
            'load-1 failed after 1m40s: "ValueError"',
        ),
        (line("snapshot", make_view(1)), "load-1 running"),
        (
            line("snapshot", make_view(1, state=State.SUCCEEDED, ended_at_unix_ns=NOW)),
            "load-1 succeeded in 1m40s",
        ),
        (line("operation.noted", message="x", late=True), 'nightly_load-2 info "x" (late)'),
        (line("operation.progressed"), None),
        (line("left"), None),
    ],
)
def test_every_milestone_is_one_line(found, text):
    assert found == text


def test_a_step_without_a_step_says_nothing():
    assert line("step.ended", make_view(1)) is None
    assert line("step.started", make_view(1)) is None


def test_the_state_of_an_operation_without_steps_has_its_counts():
    step = make_step("", -1, StepState.RUNNING, completed=5)
    assert state_line(make_view(1, step=step)) == "load-1 running; 5"


def test_nothing_is_expected_while_the_step_that_failed_is_the_last_one_heard_of():
    failed = make_step("load", 2, StepState.FAILED, completed=3.0, total=9.0)
    view = msgspec.structs.replace(nightly_load(), step=failed)
    assert state_line(view) == "nightly_load-2 running at 67%; step 3/3 load 3/9 (33%)"
    assert "eta" not in "\n".join(page_lines(view, NOW))
    assert "1-2m" not in "\n".join(table_lines([view], NOW))
    rows = tree_rows([view], NOW)
    assert not any("eta" in part.text for row in rows for part in row.parts)


def test_the_handle_is_cleaned_too():
    view = msgspec.structs.replace(make_view(1, handle="a\x1b]0;x\x07b"), started_at_unix_ns=NOW - SECOND)
    assert state_line(view) == "ab running"
