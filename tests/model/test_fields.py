from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.model.fields import (
    TEXTS,
    as_flag,
    as_float,
    as_integer,
    as_list,
    as_text,
    json_in,
    sanitized,
    stacktrace_in,
)
from otelprogress.model.text import clean
from tests.model.event_strategies import events

HOSTILE = "a\x1b]52;c;eA==\x07\r\nb \u202e password=hunter2"


def event(**fields: object) -> Event:
    return Event(
        kind=semconv.OPERATION_NOTED, run_id="0" * 31 + "1-" + "0" * 15 + "1", time_unix_ns=1, **fields
    )


@given(events)
@settings(max_examples=60, deadline=None)
def test_a_sanitized_event_can_be_encoded_and_stays_as_it_is(said: Event) -> None:
    once = sanitized(said)
    assert msgspec.json.encode(once)
    assert sanitized(once) is once


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.field)
def test_no_text_of_an_event_keeps_what_a_terminal_could_obey(text) -> None:
    kept = getattr(sanitized(event(**{text.field: HOSTILE * 100})), text.field)
    assert len(kept) <= text.max_chars
    assert clean(kept, text.max_chars) == kept
    if text.secret:
        assert "hunter2" not in kept


def test_an_event_with_nothing_wrong_is_the_same_object() -> None:
    said = event(
        message="12 rows rejected: bad date", counters={"rejected": 12.0}, step_name="clean", steps=("clean",)
    )
    assert sanitized(said) is said


def test_a_result_is_kept_whole_or_not_at_all_and_without_secrets() -> None:
    assert json_in('{"rows": 9, "password": "hunter2", "url": "db://u:hunter2@h"}', 4096) == (
        '{"rows":9,"password":"[redacted]","url":"db://u:[redacted]@h"}'
    )
    assert json_in(json.dumps("x" * 5000), 4096) is None
    for broken in ("{", "[" * 100_000, "NaN" * 2, ""):
        assert json_in(broken, 1_000_000) is None


def test_a_stack_trace_keeps_its_lines_and_its_end() -> None:
    trace = "Traceback:\n  File x\x1b[31m\n    password=hunter2\nValueError: bad"
    assert stacktrace_in(trace) == "Traceback:\n  File x\n    password=[redacted]\nValueError: bad"
    assert stacktrace_in("line\n" * 10_000 + "ValueError: bad").endswith("ValueError: bad")


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (as_text, 1),
        (as_text, None),
        (as_float, "1"),
        (as_float, True),
        (as_float, 10**400),
        (as_integer, 1.5),
        (as_integer, "1"),
        (as_integer, False),
        (as_integer, 2**63),
        (as_integer, float("inf")),
        (as_flag, 1),
        (lambda name, value: as_list(name, value, as_text, 9), "abc"),
        (lambda name, value: as_list(name, value, as_text, 9), [1]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(read, wrong: object) -> None:
    with pytest.raises(InvalidRecord, match=r"^otelprogress\.x "):
        read("otelprogress.x", wrong)


@given(st.integers(-(2**53), 2**53))
def test_an_integer_may_come_as_a_double(value: int) -> None:
    assert as_integer("x", float(value)) == value


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"password": "correct horse battery"}, {"password": "[redacted]"}),
        ({"password": ""}, {"password": "[redacted]"}),
        ({"password": 'it\'s, "quoted"; twice'}, {"password": "[redacted]"}),
        ({"api_key": ["a b", {"of": "c d"}]}, {"api_key": ["[redacted]", {"of": "[redacted]"}]}),
        (
            {"secret": {"pin": 4711, "on": True, "by": None}},
            {"secret": {"pin": "[redacted]", "on": True, "by": None}},
        ),
        (
            {"a": {"token": {"b": {"c": "d e"}}}, "f": "g h"},
            {"a": {"token": {"b": {"c": "[redacted]"}}}, "f": "g h"},
        ),
    ],
)
def test_below_a_member_that_names_a_secret_nothing_is_kept(said: object, kept: object) -> None:
    text = json_in(json.dumps(said), 4096)
    assert text is not None
    assert json.loads(text) == kept
    assert json_in(text, 4096) == text


def test_a_schema_may_describe_a_member_of_that_name() -> None:
    schema = {"type": "object", "properties": {"token": {"type": "string", "title": "which one"}}}
    text = json_in(json.dumps(schema), 4096, schema=True)
    assert text is not None
    assert json.loads(text) == schema
