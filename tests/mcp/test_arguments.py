from __future__ import annotations

import msgspec
import pytest

from otelprogress.mcp import arguments
from otelprogress.mcp.arguments import read_arguments, schema_of
from otelprogress.mcp.refusal import Refusal

ALL = (
    arguments.ListArguments,
    arguments.GetArguments,
    arguments.WaitArguments,
    arguments.CancelArguments,
    arguments.SignalArguments,
    arguments.RespondArguments,
    arguments.StartArguments,
)


@pytest.mark.parametrize("wanted", ALL)
def test_a_schema_names_every_argument_and_says_which_are_needed(wanted):
    schema = schema_of(wanted)
    assert tuple(schema["properties"]) == wanted.__struct_fields__
    needed = [field.name for field in msgspec.structs.fields(wanted) if field.required]
    assert schema.get("required", []) == needed


def test_a_schema_says_ranges_choices_and_defaults_that_are_not_empty():
    properties = schema_of(arguments.WaitArguments)["properties"]
    assert properties["timeout_s"] == {"type": "number", "minimum": 1, "maximum": 600, "default": 45}
    assert properties["until"] == {"enum": ["attention", "change", "end", "step"], "default": "attention"}
    assert "default" not in properties["since"]


def test_what_models_write_for_a_list_a_number_and_a_position_is_taken():
    said = {"ids": "nightly_load-2", "timeout_s": "30", "since": " @kq58"}
    read = read_arguments(said, arguments.WaitArguments)
    assert (read.ids, read.timeout_s, read.since) == (["nightly_load-2"], 30.0, "kq58")


def test_an_answer_keeps_its_type():
    for content in ("5", 5, 0.5, True, {"day": "today", "force": True}):
        read = read_arguments({"id": "x", "content": content}, arguments.RespondArguments)
        assert (type(read.content), read.content) == (type(content), content)


@pytest.mark.parametrize(
    ("wanted", "said", "words"),
    [
        (arguments.WaitArguments, {}, "missing required field `ids`"),
        (arguments.WaitArguments, {"ids": []}, "length >= 1"),
        (arguments.WaitArguments, {"ids": ["a"], "timeout_s": 601}, "<= 600.0 - at `timeout_s`"),
        (arguments.WaitArguments, {"ids": ["a"], "timeout_s": 0}, ">= 1.0 - at `timeout_s`"),
        (arguments.WaitArguments, {"ids": ["a"], "untill": "end"}, "unknown field `untill`"),
        (
            arguments.WaitArguments,
            {"ids": ["a"], "until": "done"},
            "`until` is one of attention, change, end, step",
        ),
        (arguments.ListArguments, {"status": "dead"}, "`status` is one of all, ended, failed, live"),
        (arguments.GetArguments, {"id": ""}, "length >= 1"),
        (arguments.RespondArguments, {"id": "x", "content": {"a": ["b"]}}, "at `content"),
        (arguments.RespondArguments, {"id": "x", "content": None}, "at `content`"),
    ],
)
def test_what_does_not_fit_is_named(wanted, said, words):
    with pytest.raises(Refusal) as refused:
        read_arguments(said, wanted)
    assert str(refused.value).startswith("invalid arguments: ")
    assert words in str(refused.value)
    assert "$" not in str(refused.value)
