from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model.text import clean, slug

any_text = st.text(alphabet=st.characters(codec=None), max_size=200)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain text", "plain text"),
        ("two\r\nlines", "two lines"),
        ("tab\there", "tab here"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]52;c;ZXZpbA==\x07clipboard", "clipboard"),
        ("\x1b]0;title\x1b\\x", "x"),
        ("\x9b31mred", "red"),
        ("\x1bPq#0\x1b\\dcs", "dcs"),
        ("unfinished \x1b]52;c;abc", "unfinished ]52;c;abc"),
        ("bell\x07 null\x00", "bell null"),
        ("\u202eevil\u202c \u2066x\u2069", "evil x"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("line\u2028end", "line end"),
        ("hidden\U000e0041\U000e0042", "hidden"),
        ("Größe 漢字 🚀", "Größe 漢字 🚀"),
        ("  spaces  ", "spaces"),
        ("\n", ""),
    ],
)
def test_what_a_terminal_or_a_reader_could_obey_does_not_pass(hostile: str, shown: str) -> None:
    assert clean(hostile, 100) == shown


@given(any_text, st.integers(0, 60))
def test_a_cleaned_text_is_short_encodable_and_stays_as_it_is(text: str, max_chars: int) -> None:
    cleaned = clean(text, max_chars)
    assert len(cleaned) <= max_chars
    cleaned.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", cleaned)
    assert clean(cleaned, max_chars) == cleaned


def test_a_text_that_was_too_long_says_so() -> None:
    assert clean("abcdefgh", 5) == "abcd…"
    assert clean("abcde", 5) == "abcde"


@pytest.mark.parametrize("piece", ["x", "\x1b]", "\x1b[", "\x1bP", "\n", "\ud800", "\x9d", "\u202e"])
def test_a_megabyte_is_looked_at_no_further_than_needed(piece: str) -> None:
    assert len(clean(piece * 1_000_000, 1024)) <= 1024


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nightly load", "nightly_load"),
        ("Load Table: flights", "load_table_flights"),
        ("Größe", "groe"),
        ("--x--", "x"),
        ("漢字", "operation"),
        ("", "operation"),
        ("GET /v1/{id}", "get_v1_id"),
    ],
)
def test_a_slug_is_the_name_in_plain_letters(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(any_text)
def test_every_name_has_a_slug(name: str) -> None:
    assert re.fullmatch("[a-z0-9][a-z0-9_-]{0,39}", slug(name))
