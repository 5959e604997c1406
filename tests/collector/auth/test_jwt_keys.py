from __future__ import annotations

import json
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.jwt_keys import MAX_KEYS, candidates, key_set, public_key, secret_key
from tests.collector.auth.issuing import (
    ASYMMETRIC,
    SECRET,
    b64,
    jwk,
    jwks,
    oct_jwk,
    pem_of,
    private_key,
    private_pem,
    public_pem,
)


def keys_in(*members, secrets_allowed=True):
    return key_set(jwks(*members), secrets_allowed=secrets_allowed, origin="a test")


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_public_key_is_pinned_to_the_algorithm_of_its_type(algorithm):
    assert public_key(public_pem(algorithm)).algorithm == algorithm
    (found,) = keys_in(jwk(algorithm, kid="k"))
    assert (found.algorithm, found.kid) == (algorithm, "k")


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_private_key_has_no_business_here(algorithm):
    with pytest.raises(InvalidValue, match="openssl pkey -pubout"):
        public_key(private_pem(algorithm))


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["RSA 1024", "P-384", "secp256k1", "Ed448"],
)
def test_other_keys_are_refused(key):
    with pytest.raises(InvalidValue, match="2048 to 8192 bits"):
        public_key(pem_of(key.public_key()))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_what_is_no_key_is_refused(content):
    with pytest.raises(InvalidValue, match="no public key in PEM"):
        public_key(content)


def test_a_secret_may_end_in_an_editors_line_end():
    assert secret_key(SECRET + b"\r\n").key == SECRET


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 31, b"x" * 31 + b"\n\n\n"])
def test_a_short_secret_is_refused_with_what_to_do(content):
    with pytest.raises(InvalidValue, match="openssl rand -base64 48"):
        secret_key(content)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_public_key_is_no_secret(algorithm):
    with pytest.raises(InvalidValue, match="not a public key"):
        secret_key(public_pem(algorithm))
    with pytest.raises(InvalidValue, match="JWK"):
        secret_key(json.dumps(jwk(algorithm)).encode())


def test_a_key_set_is_read_as_far_as_it_is_usable():
    keys = keys_in(
        jwk("RS256", kid="good", use="sig", alg="RS256"),
        jwk("ES256", kid="encrypts", use="enc"),
        jwk("RS256", kid="other alg", alg="RS512"),
        jwk("RS256", kid="alg of another type", alg="HS256"),
        jwk("RS256", kid="signs", key_ops=["sign"]),
        jwk("EdDSA", kid="verifies", key_ops=["verify"]),
        "no object",
        {"kty": "weird", "kid": "w"},
        {"kty": ["RSA"], "kid": "list"},
        {"kid": "no type"},
        {"kty": "RSA", "kid": "no numbers"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "no point"},
        {"kty": "EC", "crv": "P-384", "kid": "another curve"},
        {"kty": "OKP", "crv": "X25519", "x": b64(b"x" * 32), "kid": "agrees"},
        jwk("ES256", kid="") | {"kid": 7},
        oct_jwk(b"short", kid="short"),
    )
    assert [one.kid for one in keys] == ["good", "verifies"]


@pytest.mark.parametrize("kty", ["oct", "EC", "OKP"])
def test_a_key_that_says_another_type_of_itself_is_not_used(kty):
    assert keys_in(jwk("RS256", kid="k") | {"kty": kty}) == ()


def test_a_private_member_verifies_by_its_public_half():
    import jwt

    member = jwt.algorithms.RSAAlgorithm.to_jwk(private_key("RS256"), as_dict=True)
    member.pop("key_ops", None)
    (found,) = keys_in(member)
    assert not hasattr(found.key, "private_numbers")


def test_symmetric_keys_are_read_from_files_only():
    assert [one.algorithm for one in keys_in(oct_jwk())] == ["HS256"]
    assert keys_in(oct_jwk(), secrets_allowed=False) == ()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", b"[" * 100_000, b'{"keys": null}']
)
def test_what_is_no_key_set_is_refused(content):
    with pytest.raises(InvalidValue, match="no JWKS"):
        key_set(content, secrets_allowed=True, origin="a test")


def test_an_empty_key_set_is_one():
    assert keys_in() == ()


def test_there_is_an_end_to_keys(caplog):
    assert len(keys_in(*[jwk("EdDSA", kid=str(n)) for n in range(MAX_KEYS + 5)])) == MAX_KEYS
    assert "only the first" in caplog.text


def test_a_token_is_tried_with_keys_of_its_algorithm_and_id_only_and_not_with_many():
    keys = keys_in(jwk("RS256", kid="a"), jwk("ES256", kid="a"), jwk("RS256", kid="b"), jwk("RS256", 1))
    assert [one.kid for one in candidates(keys, "RS256", "a")] == ["a", None]
    assert [one.kid for one in candidates(keys, "RS256", None)] == ["a", "b", None]
    assert candidates(keys, "HS256", "a") == []
    many = keys_in(*[jwk("EdDSA", kid=str(n)) for n in range(MAX_KEYS)])
    assert len(candidates(many, "EdDSA", None)) == 8
    assert [one.kid for one in candidates(many, "EdDSA", "63")] == ["63"]


def test_no_key_is_shown(caplog):
    caplog.set_level("DEBUG")
    secret = b"c4n4ry" * 8
    shown = [repr(secret_key(secret)), str(keys_in(oct_jwk(secret)))]
    keys_in(
        {"kty": "oct", "k": b64(secret), "alg": "RS256"},
        {"k": b64(secret)},
        {"kty": "oct", "k": [b64(secret)]},
    )
    with pytest.raises(InvalidValue) as caught:
        secret_key(secret[:20])
    shown += ["".join(traceback.format_exception(caught.value)), caplog.text]
    assert not any("c4n4ry" in text or b64(secret)[:12] in text for text in shown)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
members = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", "oct"]) | json_values},
    optional={
        "crv": st.sampled_from(["P-256", "Ed25519", ""]) | json_values,
        "alg": st.sampled_from(["RS256", "HS256", "none"]) | json_values,
        **dict.fromkeys(("n", "e", "x", "y", "d", "k", "kid", "use", "key_ops"), json_values),
    },
)


@given(st.lists(members | json_values, max_size=3))
def test_no_key_set_raises_anything_else(found):
    keys = keys_in(*found)
    assert all(one.algorithm in ("HS256", "RS256", "ES256", "EdDSA") for one in keys)
