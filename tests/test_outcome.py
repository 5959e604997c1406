from __future__ import annotations

import pytest

from otelprogress import active
from otelprogress.exceptions import OperationCancelled
from otelprogress.model.events import State
from otelprogress.outcome import as_result, error_fields, outcome_of, reason_of, shown, type_name


class OurError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("a text that cannot be had")


def test_types_are_qualified_and_builtins_bare():
    assert type_name(ValueError()) == "ValueError"
    assert type_name(OurError()).endswith("test_outcome.OurError")


def test_an_exception_without_a_text_still_has_a_type():
    fields = error_fields(OurError())
    assert fields["error_type"].endswith("OurError")
    assert fields["error_message"] is None


def test_a_stack_trace_keeps_its_end():
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise LookupError("x" * 40_000)

    with pytest.raises(LookupError) as caught:
        deep(3)
    assert len(error_fields(caught.value)["error_stacktrace"]) <= 16_384


@pytest.mark.parametrize(
    "value", [float("nan"), {"x": float("inf")}, "x" * 5000, {("a",): 1}], ids=["nan", "inf", "long", "key"]
)
def test_a_result_that_cannot_be_kept_is_left_out_and_counted(value):
    active.misuses.clear()
    assert as_result(value) is None
    assert sum(active.misuses.values()) == 1
    active.misuses.clear()


def test_a_result_of_any_type_is_kept_as_text():
    assert as_result({"when": OurError}) == f'{{"when":"{OurError}"}}'
    assert (
        as_result({"password": {"of": ["correct horse", 4711]}})
        == '{"password":{"of":["[redacted]","[redacted]"]}}'
    )


def test_secret_attributes_are_not_shown():
    assert shown({"tenant": "acme", "api_key": "abc"}) == {"tenant": "acme"}
    assert shown({"api_key": "abc"}) is None
    assert shown({}) is None


def test_a_task_group_whose_tasks_were_all_cancelled_was_cancelled_and_says_why():
    cancelled = BaseExceptionGroup("g", [OperationCancelled("enough"), OperationCancelled("enough")])
    assert outcome_of(BaseExceptionGroup("g", [cancelled, KeyboardInterrupt()])) is State.CANCELLED
    assert reason_of(BaseExceptionGroup("g", [KeyboardInterrupt(), cancelled])) == "enough"
    assert outcome_of(BaseExceptionGroup("g", [cancelled, ValueError("no")])) is State.FAILED
    assert reason_of(ValueError("no")) == reason_of(None) == ""
