from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress.model.input_schema import (
    MAX_ANSWER_CHARS,
    MAX_FIELDS,
    check_schema,
    checked,
    checked_text,
    content_of,
    schema_of,
)

FORM = {
    "type": "object",
    "properties": {
        "rate": {"type": "number", "minimum": 0, "maximum": 1},
        "why": {"type": "string", "maxLength": 20},
        "again": {"type": "boolean"},
    },
    "required": ["rate"],
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "enum", "minimum", "maxLength", "properties", "required", "default", "title", "x"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
LIKE_A_SCHEMA = st.dictionaries(
    st.sampled_from(
        ["type", "enum", "minimum", "maximum", "minLength", "properties", "required", "title", "default"]
    ),
    ANYTHING | st.sampled_from(["string", "number", "integer", "boolean", "object"]),
    max_size=5,
)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "minLength": 1, "maxLength": 5, "title": "a", "description": "b", "default": "c"},
        {"enum": ["halve", 2, 0.5, True]},
        {"type": "integer", "minimum": 1, "maximum": 9},
        FORM,
    ],
)
def test_what_is_flat_can_be_asked_by(schema: dict):
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({"type": "array"}, "array"),
        ({"type": ["string", "null"]}, "type"),
        ({"type": {"of": "string"}}, "type"),
        ({"type": None}, "type"),
        ({"pattern": "(a+)+$"}, "`pattern`"),
        ({"$ref": "#/x"}, r"`\$ref`"),
        ({"enum": []}, "enum"),
        ({"enum": None}, "enum"),
        ({"enum": "ab"}, "enum"),
        ({"enum": [["a"]]}, "enum"),
        ({"enum": [math.nan]}, "enum"),
        ({"enum": [10**400]}, "enum"),
        ({"minimum": "1"}, "minimum"),
        ({"minimum": math.nan}, "minimum"),
        ({"maximum": math.inf}, "maximum"),
        ({"maxLength": True}, "maxLength"),
        ({"title": 5}, "title"),
        ({"description": object()}, "description"),
        ({"default": [1]}, "default"),
        ({"type": "object"}, "properties"),
        ({"type": "object", "properties": {}}, "properties"),
        ({"type": "object", "properties": {str(n): {} for n in range(MAX_FIELDS + 1)}}, "properties"),
        ({"type": "object", "properties": {"a": "string"}}, "'a'"),
        ({"type": "object", "properties": {1: {}}}, "1"),
        ({"type": "object", "properties": {"": {}}}, "printable"),
        ({"type": "object", "properties": {" a": {}}}, "printable"),
        ({"type": "object", "properties": {"a\nb": {}}}, "printable"),
        ({"type": "object", "properties": {"a\x1b[2J": {}}}, "printable"),
        ({"type": "object", "properties": {"a\u202eb": {}}}, "printable"),
        ({"type": "object", "properties": {"a\U000e0041": {}}}, "printable"),
        ({"type": "object", "properties": {"a" * 161: {}}}, "printable"),
        ({"type": "object", "properties": {"a": FORM}}, "'a'"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "required"),
        ({"type": "object", "properties": {"a": {}}, "required": [["a"]]}, "required"),
        ({"type": "object", "properties": {"a": {}}, "required": "a"}, "required"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, "additionalProperties"),
    ],
)
def test_what_is_not_flat_is_refused_with_what_is_wrong(schema: dict, wrong: str):
    with pytest.raises(InvalidValue, match=wrong):
        check_schema(schema)


@pytest.mark.parametrize("schema", ["string", 5, [("type", "string")]])
def test_what_is_no_mapping_is_no_schema(schema: Any):
    with pytest.raises(InvalidValue, match="mapping"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "content", "answer"),
    [
        ({}, "anything", "anything"),
        ({}, 5, 5),
        ({"type": "string"}, "", ""),
        ({"type": "number"}, "0.5", 0.5),
        ({"type": "number", "minimum": 1}, 1, 1),
        ({"type": "integer"}, "12", 12),
        ({"type": "integer"}, 12.0, 12),
        ({"type": "boolean"}, "Yes", True),
        ({"type": "boolean"}, "false", False),
        ({"enum": ["halve", "stop"]}, "stop", "stop"),
        ({"enum": [1, 2]}, "2", 2),
        ({"enum": ["1", "2"]}, 2, "2"),
        ({"enum": [1, 2]}, 2.0, 2),
        ({"enum": [True]}, "true", True),
        ({"enum": [1, "1"]}, "1", "1"),
        (FORM, {"rate": "0.5", "again": "no"}, {"rate": 0.5, "again": False}),
    ],
)
def test_an_answer_is_taken_as_people_type_it(schema: dict, content: Any, answer: Any):
    taken = checked(schema, content)
    assert (taken, type(taken)) == (answer, type(answer))


@pytest.mark.parametrize(
    ("schema", "content", "wrong"),
    [
        ({}, None, "a text, a number or a truth value"),
        ({}, [1], "a text, a number or a truth value"),
        ({}, math.nan, "a text, a number or a truth value"),
        ({}, 10**400, "a text, a number or a truth value"),
        ({}, "x" * (MAX_ANSWER_CHARS + 1), str(MAX_ANSWER_CHARS)),
        ({"type": "string"}, 5, "a text"),
        ({"type": "string", "minLength": 3}, "ab", "between 3 and"),
        ({"type": "number"}, "many", "a number"),
        ({"type": "number"}, True, "a number"),
        ({"type": "number"}, "nan", "a number"),
        ({"type": "number"}, "1e999", "a number"),
        ({"type": "number", "maximum": 1}, 2, "is at most 1"),
        ({"type": "integer"}, 1.5, "a whole number"),
        ({"type": "integer"}, "9" * 400, "a whole number"),
        ({"type": "integer"}, "9" * 5000, "a whole number"),
        ({"type": "boolean"}, "maybe", "true or false"),
        ({"type": "boolean"}, 1, "true or false"),
        ({"enum": ["halve", "stop"]}, "double", '"halve", "stop"'),
        ({"enum": [1]}, True, "one of 1"),
        ({"enum": [True]}, 1, "one of true"),
        (FORM, "0.5", "`again`, `rate`, `why`"),
        (FORM, {"why": "x"}, "needs `rate` too"),
        (FORM, {"rate": 0.5, "extra": 1}, "only the fields"),
        (FORM, {"rate": 2}, "field 'rate' is at least 0 and at most 1"),
        (FORM, {"rate": {"of": 1}}, "field 'rate' is a number"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_what_would(schema: dict, content: Any, wrong: str):
    with pytest.raises(InvalidValue) as refused:
        checked(schema, content)
    assert wrong in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        ({"type": "number", "maximum": 1}, 471147114711),
        ({"type": "integer"}, 4711.25),
        ({"type": "boolean"}, "hunter2"),
        ({"enum": ["a"]}, "hunter2"),
        ({"type": "string", "maxLength": 3}, "hunter2"),
        (FORM, {"rate": 0.5, "hunter2": 1}),
    ],
)
def test_a_refusal_never_quotes_the_answer(schema: dict, content: Any):
    with pytest.raises(InvalidValue) as refused:
        checked(schema, content)
    assert "4711" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "text", [None, "", "no JSON", "[1]", "5", '{"type": "array"}', "[" * 5000, '{"type": []}']
)
def test_what_an_event_carries_and_cannot_be_asked_by_lets_any_primitive_pass(text: str | None):
    assert schema_of(text) == {}
    assert checked_text(text, 5) == 5


@given(LIKE_A_SCHEMA | ANYTHING, ANYTHING)
def test_whatever_the_schema_and_the_answer_only_one_error_comes_out(schema: Any, content: Any):
    try:
        check_schema(schema)
    except InvalidValue:
        return
    as_text = json.dumps(schema, allow_nan=False)
    try:
        answer = checked(schema, content)
    except InvalidValue:
        with pytest.raises(InvalidValue):
            checked_text(as_text, content)
        return
    assert checked_text(as_text, content) == answer
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert checked(schema, answer) == answer, "what was taken once is taken again"


def test_a_form_is_told_by_its_fields():
    assert content_of({"content": "a"}) == "a"
    assert content_of({"content.rate": 1, "content.why": "b", "input_id": "in1"}) == {"rate": 1, "why": "b"}
    assert content_of({"reason": "x"}) is None
