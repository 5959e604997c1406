from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.auth.jwt_claims import principal_of
from otelprogress_collector.auth.principal import READ, SCOPES, START, WRITE, Denied, Principal
from tests.collector.auth.issuing import AUDIENCE, ISSUER, NOW_UNIX_S, claims


def judged(leeway_s=10.0, now_unix_s=NOW_UNIX_S, **changes) -> Principal:
    return principal_of(
        claims(**changes),
        issuer=ISSUER,
        audiences=(AUDIENCE, "other"),
        leeway_s=leeway_s,
        now_unix_s=now_unix_s,
    )


def test_claims_become_a_principal():
    found = judged(tenant="acme", services=["etl", "api"])
    assert found == Principal(
        actor="anna",
        scopes=frozenset({READ, WRITE}),
        tenant="acme",
        services=("etl", "api"),
        expires_at_unix_s=NOW_UNIX_S + 600,
        token_id="token-1",
    )


def test_what_is_not_said_has_a_meaning():
    found = judged(sub=None, jti=None, scope=None, iat=None)
    assert found.actor == ISSUER
    assert (found.token_id, found.tenant, found.services, found.scopes) == ("", "", (), frozenset())


def test_scopes_may_be_a_list_and_those_of_others_are_ignored():
    assert judged(scope=None, scopes=[START, "admin"]).scopes == {START}
    assert judged(scope="").scopes == frozenset()
    assert judged(scope=" ".join(SCOPES)).scopes == SCOPES
    assert judged(scope="progress:readers xprogress:read").scopes == frozenset()


def test_a_gateways_token_names_an_attribute_instead_of_a_tenant():
    assert judged(tenant_from="acme.tenant").tenant_from == "acme.tenant"


@pytest.mark.parametrize("audience", [AUDIENCE, ["a", AUDIENCE], ["other"]])
def test_one_audience_in_common_is_enough(audience):
    assert judged(aud=audience)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": None}, "another issuer"),
        ({"iss": ISSUER + "/"}, "another issuer"),
        ({"iss": [ISSUER]}, "another issuer"),
        ({"iss": ISSUER.upper()}, "another issuer"),
        ({"aud": None}, "aud"),
        ({"aud": ""}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": AUDIENCE + "x"}, "audience"),
        ({"aud": {AUDIENCE: 1}}, "aud"),
        ({"aud": [AUDIENCE, 1]}, "aud"),
        ({"exp": None}, "lacks the claim exp"),
        ({"exp": "1800000000"}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": -1}, "exp is no time"),
        ({"exp": 10**40}, "exp is no time"),
        ({"exp": (NOW_UNIX_S + 60) * 1000}, "exp is no time"),
        ({"exp": [NOW_UNIX_S + 600]}, "exp is no time"),
        ({"exp": NOW_UNIX_S}, "expired"),
        ({"nbf": NOW_UNIX_S + 10.1}, "not valid yet"),
        ({"nbf": NOW_UNIX_S * 2}, "not valid yet"),
        ({"nbf": "now"}, "nbf is no time"),
        ({"iat": NOW_UNIX_S + 11}, "not valid yet"),
        ({"iat": {}}, "iat is no time"),
        ({"jti": 7}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": "a b"}, "deny-list"),
        ({"jti": "#a"}, "deny-list"),
        ({"jti": "x" * 257}, "jti"),
        ({"sub": 7}, "sub"),
        ({"sub": "an\nna"}, "sub"),
        ({"scope": ["progress:read"]}, "scope"),
        ({"scope": 7}, "scope"),
        ({"scopes": "progress:read", "scope": None}, "scopes"),
        ({"scopes": [["progress:read"]], "scope": None}, "scopes"),
        ({"scopes": ["progress:read"]}, "both scope and scopes"),
        ({"tenant": ["acme"]}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "ac\x00me"}, "tenant"),
        ({"tenant": "x" * 129}, "tenant"),
        ({"tenant": " acme"}, "tenant"),
        ({"tenant": "acme", "tenant_from": "t"}, "both tenant and tenant_from"),
        ({"tenant_from": 1}, "tenant_from"),
        ({"services": []}, "services are none"),
        ({"services": "etl"}, "services"),
        ({"services": {"etl": 1}}, "services"),
        ({"services": [""]}, "services"),
        ({"services": [1]}, "services"),
        ({"services": [f"s{n}" for n in range(65)]}, "services"),
    ],
)
def test_a_claim_that_is_wrong_in_any_way_denies(changes, why):
    with pytest.raises(Denied, match=why):
        judged(**changes)


@pytest.mark.parametrize(
    "name", ["sub", "tenant", "services", "tenant_from", "jti", "scope", "nbf", "iat", "exp"]
)
def test_a_claim_that_is_null_is_no_claim_left_out(name):
    with pytest.raises(Denied):
        principal_of(
            claims() | {name: None}, issuer=ISSUER, audiences=(AUDIENCE,), leeway_s=10, now_unix_s=NOW_UNIX_S
        )


def test_the_leeway_is_for_the_beginning_and_never_for_the_end():
    assert judged(nbf=NOW_UNIX_S + 10, iat=NOW_UNIX_S + 10)
    assert judged(exp=NOW_UNIX_S + 0.001)
    with pytest.raises(Denied, match="expired"):
        judged(exp=NOW_UNIX_S - 0.001, leeway_s=3600)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["scope", "scopes", "tenant", "services", "tenant_from", "sub", "jti", "nbf", "iat", "exp"]
        ),
        anything,
    )
)
def test_whatever_claims_say_they_are_read_or_denied_and_never_widen(changes):
    said = claims() | changes
    try:
        found = principal_of(said, issuer=ISSUER, audiences=(AUDIENCE,), leeway_s=10, now_unix_s=NOW_UNIX_S)
    except Denied:
        return
    assert found.scopes <= SCOPES
    assert found.expires_at_unix_s is not None
    assert found.tenant == said.get("tenant", "")
    assert list(found.services) == said.get("services", [])
    assert ("services" in said) == bool(found.services)
