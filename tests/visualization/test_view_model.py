from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model.events import ChildCounts, State, StepState
from otelprogress.visualization.view_model import Limits, Mark, Row, Tone, quoted, tree_rows
from tests.visualization.screen import NOW, SECOND, make_step, make_view, nightly_load, reindex


def texts(rows: list[Row]) -> list[str]:
    return [
        "  " * row.depth
        + " ".join(
            [*([f"{row.head.mark} {row.head.text}"] if row.head else []), *(p.text for p in row.parts)]
        )
        for row in rows
    ]


def family(count: int, **parent: object):
    root = make_view(1_000, title="all", started_at_unix_ns=NOW - 200 * SECOND, **parent)
    return [
        root,
        *(make_view(n, parent_id=root.id, started_at_unix_ns=NOW - (100 - n) * SECOND) for n in range(count)),
    ]


def test_children_stand_below_their_parent():
    assert texts(tree_rows(family(2), NOW)) == ["● all 3m20s", "  ● load 0 1m40s", "  ● load 1 1m39s"]


def test_a_view_whose_parent_is_unknown_is_a_root():
    assert tree_rows([make_view(1, parent_id="nobody")], NOW)[0].depth == 0


def test_a_cycle_of_parents_is_no_endless_tree():
    one, two = make_view(1), make_view(2)
    views = [msgspec.structs.replace(one, parent_id=two.id), msgspec.structs.replace(two, parent_id=one.id)]
    assert len(tree_rows(views, NOW)) <= 2


def test_hundreds_of_children_are_folded_into_one_line():
    rows = tree_rows(family(300), NOW)
    assert len(rows) == 1 + 8 + 1
    assert texts(rows)[-1] == "  … 292 more: 292 running"


def test_the_fold_counts_children_that_were_never_seen():
    rows = tree_rows(family(10, children=ChildCounts(total=5_000, live=10)), NOW)
    assert texts(rows)[-1].startswith("  … 4992 more")


def test_children_that_were_not_given_are_counted():
    views = [make_view(1, children=ChildCounts(total=500, live=12, succeeded=488))]
    assert texts(tree_rows(views, NOW))[-1] == "  500 children: 12 live, 488 succeeded"


def test_children_that_need_attention_are_shown_first():
    views = family(300)
    views[250] = msgspec.structs.replace(views[250], state=State.LOST, ended_at_unix_ns=NOW)
    assert any("lost after" in text for text in texts(tree_rows(views, NOW)))


def test_children_that_ended_well_are_only_counted():
    views = family(3)
    views[1] = msgspec.structs.replace(views[1], state=State.SUCCEEDED, ended_at_unix_ns=NOW)
    assert texts(tree_rows(views, NOW))[-1] == "  … 1 more: 1 succeeded"


@given(st.integers(0, 40), st.integers(0, 40), st.integers(2, 30))
def test_the_rows_never_exceed_the_limit(roots, children, limit):
    views = [make_view(5_000 + n) for n in range(roots)] + family(children) + [nightly_load(), reindex()]
    assert len(tree_rows(views, NOW, limits=Limits(rows=limit))) <= limit


def test_what_needs_attention_is_kept_when_roots_do_not_fit():
    views = [make_view(n, started_at_unix_ns=NOW - n) for n in range(50)] + [reindex()]
    rows = tree_rows(views, NOW, limits=Limits(rows=5))
    assert any("STALLED" in text for text in texts(rows))


def test_an_operation_that_counts_nothing_shows_its_elapsed_time_and_no_bar():
    (row,) = tree_rows([make_view(1)], NOW)
    assert (row.ratio, row.parts[0].text) == (None, "1m40s")


def test_an_estimated_percentage_says_about():
    assert "~50%" in texts(tree_rows([make_view(1, ratio=0.5, ratio_source="estimated")], NOW))[0]


def test_counts_without_steps_stand_on_the_operations_own_line():
    step = make_step(
        "", -1, StepState.RUNNING, completed=500, total=1000, unit="{row}", counters={"rejected": 12}
    )
    (row,) = tree_rows([make_view(1, ratio=0.5, step=step, rate=10)], NOW)
    assert texts([row]) == ["● load 1 50% 1m40s 500/1000 row 10/s, rejected 12"]


def test_waiting_for_input_shows_the_question():
    rows = tree_rows([make_view(1, state=State.WAITING, input_prompt="lr?")], NOW)
    assert texts(rows) == ['? load 1 waiting for input "lr?"']


def test_paused_is_said():
    assert texts(tree_rows([make_view(1, state=State.PAUSED, ratio=0.5)], NOW)) == ["‖ load 1 50% paused"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"state": State.SUCCEEDED}, "✓ load 1 succeeded in 1m40s"),
        (
            {"state": State.FAILED, "ratio": 0.4, "error_type": "ValueError", "error_message": "bad\ndate"},
            "✗ load 1 failed after 1m40s at 40%: ValueError: bad date",
        ),
        ({"state": State.LOST, "lost_detector": "pid"}, "† load 1 lost after 1m40s: seen by pid"),
        (
            {"state": State.CANCELLED, "message": "left at 40 of 100"},
            "■ load 1 cancelled after 1m40s: left at 40 of 100",
        ),
    ],
)
def test_an_outcome_says_how_long_and_why(changes, text):
    assert texts(tree_rows([make_view(1, ended_at_unix_ns=NOW, **changes)], NOW)) == [text]


def test_many_ended_steps_are_counted():
    steps = tuple(make_step(f"s{n}", n) for n in range(20))
    rows = tree_rows([make_view(1, steps=steps, step_count=20)], NOW)
    assert rows[1].parts[0].text == "14 more steps"
    assert len(rows[1].parts) == 7


def test_several_open_steps_have_a_line_each():
    steps = (
        make_step("a", 0, StepState.RUNNING, completed=1),
        make_step("b", 1, StepState.RUNNING, completed=2),
    )
    rows = tree_rows([make_view(1, steps=steps, step=steps[1], rate=5.0)], NOW)
    assert texts(rows)[1:] == ["  a 1", "  b 2 5/s"]


def test_a_warning_is_told_in_its_tone():
    parts = tree_rows([nightly_load()], NOW)[1].parts
    assert (parts[-1].tone, parts[0].mark) == (Tone.WARN, Mark.SUCCEEDED)


def test_handles_stand_at_the_edge_where_wanted():
    assert tree_rows([nightly_load()], NOW, handles=True)[0].aside == "nightly_load-2 cancel pause"
    assert tree_rows([nightly_load()], NOW)[0].aside == "cancel pause"


@given(st.text(max_size=300))
def test_no_text_of_an_operation_reaches_a_row_uncleaned(text):
    view = make_view(
        1,
        title=text,
        name=text,
        handle=text,
        message=text,
        controls=(text,),
        step=make_step(text, 0, StepState.RUNNING),
    )
    for row in tree_rows([view], NOW, handles=True):
        for shown in [row.aside, *(part.text for part in row.parts), *([row.head.text] if row.head else [])]:
            assert not {ch for ch in shown if ch < " " or "\x7f" <= ch < "\xa0" or ch in "\u202e\u2066\u200f"}


def test_quoted_text_is_one_json_string():
    assert quoted('say "hi"\r\nx') == '"say \\"hi\\" x"'
