"""The budget's estimate against real tokenizers."""

from __future__ import annotations

from string import ascii_lowercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.model.digest_budget import tokens
from otelprogress.protocol.position import short_position
from tests.model.test_digest import CASES, event, feed_events, known, rendered, view, views
from tests.tokenizer import VOCABULARIES, count_tokens

NOTES = [
    "12 rows rejected: bad date",
    "psycopg2.OperationalError: could not connect to server: Connection refused (0x0000274D/10061)",
    "/var/lib/postgresql/data/base/16384/2619: No space left on device",
    "Zeile 12 verworfen: ungültiges Datum, Übertragungsfehler bei Größenänderung",
    "строка 12 отклонена: неверная дата",
    "行12は日付が不正なため拒否されました",
    "تم رفض 12 صفًا: تاريخ غير صالح",
    "a3f9c1d2e4b5f60718293a4b5c6d7e8f",
    "https://example.com/api/v2/items?page=12&sort=-created_at",
]


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_on_the_safe_side_and_near(name: str) -> None:
    text = CASES[name]()
    assert count_tokens(text) <= tokens(text) <= 1.3 * count_tokens(text)


@pytest.mark.parametrize("note", NOTES)
def test_the_estimate_is_on_the_safe_side_of_what_programs_say(note: str) -> None:
    assert count_tokens(note) <= tokens(note) <= 2.5 * count_tokens(note)


@pytest.mark.parametrize("max_tokens", [100, 200, 400, 800, 3000])
def test_a_digest_of_much_keeps_to_its_budget(max_tokens: int) -> None:
    shown = [view(n, handle=f"job_{n * 7}-{n}", ratio=n / 50, updated_at_unix_ns=n) for n in range(50)]
    said = [
        event("operation.noted", shown[n % 50], n, message=NOTES[n % len(NOTES)], level="warning")
        for n in range(200)
    ]
    for previously in (None, known(*shown)):
        text = rendered(shown, said, max_tokens=max_tokens, previously=previously)
        assert count_tokens(text) <= max_tokens
        assert count_tokens(text) >= 0.6 * max_tokens


@given(st.lists(views, max_size=6), st.lists(feed_events, max_size=8), st.integers(60, 300))
@settings(max_examples=60, deadline=None)
def test_hostile_text_does_not_break_the_budget(shown: list, said: list, max_tokens: int) -> None:
    text = rendered(shown, said, max_tokens=max_tokens, previously=known(*shown[:2]))
    assert count_tokens(text) <= max_tokens


@pytest.mark.parametrize("offset", [0, 58, 999, 65_536, 999_999])
def test_a_position_is_at_most_five_tokens_whatever_the_log(offset: int) -> None:
    for first in ascii_lowercase:
        for second in ascii_lowercase:
            assert count_tokens(f"@{first}{second}{offset}") <= 5


def test_a_position_is_a_tenth_of_a_cursor() -> None:
    cursor = "AcH_bmgQ2KUksC8dTwAAAAAAAAABukkhtQPrxRUiFFtuN2sGlw"
    assert count_tokens(cursor) >= 8 * count_tokens(short_position("e1", 58))


def test_the_tokenizers_are_those_that_they_say() -> None:
    assert [vocabulary.encode("tiktoken is great!") for vocabulary in VOCABULARIES] == [
        [83, 1609, 5963, 374, 2294, 0],
        [83, 8251, 2488, 382, 2212, 0],
    ]
