from __future__ import annotations

from http import HTTPStatus

import pytest

from otelprogress.feed.admission import Admission, bearer_item, token_matches, token_of

ADMISSION = Admission("127.0.0.1", 4327)
HOST = ["127.0.0.1:4327"]


@pytest.mark.parametrize("host", ["127.0.0.1:4327", "localhost:4327", "LOCALHOST:4327", "[::1]:4327"])
def test_loopback_names_of_the_own_port_are_let_in(host: str):
    assert ADMISSION.refusal("/v1/feed", [host], []) is None


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["evil.example:4327"],
        ["127.0.0.1"],
        ["127.0.0.1:4328"],
        ["127.0.0.1:4327.evil.example"],
        ["evil-localhost:4327"],
        ["127.0.0.1:4327", "127.0.0.1:4327"],
        [""],
    ],
)
def test_a_forged_absent_or_doubled_host_is_forbidden(hosts: list[str]):
    refusal = ADMISSION.refusal("/v1/feed", hosts, [])
    assert refusal is not None
    assert refusal.status == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "origins",
    [
        ["https://evil.example"],
        ["null"],
        [""],
        ["http://127.0.0.1:4327.evil.example"],
        ["http://evil-127.0.0.1:4327"],
        ["https://127.0.0.1:4327"],
        ["http://127.0.0.1"],
        ["http://127.0.0.1:4327", "http://127.0.0.1:4327"],
        ["http://127.0.0.1:4327/"],
    ],
)
def test_any_origin_but_the_exact_own_one_is_forbidden(origins: list[str]):
    refusal = ADMISSION.refusal("/v1/feed", HOST, origins)
    assert refusal is not None
    assert refusal.status == HTTPStatus.FORBIDDEN


def test_a_page_of_the_own_address_and_a_program_without_origin_are_let_in():
    assert ADMISSION.refusal("/v1/feed", HOST, ["http://127.0.0.1:4327"]) is None
    assert ADMISSION.refusal("/v1/worker", HOST, []) is None


def test_further_hosts_and_origins_can_be_listed_but_never_null():
    admission = Admission("::1", 1, hosts=["feed.example"], origins=["https://feed.example", "null"])
    assert admission.refusal("/v1/feed", ["Feed.Example"], ["https://feed.example"]) is None
    assert admission.refusal("/v1/feed", ["[::1]:1"], ["null"]) is not None


def test_who_serves_other_paths_and_https_judges_by_the_headers_alone():
    admission = Admission("127.0.0.1", 4318, scheme="https")
    assert admission.refusal_of_headers(["127.0.0.1:4318"], ["https://127.0.0.1:4318"]) is None
    assert admission.refusal_of_headers(["127.0.0.1:4318"], ["http://127.0.0.1:4318"]) is not None
    assert admission.refusal_of_headers(["evil.example:4318"], []) is not None


@pytest.mark.parametrize("path", ["/", "/v1/feed/", "/v1/feedx", "/v1", "//v1/feed", "/v1/../v1/feed"])
def test_other_paths_are_not_found(path: str):
    refusal = ADMISSION.refusal(path, HOST, [])
    assert refusal is not None
    assert refusal.status == HTTPStatus.NOT_FOUND


def test_the_token_is_read_from_the_header_or_the_subprotocol_item():
    assert token_of(["Bearer s3cret"], []) == ("s3cret", None)
    assert token_of([], ["otelprogress.v1.json, " + bearer_item("s3cret/ü")]) == ("s3cret/ü", None)
    assert token_of([], ["otelprogress.v1.json"]) == (None, None)


@pytest.mark.parametrize(
    ("authorization", "protocols"),
    [
        (["Basic dXNlcg=="], []),
        (["Bearer"], []),
        (["Bearer one"], [bearer_item("one")]),
        (["Bearer one", "Bearer two"], []),
        ([], ["otelprogress.bearer.%%%"]),
        ([], ["otelprogress.bearer._w"]),
        (["Bearer " + "x" * 5000], []),
    ],
)
def test_an_unreadable_or_doubled_token_is_refused(authorization: list[str], protocols: list[str]):
    token, refusal = token_of(authorization, protocols)
    assert token is None
    assert refusal is not None
    assert refusal.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_REQUEST)


def test_tokens_match_only_when_equal_and_never_when_empty():
    assert token_matches("abc", "abc")
    assert not token_matches("abc", "abcd")
    assert not token_matches("abc", None)
    assert not token_matches("", "")
    assert not token_matches("abc", "\udcff")
