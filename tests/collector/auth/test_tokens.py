from __future__ import annotations

import json
import logging
import re
import stat
import threading
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.principal import CONTROL, READ, SCOPES, WRITE, Denied
from otelprogress_collector.auth.private_file import write_private
from otelprogress_collector.auth.token_records import parse_tokens
from otelprogress_collector.auth.tokens import (
    StaticTokens,
    create_token,
    ensure_own_token,
    list_tokens,
    new_token,
    revoke_token,
)

NOW = 1_700_000_000.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


def make(path, name="ci", scopes=(READ, WRITE), **more) -> str:
    return create_token(path, name, scopes, now_unix_s=NOW, **more)


def test_a_token_looks_like_one_and_no_two_are_equal():
    tokens = {new_token() for _ in range(200)}
    assert len(tokens) == 200
    assert all(re.fullmatch(r"otpc_[A-Za-z0-9_-]{56}", one) for one in tokens)


def test_what_a_token_allows_is_what_was_given_to_it(path):
    token = make(path, tenant="acme", services=("etl", "api", "etl"), expires_at_unix_s=int(NOW) + 60)
    principal = StaticTokens(path, now_s=0).judge(token, NOW)
    assert principal.actor == principal.token_id == "ci"
    assert principal.scopes == {READ, WRITE}
    assert principal.tenant == "acme"
    assert principal.services == ("api", "etl")
    assert principal.expires_at_unix_s == NOW + 60
    assert principal.tenant_from is None


def test_a_gateways_token_names_the_attribute_of_the_tenant(path):
    token = make(path, scopes=[WRITE], tenant_from="acme.tenant")
    assert StaticTokens(path, now_s=0).judge(token, NOW).tenant_from == "acme.tenant"


def test_the_file_holds_a_hash_and_is_for_its_owner_only(path):
    token = make(path)
    content = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in content
    assert token.removeprefix("otpc_")[12:] not in content
    assert json.loads(content)["name"] == "ci"


def test_equal_secrets_would_have_different_hashes():
    from otelprogress_collector.auth.token_records import record_of

    token = new_token()
    assert record_of(token, "a", scopes=(READ,)).hash != record_of(token, "b", scopes=(READ,)).hash


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token[:5] + ("A" if token[5] != "A" else "B") + token[6:],
        lambda token: token.upper(),
        lambda token: token + "\n",
        lambda token: token.replace("otpc_", "otpc_", 1)[:20] + "=" + token[21:],
        lambda _: "otpc_" + "ü" * 56,
        lambda _: "otpc_",
        lambda _: new_token(),
    ],
)
def test_a_token_that_differs_anywhere_is_denied(path, change):
    token = make(path)
    with pytest.raises(Denied):
        StaticTokens(path, now_s=0).judge(change(token), NOW)


def test_a_token_counts_until_it_expires(path):
    token = make(path, expires_at_unix_s=int(NOW) + 60)
    tokens = StaticTokens(path, now_s=0)
    assert tokens.judge(token, NOW + 59.999)
    with pytest.raises(Denied, match="expired"):
        tokens.judge(token, NOW + 60)


def test_an_unknown_id_costs_a_comparison_too(path, monkeypatch):
    from otelprogress_collector.auth import token_records

    make(path)
    tokens = StaticTokens(path, now_s=0)
    compared = []
    compare = token_records.hmac.compare_digest
    monkeypatch.setattr(
        token_records.hmac, "compare_digest", lambda a, b: compared.append(1) or compare(a, b)
    )
    with pytest.raises(Denied):
        tokens.judge(new_token(), NOW)
    assert compared == [1]


def test_a_revoked_token_is_denied_once_the_file_was_looked_at(path):
    token, other = make(path), make(path, "other")
    tokens = StaticTokens(path, now_s=0)
    principal = tokens.judge(token, NOW)
    assert not tokens.revoked(principal)
    assert revoke_token(path, "ci").name == "ci"
    assert tokens.refresh(5.0)
    assert tokens.revoked(principal)
    with pytest.raises(Denied, match="unknown, or was revoked"):
        tokens.judge(token, NOW)
    assert not tokens.revoked(tokens.judge(other, NOW))


def test_a_token_made_again_under_the_same_name_does_not_revive_connections_of_the_old_one(path):
    token = make(path)
    tokens = StaticTokens(path, now_s=0)
    principal = tokens.judge(token, NOW)
    revoke_token(path, "ci")
    make(path)
    tokens.refresh(5.0)
    assert tokens.revoked(principal)


def test_a_token_whose_rights_were_edited_counts_as_revoked_on_open_connections(path):
    token = make(path)
    tokens = StaticTokens(path, now_s=0)
    principal = tokens.judge(token, NOW)
    write_private(path, path.read_bytes().replace(b'"progress:read",', b""))
    tokens.refresh(5.0)
    assert tokens.revoked(principal)
    assert tokens.judge(token, NOW).scopes == {WRITE}


def test_tokens_are_listed_as_they_were_made_without_what_they_hide(path):
    assert list_tokens(path) == []
    token = make(path, "b")
    make(path, "a", scopes=SCOPES)
    listed = list_tokens(path)
    assert [one.name for one in listed] == ["b", "a"]
    assert listed[0].created_at_unix_s == int(NOW)
    assert listed[0].hash not in repr(listed)
    assert listed[0].salt not in repr(listed)
    assert token not in repr(listed)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"scopes": ()}, "scopes"),
        ({"scopes": ("progress:all",)}, "progress:read"),
        ({"tenant": "a\nb"}, "tenant"),
        ({"services": [""]}, "services"),
        ({"services": [f"s{n}" for n in range(65)]}, "64 services"),
        ({"tenant": "acme", "tenant_from": "t"}, "not both"),
        ({"tenant_from": ""}, "not both"),
        ({"expires_at_unix_s": int(NOW)}, "expired from the beginning"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_makes_no_file(path, arguments, what):
    with pytest.raises(InvalidValue, match=what):
        make(path, **arguments)
    assert not path.exists()


def test_a_name_is_given_once(path):
    make(path)
    before = path.read_bytes()
    with pytest.raises(InvalidValue, match="there is a token named 'ci'"):
        make(path)
    assert path.read_bytes() == before


def test_revoking_what_is_not_there_is_said(path):
    with pytest.raises(InvalidValue, match="no token of that name"):
        revoke_token(path, "ci")


def test_tokens_made_at_the_same_time_are_all_kept(path):
    threads = [threading.Thread(target=make, args=(path, f"t{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.name for one in list_tokens(path)} == {f"t{n}" for n in range(8)}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_could_get_at_is_refused_by_everybody(path, mode):
    make(path)
    path.chmod(mode)
    for use in (
        lambda: StaticTokens(path, now_s=0),
        lambda: list_tokens(path),
        lambda: make(path, "other"),
        lambda: revoke_token(path, "ci"),
    ):
        with pytest.raises(InvalidValue, match=f"{mode:04o}.*chmod 600"):
            use()


def broken_lines():
    token = new_token()
    from otelprogress_collector.auth.token_records import record_of

    good = msgspec.to_builtins(record_of(token, "ci", scopes=(READ,)))
    yield "no json", b"otpc_" + b"x" * 56
    yield "another field", json.dumps(good | {"only_on_mondays": True}).encode()
    yield "no scopes", json.dumps(good | {"scopes": []}).encode()
    yield "unknown scope", json.dumps(good | {"scopes": ["root"]}).encode()
    yield "short hash", json.dumps(good | {"hash": "ab"}).encode()
    yield "text for a list", json.dumps(good | {"services": "etl"}).encode()
    yield "not utf-8", b'{"name": "\xff"}'
    yield "repeated", json.dumps(good).encode() + b"\n" + json.dumps(good).encode()


@pytest.mark.parametrize(("how", "line"), list(broken_lines()))
def test_a_broken_record_is_refused_by_its_line_and_not_quoted(path, how, line):
    write_private(path, b"\n" + line + b"\n")
    with pytest.raises(InvalidValue, match=r"line [23] of the token file") as caught:
        StaticTokens(path, now_s=0)
    assert str(path) in str(caught.value)
    assert "x" * 56 not in "".join(traceback.format_exception(caught.value))


@given(st.binary(max_size=300))
def test_any_bytes_are_tokens_or_refused(content):
    try:
        found = parse_tokens(content)
    except InvalidValue:
        return
    assert found == []


def test_a_file_that_breaks_later_keeps_what_it_said(path, caplog):
    token = make(path)
    tokens = StaticTokens(path, now_s=0)
    write_private(path, b"{")
    for now_s in (5.0, 10.0):
        tokens.refresh(now_s)
    assert tokens.judge(token, NOW).actor == "ci"
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


# --- the user's own token -----------------------------------------------------------------------------------


def test_a_first_start_makes_a_token_for_the_users_own_programs(tmp_path, path):
    token, made = ensure_own_token(tmp_path, path, now_unix_s=NOW)
    assert made
    assert (tmp_path / "token").read_text() == token + "\n"
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    principal = StaticTokens(path, now_s=0).judge(token, NOW)
    assert principal.scopes == SCOPES
    assert principal.tenant == ""


def test_a_second_start_finds_it_and_leaves_the_others_alone(tmp_path, path):
    first, _ = ensure_own_token(tmp_path, path, now_unix_s=NOW)
    other = make(path, "ci", [CONTROL])
    assert ensure_own_token(tmp_path, path, now_unix_s=NOW) == (first, False)
    assert StaticTokens(path, now_s=0).judge(other, NOW)


@pytest.mark.parametrize("lost", ["token", "tokens"])
def test_it_is_made_again_when_one_of_its_halves_is_lost(tmp_path, path, lost):
    first, _ = ensure_own_token(tmp_path, path, now_unix_s=NOW)
    (tmp_path / lost).unlink()
    second, made = ensure_own_token(tmp_path, path, now_unix_s=NOW)
    assert made
    tokens = StaticTokens(path, now_s=0)
    assert tokens.judge(second, NOW)
    with pytest.raises(Denied):
        tokens.judge(first, NOW)


def test_its_plain_file_must_be_private_too(tmp_path, path):
    ensure_own_token(tmp_path, path, now_unix_s=NOW)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(InvalidValue, match="chmod 600"):
        ensure_own_token(tmp_path, path, now_unix_s=NOW)
