from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.model.redaction import (
    MAX_ATTRIBUTES,
    REDACTED,
    allowed_attributes,
    is_secret_key,
    redact,
    redact_whole,
    redacted,
)

SECRET = "c4n4ry" + "Q7x9" * 6


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization={SECRET}",
        f'{{"Authorization": "Basic {SECRET}"}}',
        f"sent with bearer {SECRET}",
        f"password={SECRET}",
        f"password: '{SECRET}'",
        f'"db_password": "{SECRET}"',
        f"PGPASSWORD_x token={SECRET}&next=1",
        f"X-Api-Key: {SECRET}",
        f"client_secret={SECRET}",
        f"postgresql://etl:{SECRET}@db/flights",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY----- rest",
        f"-----BEGIN PRIVATE KEY----- {SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{SECRET}.{SECRET}",
        f"ghp_{SECRET}",
        f"github_pat_{SECRET}",
        f"sk-{SECRET}",
        f"sk-ant-{SECRET}",
        f"xoxb-{SECRET}",
        f"Set-Cookie: {SECRET}",
    ],
)
def test_what_looks_like_a_secret_is_replaced(text: str) -> None:
    assert SECRET not in redact(text)
    assert REDACTED in redact(text)


@pytest.mark.parametrize(
    "front",
    [
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "glpat-",
        "rk_live_",
        "pk_test_",
        "hf_",
        "npm_",
        "shpat_",
        "dop_v1_",
        "pypi-",
        "AIza",
        "ya29.",
    ],
)
def test_the_keys_of_well_known_services_are_replaced(front: str) -> None:
    assert redact(f"used {front}{SECRET} twice") == f"used {REDACTED} twice"


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd: Permission denied",
        "cat: /run/secrets/token: No such file or directory",
        "open /run/secrets/token: permission denied.",
        "[Errno 21] db/password: Is a directory",
    ],
)
def test_what_the_system_says_about_a_file_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter2",
        "/password: hunter2",
        "/etc/passwd:hunter2",
        "https://x.example/login/passwd=hunter2",
        "secret/token: hunter2 (Permission denied)",
        "token:  'Permission denied hunter2'",
        "token: Permission-hunter2",
    ],
)
def test_neither_a_path_before_a_secret_nor_an_error_beside_it_keeps_it(text: str) -> None:
    assert "hunter2" not in redact(text)


def test_a_cloud_key_is_replaced() -> None:
    assert redact("key AKIAIOSFODNN7EXAMPLE used") == f"key {REDACTED} used"


@pytest.mark.parametrize(
    "text",
    [
        "12 rows rejected: bad date",
        "token bucket full after 3 tries",
        "GET https://example.org:8080/a?b=c",
        "loaded 100k of 336k rows into flights",
        "basic checks done",
        "token verification failed",
        "basic authentication-scheme",
        "tokens used 1200",
        "mail to a@b.example",
        "author=smith",
        "skipped 12 of 40; risk-free",
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_what_names_the_secret_stays() -> None:
    assert (
        redact("login failed, password=hunter2!x, user=anna")
        == f"login failed, password={REDACTED}, user=anna"
    )
    assert redact("mysql://root:hunter2@db:3306/x") == f"mysql://root:{REDACTED}@db:3306/x"


def test_a_secret_that_the_cap_would_cut_is_still_replaced() -> None:
    assert redacted("x" * 90 + f" password={SECRET}", 110) == "x" * 90 + f" password={REDACTED}"
    assert redacted(None, 10) is None


@pytest.mark.parametrize(
    "key",
    ["password", "db.password", "x-api-key", "auth_token", "SECRET_KEY", "http.request.header.authorization"],
)
def test_a_key_can_tell_that_its_value_is_secret(key: str) -> None:
    assert is_secret_key(key)
    assert allowed_attributes({key: "x"}, allowed=None) == {}


@pytest.mark.parametrize("key", ["tenant", "author", "db.collection.name", "passenger.count", "tokenizer"])
def test_an_ordinary_key_is_not_secret(key: str) -> None:
    assert not is_secret_key(key)


def test_of_foreign_attributes_only_those_on_the_list_pass() -> None:
    given_ones = {
        "http.route": "/a",
        "db.statement": "SELECT 1",
        "customer": "acme",
        "http.request.method": "GET",
    }
    assert allowed_attributes(given_ones) == {"http.route": "/a", "http.request.method": "GET"}


def test_of_our_own_attributes_all_scalars_pass_cleaned() -> None:
    given_ones = {"day": "2026-11-21\x1b[31m", "n": 3, "ok": True, "list": [1], "note": f"token={SECRET}"}
    assert allowed_attributes(given_ones, allowed=None) == {
        "day": "2026-11-21",
        "n": 3,
        "ok": True,
        "note": f"token={REDACTED}",
    }


def test_there_is_an_end_to_attributes() -> None:
    assert len(allowed_attributes({f"k{n}": n for n in range(100)}, allowed=None)) == MAX_ATTRIBUTES


@given(st.text(max_size=300))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "piece", ["a-", "password", "-----BEGIN PRIVATE KEY-----", "eyJ", "x://", "token ", "=", "a.b_"]
)
def test_no_text_is_slow(piece: str) -> None:
    redact(piece * (16_384 // len(piece)))


def whole(text: str, **settings: int) -> str:
    pieces = redact_whole(text, **settings)
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            return str(done.value)


FILLER = st.sampled_from(
    ["row 7 of the key table, ", "x" * 97, "auth. ", "https://", "a_b-", '"', "= ", "\n"]
)
SECRETS = st.sampled_from(
    [
        f"Authorization: Bearer {SECRET}",
        f"password='{SECRET}'",
        f"token={'Ab9' * 600}",
        f"postgresql://etl:{SECRET}@db/flights",
        f"-----BEGIN PRIVATE KEY-----\n{'Ab9+' * 3000}\n-----END PRIVATE KEY-----",
        f"eyJ{'Ab9' * 1300}.eyJ{'Ab9' * 1000}.{SECRET}",
        f"ghp_{SECRET}",
    ]
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(FILLER, FILLER.map(lambda text: text * 40), SECRETS), max_size=12),
    st.integers(300, 3000),  # each window looks 16,000 characters ahead
)
def test_a_long_text_is_redacted_window_by_window_as_it_would_be_at_once(parts, window_chars):
    text = "".join(parts)
    assert whole(text, window_chars=window_chars) == redact(text)


def test_a_whole_text_keeps_its_lines_and_colours_unless_a_secret_hides_behind_them():
    assert whole("\x1b[31mone\x1b[0m\n\ttwo\u200e") == "\x1b[31mone\x1b[0m\n\ttwo\u200e"
    assert whole(f"pass\u200eword=\x1b[1m{SECRET}\x1b[0m\nnext") == "password=[redacted]\nnext"
