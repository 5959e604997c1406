from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from otelprogress.exceptions import IllegalTransition
from otelprogress.model.events import OUTCOMES, State, StepState
from otelprogress.model.state import (
    OPERATION_TRANSITIONS,
    STEP_TRANSITIONS,
    TRANSITIONS,
    check_operation,
    check_step,
    diagram,
)

ROOT = Path(__file__).parents[2]


def test_every_state_has_a_row_in_its_table():
    assert set(OPERATION_TRANSITIONS) == set(State)
    assert set(STEP_TRANSITIONS) == set(StepState)
    assert set(TRANSITIONS) == {"operation", "step"}


def test_only_lost_leads_out_of_an_outcome():
    assert {state for state in OUTCOMES if OPERATION_TRANSITIONS[state]} == {State.LOST}
    assert OPERATION_TRANSITIONS[State.LOST] == {
        State.RUNNING,
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
    }


@pytest.mark.parametrize("current", list(State))
@pytest.mark.parametrize("requested", list(State))
def test_a_move_is_legal_exactly_where_the_table_has_it(current: State, requested: State):
    if requested is current or requested in OPERATION_TRANSITIONS[current]:
        check_operation(current, requested)
    else:
        with pytest.raises(IllegalTransition) as caught:
            check_operation(current, requested)
        assert (caught.value.current, caught.value.requested) == (current.value, requested.value)


def test_an_illegal_move_names_both_states():
    with pytest.raises(IllegalTransition, match="step is 'pending' and cannot become 'failed'") as caught:
        check_step(StepState.PENDING, StepState.FAILED)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_step_entered_again_continues():
    check_step(StepState.SUCCEEDED, StepState.RUNNING)


def test_the_page_of_the_documentation_is_made_from_the_tables():
    assert (ROOT / "docs" / "states.md").read_text().endswith("\n\n" + diagram())


def test_the_diagram_has_every_move():
    text = diagram()
    for table in (OPERATION_TRANSITIONS, STEP_TRANSITIONS):
        for current, targets in table.items():
            for target in targets:
                assert f"{current.value} --> {target.value}\n" in text


def test_the_module_prints_the_diagram():
    command = [sys.executable, "-m", "otelprogress.model.state"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == diagram()
