from __future__ import annotations

import json
import time
import traceback

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.jwt_tokens import MAX_TOKEN_CHARS, JwtConfig, JwtTokens
from otelprogress_collector.auth.principal import READ, WRITE, Denied
from otelprogress_collector.auth.private_file import write_private
from tests.collector.auth.issuing import (
    ASYMMETRIC,
    AUDIENCE,
    ISSUER,
    NOW_UNIX_S,
    SECRET,
    b64,
    claims,
    forged,
    jwk,
    jwks,
    oct_jwk,
    public_pem,
    signed,
)

HS256 = {"alg": "HS256", "typ": "JWT"}


@pytest.fixture
def issuer(tmp_path):
    """Judges by the given files: `secret`, `public` and `keys` are contents."""

    def make(*, secret=None, public=None, keys=None, **settings) -> JwtTokens:
        paths = {}
        for name, content in (("secret_file", secret), ("public_key_file", public), ("jwks_file", keys)):
            if content is not None:
                paths[name] = tmp_path / name
                write_private(paths[name], content)
        return JwtTokens(JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), **paths, **settings))

    return make


@pytest.fixture
def hs256(issuer):
    return issuer(secret=SECRET)


def test_a_token_by_the_secret_is_taken(hs256):
    found = hs256.judge(signed(), NOW_UNIX_S)
    assert found.actor == "anna"
    assert found.scopes == {READ, WRITE}


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize("source", ["public", "keys"])
def test_a_token_by_a_public_key_is_taken(issuer, algorithm, source):
    content = public_pem(algorithm) if source == "public" else jwks(jwk(algorithm, kid="k1"))
    tokens = issuer(**{source: content})
    assert tokens.judge(signed(algorithm, kid="k1"), NOW_UNIX_S).actor == "anna"
    assert tokens.judge(signed(algorithm), NOW_UNIX_S).actor == "anna"
    with pytest.raises(Denied, match="not signed by a key"):
        tokens.judge(signed(algorithm, 1, kid="k1"), NOW_UNIX_S)


def test_a_token_says_which_key_and_is_tried_with_no_other(issuer):
    tokens = issuer(keys=jwks(jwk("EdDSA", 0, kid="a"), jwk("EdDSA", 1, kid="b"), oct_jwk(kid="c")))
    assert tokens.judge(signed("EdDSA", 1, kid="b"), NOW_UNIX_S)
    assert tokens.judge(signed("HS256", kid="c"), NOW_UNIX_S)
    with pytest.raises(Denied):
        tokens.judge(signed("EdDSA", 1, kid="a"), NOW_UNIX_S)


# --- hostile tokens -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS384", "HS512", "RS512", "PS256", "ES384", 7, None]
)
def test_another_algorithm_is_refused_though_the_signature_were_right(hs256, algorithm):
    for token in (
        forged({"alg": algorithm}, claims()),
        forged({"alg": algorithm}, claims()).rpartition(".")[0] + ".",
    ):
        with pytest.raises(Denied, match="algorithm is not HS256"):
            hs256.judge(token, NOW_UNIX_S)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize("source", ["public", "keys"])
def test_a_public_key_used_as_a_secret_signs_nothing(issuer, algorithm, source):
    pem = public_pem(algorithm)
    member = jwk(algorithm, kid="k1")
    tokens = issuer(**{source: pem if source == "public" else jwks(member)})
    for guess in (pem, pem.strip(), json.dumps(member).encode(), b64(pem).encode()):
        for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": "k1"}, {"alg": algorithm, "kid": "k1"}):
            with pytest.raises(Denied, match="not signed by a key"):
                tokens.judge(forged(header, claims(), guess), NOW_UNIX_S)


def test_with_a_secret_and_a_public_key_each_verifies_its_own_algorithm_only(issuer):
    pem = public_pem("RS256")
    tokens = issuer(secret=SECRET, public=pem)
    assert tokens.judge(signed("HS256"), NOW_UNIX_S)
    assert tokens.judge(signed("RS256"), NOW_UNIX_S)
    with pytest.raises(Denied):
        tokens.judge(forged({"alg": "HS256"}, claims(), pem), NOW_UNIX_S)
    with pytest.raises(Denied):
        tokens.judge(forged({"alg": "RS256"}, claims(), SECRET), NOW_UNIX_S)


@pytest.mark.parametrize(
    "header",
    [
        HS256 | {"jwk": oct_jwk(b"the attacker's own secret, 32 bytes")},
        HS256 | {"jku": "http://127.0.0.1:1/keys"},
        HS256 | {"x5u": "http://127.0.0.1:1/cert"},
        HS256 | {"x5c": ["AAAA"]},
    ],
)
def test_a_key_that_the_token_brings_along_is_not_looked_at(hs256, header):
    with pytest.raises(Denied, match="not signed by a key"):
        hs256.judge(forged(header, claims(), b"the attacker's own secret, 32 bytes"), NOW_UNIX_S)


@pytest.mark.parametrize(
    "kid", ["../../x", "/etc/passwd", "' OR 1=1 --", "k1\x00", "", "\x1b[31m", "x" * 256, "ü"]
)
def test_a_key_id_is_compared_and_nothing_else(issuer, kid):
    tokens = issuer(keys=jwks(oct_jwk(kid="k1")))
    with pytest.raises(Denied, match="not signed by a key"):
        tokens.judge(forged(HS256 | {"kid": kid}, claims()), NOW_UNIX_S)


@pytest.mark.parametrize("kid", [7, ["k1"], {"k1": 1}, True, "x" * 257])
def test_a_key_id_that_is_none_refuses_the_token(issuer, kid):
    tokens = issuer(keys=jwks(oct_jwk(kid="k1")))
    with pytest.raises(Denied, match="damaged"):
        tokens.judge(forged(HS256 | {"kid": kid}, claims()), NOW_UNIX_S)


@pytest.mark.parametrize(
    "header",
    [
        HS256 | {"crit": ["exp"]},
        HS256 | {"crit": []},
        HS256 | {"b64": False, "crit": ["b64"]},
        HS256 | {"b64": True},
        b'{"alg": "HS256", "alg": "HS256"}',
        b'{"alg": "none", "alg": "HS256"}',
        b'{"alg": "HS256", "x": NaN}',
        b'["HS256"]',
        b"{",
        b"\xff",
        b"[" * 3000,
        b"",
    ],
)
def test_a_header_that_is_odd_refuses_the_token(hs256, header):
    with pytest.raises(Denied, match="damaged"):
        hs256.judge(forged(header, claims()), NOW_UNIX_S)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss": "https://issuer.example", "iss": "https://issuer.example"}',
        json.dumps(claims()).encode()[:-1] + b', "tenant": "a", "tenant": "b"}',
        json.dumps(claims()).encode()[:-1] + b', "x": {"y": 1, "y": 2}}',
        json.dumps(claims()).encode()[:-1] + b', "exp2": Infinity}',
        json.dumps(claims()).encode()[:-1] + b', "n": ' + b"9" * 5000 + b"}",
        b"[]",
        b'"text"',
        b"\xff",
        b"[" * 4000,
        b"",
    ],
)
def test_a_signed_payload_that_is_odd_refuses_the_token(hs256, payload):
    with pytest.raises(Denied, match="no JSON object, or say something twice"):
        hs256.judge(forged(HS256, payload), NOW_UNIX_S)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"aud": "evil"}, "audience"),
        ({"exp": None}, "exp"),
        ({"exp": NOW_UNIX_S - 1}, "expired"),
        ({"nbf": NOW_UNIX_S + 10**9}, "not valid yet"),
    ],
)
def test_a_good_signature_does_not_make_good_claims(hs256, changes, why):
    with pytest.raises(Denied, match=why):
        hs256.judge(signed(**changes), NOW_UNIX_S)


def test_a_wrong_signature_is_found_before_any_claim_is_believed(hs256):
    token = signed(key=b"another secret that is long enough 0123", iss="https://evil.example", exp=1)
    with pytest.raises(Denied, match="not signed by a key"):
        hs256.judge(token, NOW_UNIX_S)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-2],
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token.rpartition(".")[0],
        lambda token: token + ".x",
        lambda token: token + "é",
        lambda token: " " + token,
        lambda token: token + "\n",
        lambda token: token.replace(".", "..", 1),
        lambda _: "..",
        lambda _: "a.b.c",
        lambda _: "",
        lambda _: "a" * (MAX_TOKEN_CHARS - 2) + "..b",
        lambda token: token.partition(".")[0] + "." + "A" * 10_000_000 + "." + token.rpartition(".")[2],
    ],
)
def test_a_damaged_or_huge_token_is_denied(hs256, change):
    with pytest.raises(Denied):
        hs256.judge(change(signed()), NOW_UNIX_S)


def test_every_changed_character_is_noticed(issuer):
    tokens = issuer(keys=jwks(jwk("EdDSA", kid="k1")))
    token = signed("EdDSA", kid="k1")
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(Denied):
            tokens.judge(changed, NOW_UNIX_S)


@given(
    st.text(max_size=60)
    | st.builds(lambda a, b, c: f"{b64(a)}.{b64(b)}.{b64(c)}", *[st.binary(max_size=40)] * 3)
)
def test_any_text_is_denied_and_not_quoted(text):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "secret"
        write_private(path, SECRET)
        tokens = JwtTokens(JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), secret_file=path))
    with pytest.raises(Denied) as caught:
        tokens.judge(text, NOW_UNIX_S)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


# --- what was verified once ---------------------------------------------------------------------------------


@pytest.fixture
def verifications(monkeypatch):
    """One entry for each signature that was looked at."""
    from otelprogress_collector.auth import jwt_tokens

    looked_at = []
    payload = jwt_tokens._payload
    monkeypatch.setattr(jwt_tokens, "_payload", lambda *of: looked_at.append(1) or payload(*of))
    return looked_at


def test_a_signature_is_verified_once_and_the_claims_each_time(hs256, verifications):
    token = signed()
    for _ in range(5):
        assert hs256.judge(token, NOW_UNIX_S).actor == "anna"
    assert len(verifications) == 1
    with pytest.raises(Denied, match="expired"):
        hs256.judge(token, NOW_UNIX_S + 600)
    assert len(verifications) == 1


def test_a_wrong_signature_is_not_remembered_as_anything(hs256, verifications):
    for expected in range(1, 4):
        with pytest.raises(Denied):
            hs256.judge(signed(key=b"z" * 40), NOW_UNIX_S)
        assert len(verifications) == expected


def test_a_key_that_is_gone_vouches_for_no_token_that_it_signed_before(issuer, tmp_path):
    tokens = issuer(keys=jwks(jwk("EdDSA", 0, kid="a")))
    token = signed("EdDSA", 0, kid="a")
    assert tokens.judge(token, NOW_UNIX_S)
    write_private(tmp_path / "jwks_file", jwks(jwk("EdDSA", 1, kid="a")))
    tokens.refresh(time.monotonic() + 60)
    with pytest.raises(Denied, match="not signed by a key"):
        tokens.judge(token, NOW_UNIX_S)


def test_there_is_an_end_to_what_is_remembered(hs256):
    for number in range(1100):
        hs256.judge(signed(jti=str(number)), NOW_UNIX_S)
    assert len(hs256._verified) == 1024


# --- keys that change, settings -----------------------------------------------------------------------------


def test_a_key_file_that_changes_is_read_again(issuer, tmp_path):
    tokens = issuer(keys=jwks(jwk("EdDSA", 0, kid="old")))
    write_private(tmp_path / "jwks_file", jwks(jwk("EdDSA", 1, kid="new")))
    tokens.refresh(time.monotonic() + 60)
    assert tokens.judge(signed("EdDSA", 1, kid="new"), NOW_UNIX_S)
    with pytest.raises(Denied):
        tokens.judge(signed("EdDSA", 0, kid="old"), NOW_UNIX_S)


@pytest.mark.parametrize("source", ["secret", "keys"])
def test_a_file_with_a_secret_must_be_private(issuer, tmp_path, source):
    content = SECRET if source == "secret" else jwks(oct_jwk())
    tokens = issuer(**{source: content})
    name = "secret_file" if source == "secret" else "jwks_file"
    (tmp_path / name).chmod(0o644)
    with pytest.raises(InvalidValue, match=f"{name}.*0644"):
        JwtTokens(tokens.config)


def test_public_keys_may_be_read_but_not_changed_by_others(issuer, tmp_path):
    tokens = issuer(keys=jwks(jwk("EdDSA")), public=public_pem("ES256"))
    for name in ("jwks_file", "public_key_file"):
        (tmp_path / name).chmod(0o644)
    assert JwtTokens(tokens.config).judge(signed("ES256"), NOW_UNIX_S)
    (tmp_path / "public_key_file").chmod(0o666)
    with pytest.raises(InvalidValue, match="public_key_file"):
        JwtTokens(tokens.config)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, "a source of keys"),
        ({"issuer": ""}, "issuer"),
        ({"audiences": ()}, "audience"),
        ({"audiences": ("",)}, "audience"),
        ({"jwks_url": "http://issuer.example/keys"}, "https"),
        ({"jwks_url": "https://issuer.example/keys", "jwks_ca_file": "/nonexistent/ca.pem"}, "ca.pem"),
        ({"secret_file": "/nonexistent/secret"}, "/nonexistent/secret"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, what):
    with pytest.raises(InvalidValue, match=what):
        JwtTokens(JwtConfig(**{"issuer": ISSUER, "audiences": (AUDIENCE,)} | settings))


def test_neither_token_nor_secret_is_quoted_anywhere(hs256, caplog):
    caplog.set_level("DEBUG")
    good = signed()
    for token in (good + "x", signed(aud="evil"), signed(key=b"z" * 40), forged({"alg": "none"}, claims())):
        with pytest.raises(Denied) as caught:
            hs256.judge(token, NOW_UNIX_S)
        text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
        assert not any(part and part in text for part in token.split("."))
    shown = repr(hs256.keys) + repr(hs256.config) + repr(vars(hs256))
    assert SECRET.decode() not in shown


def test_what_the_library_makes_of_the_same_token_is_the_same(hs256):
    """Another reader of the token agrees, on a token whose times are now."""
    now = time.time()
    token = signed(exp=now + 60, iat=now)
    read = jwt.decode(token, SECRET, algorithms=["HS256"], issuer=ISSUER, audience=AUDIENCE)
    assert hs256.judge(token, now).actor == read["sub"]
