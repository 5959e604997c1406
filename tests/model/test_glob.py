from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model.glob import compile_glob


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=12))
def test_a_glob_means_what_the_standard_library_says(pattern: str, text: str) -> None:
    assert compile_glob(pattern)(text) == (re.fullmatch(fnmatch.translate(pattern), text) is not None)


@pytest.mark.parametrize("text", ["[ab]", ".", "a+"])
def test_other_characters_stand_for_themselves(text: str) -> None:
    assert compile_glob(text)(text)
    assert not compile_glob(text)("a")


def test_no_pattern_is_slow() -> None:
    assert not compile_glob("*a" * 2000 + "*b")("a" * 50_000)
