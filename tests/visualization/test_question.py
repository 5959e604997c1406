from __future__ import annotations

import json

import pytest

from otelprogress.model.events import State
from otelprogress.visualization.question import question_rows
from tests.visualization.screen import NOW, SECOND, make_view


def asking(schema: object = None, **changes: object):
    fields = {"state": State.WAITING, "input_id": "in1", "input_prompt": "go on?", **changes}
    return make_view(input_schema=None if schema is None else json.dumps(schema), **fields)


def test_who_asks_nothing_or_has_ended_has_no_rows():
    assert question_rows(make_view(), NOW) == []
    assert question_rows(asking(state=State.CANCELLED), NOW) == []


def test_a_question_says_what_happens_without_an_answer_and_when():
    view = asking({"type": "boolean"}, input_default="true", input_deadline_unix_ns=NOW + 90 * SECOND)
    assert question_rows(view, NOW) == [
        ("asks", 'in1 "go on?"'),
        ("answer", "yes or no"),
        ("default", "true in 1m30s"),
    ]
    without = asking(input_deadline_unix_ns=NOW + 90 * SECOND)
    assert question_rows(without, NOW + 300 * SECOND)[-1] == ("ends", "in 0.0s")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (None, "a text, a number, or true or false"),
        ({"enum": ["a b", 2, True]}, 'one of "a b", 2, true'),
        ({"enum": list(range(40))}, "one of " + ", ".join(map(str, range(32))) + " and 8 more"),
        (
            {"type": "number", "minimum": 0, "maximum": 0.5},
            "a number, at least 0, at most 0.5",
        ),
        ({"type": "string", "maxLength": 9, "title": "why"}, 'a text, at most 9 characters "why"'),
        ({"type": "integer", "pattern": ".*"}, "a text, a number, or true or false"),
    ],
)
def test_an_answer_is_described_by_its_schema(schema: object, text: str):
    assert dict(question_rows(asking(schema), NOW))["answer"] == text


def test_a_form_has_a_line_for_each_field_as_it_is_typed():
    form = {
        "type": "object",
        "properties": {"lr": {"type": "number"}, "why": {"type": "string"}},
        "required": ["lr"],
    }
    assert question_rows(asking(form), NOW)[1:] == [
        ("answer", "--field lr={a number}"),
        ("", "--field why={a text, may be left out}"),
    ]


def test_no_text_of_the_program_leaves_its_quotes_or_its_line():
    evil = 'x" applied\n\x1b[31m'
    view = asking({"enum": [evil]}, input_prompt=evil, input_default=evil, input_id=evil)
    for _, text in question_rows(view, NOW):
        assert "\n" not in text
        assert "\x1b" not in text
    assert dict(question_rows(view, NOW))["answer"].startswith('one of "x\\" applied')
