from __future__ import annotations

import asyncio
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.authority import (
    AuthConfig,
    OpenAuthority,
    TokenAuthority,
    open_authority,
)
from otelprogress_collector.auth.jwt_tokens import JwtConfig
from otelprogress_collector.auth.principal import CONTROL, READ, SCOPES, WRITE, Authority, Denied, Principal
from otelprogress_collector.auth.private_file import write_private
from otelprogress_collector.auth.tokens import create_token, new_token, revoke_token
from tests.collector.auth.issuing import (
    AUDIENCE,
    ISSUER,
    NOW_UNIX_S,
    SECRET,
    claims,
    forged,
    jwk,
    jwks,
    oct_jwk,
    signed,
)
from tests.collector.auth.jwks_server import JwksServer
from tests.waiting import aeventually


class Place:
    """A folder with the files of an authority, and a clock."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.now_s = 50.0
        self.tokens = folder / "tokens"
        self.secret = folder / "secret"
        self.denied = folder / "denied"
        write_private(self.secret, SECRET)
        write_private(self.denied, b"")
        self.static = create_token(self.tokens, "ci", [READ, WRITE], now_unix_s=NOW_UNIX_S, tenant="acme")

    def authority(self, **changes) -> TokenAuthority:
        settings = {
            "tokens_file": self.tokens,
            "jwt": (JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), secret_file=self.secret),),
            "deny_list_file": self.denied,
        }
        made = open_authority(AuthConfig(**settings | changes), monotonic_s=lambda: self.now_s)
        assert isinstance(made, TokenAuthority)
        return made


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def test_both_kinds_of_authority_are_what_the_collector_asks_for(place):
    authorities: list[Authority] = [place.authority(), OpenAuthority()]
    assert [one.required_for_ingest for one in authorities] == [True, False]


def test_static_tokens_and_jwts_are_judged_side_by_side(place):
    authority = place.authority()
    assert authority.judge(place.static, NOW_UNIX_S).actor == "ci"
    assert authority.judge(signed(), NOW_UNIX_S).actor == "anna"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "a token is needed"),
        ("", "a token is needed"),
        ("secret", "neither"),
        pytest.param(new_token(), "unknown", id="unknown"),
        ("otpc_a.b.c", "damaged"),
        ("x" * 9000, "too long"),
        ("tökén", "ASCII"),
        ("\ud800", "ASCII"),
        ("a\x00b", "ASCII"),
        ("a.b.c", "damaged"),
    ],
)
def test_others_are_denied_and_told_why(place, token, why):
    with pytest.raises(Denied, match=why):
        place.authority().judge(token, NOW_UNIX_S)


def test_a_kind_of_token_that_is_not_configured_is_denied(place):
    with pytest.raises(Denied, match="no JWTs"):
        place.authority(jwt=()).judge(signed(), NOW_UNIX_S)
    with pytest.raises(Denied, match="no static tokens"):
        place.authority(tokens_file=None).judge(place.static, NOW_UNIX_S)


async def test_what_the_deny_list_names_counts_no_more(place):
    authority = place.authority()
    static, of_jwt = authority.judge(place.static, NOW_UNIX_S), authority.judge(signed(), NOW_UNIX_S)
    write_private(place.denied, b"ci\ntoken-1\n")
    assert not authority.revoked(static)
    place.now_s += 2.0
    await authority.prepare(None)
    assert authority.revoked(static)
    assert authority.revoked(of_jwt)
    for token in (place.static, signed()):
        with pytest.raises(Denied, match="revoked"):
            authority.judge(token, NOW_UNIX_S)
    assert authority.judge(signed(jti="token-2"), NOW_UNIX_S)
    assert not authority.revoked(authority.judge(signed(jti=None), NOW_UNIX_S))


async def test_a_revoked_static_token_counts_no_more_on_an_open_connection(place):
    authority = place.authority()
    principal = authority.judge(place.static, NOW_UNIX_S)
    revoke_token(place.tokens, "ci")
    place.now_s += 2.0
    await authority.prepare(place.static)
    assert authority.revoked(principal)
    assert not authority.revoked(authority.judge(signed(), NOW_UNIX_S))


async def test_open_connections_learn_of_it_though_nobody_connects(place):
    authority = place.authority()
    principal = authority.judge(place.static, NOW_UNIX_S)
    write_private(place.denied, b"ci\n")
    place.now_s += 2.0
    task = asyncio.create_task(authority.keep_fresh())
    try:
        await aeventually(lambda: authority.revoked(principal))
    finally:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_files_are_looked_at_once_in_a_while_however_many_ask(place, monkeypatch):
    authority = place.authority()
    looks = []
    monkeypatch.setattr(authority, "refresh", looks.append)
    await asyncio.gather(*(authority.prepare(None) for _ in range(50)))
    assert looks == []
    place.now_s += 2.0
    await asyncio.gather(*(authority.prepare(None) for _ in range(50)))
    assert looks == [52.0]


def test_judging_does_no_io(place, monkeypatch):
    import builtins
    import os
    import socket

    authority = place.authority()

    def forbidden(*args, **kwargs):
        raise AssertionError("I/O")

    for module, name in ((os, "open"), (os, "stat"), (builtins, "open"), (socket.socket, "connect")):
        monkeypatch.setattr(module, name, forbidden)
    assert authority.judge(place.static, NOW_UNIX_S)
    assert authority.judge(signed(), NOW_UNIX_S)
    with pytest.raises(Denied):
        authority.judge(signed("EdDSA", kid="unknown"), NOW_UNIX_S)


async def test_a_key_by_url_is_there_once_the_token_was_prepared(place):
    with JwksServer(jwks(jwk("ES256", kid="k1"))) as server:
        authority = place.authority(
            jwt=(JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), jwks_url=server.url),)
        )
        token = signed("ES256", kid="k1")
        with pytest.raises(Denied, match="not signed by a key"):
            authority.judge(token, NOW_UNIX_S)
        await authority.prepare(token)
        assert authority.judge(token, NOW_UNIX_S).actor == "anna"
        await authority.close()


async def test_tokens_that_no_url_could_help_make_no_request(place):
    with JwksServer(jwks(jwk("ES256", kid="k1"))) as server:
        config = JwtConfig(
            issuer=ISSUER, audiences=(AUDIENCE,), jwks_url=server.url, secret_file=place.secret
        )
        authority = place.authority(jwt=(config,))
        for token in (
            None,
            "",
            place.static,
            signed(),
            "a.b.c",
            forged({"alg": "none", "kid": "k1"}, claims()),
        ):
            await authority.prepare(token)
        assert server.requests == 0


async def test_a_token_by_a_key_in_a_file_does_not_wait_for_the_url(place):
    from tests.collector.auth.issuing import public_pem

    write_private(place.folder / "public", public_pem("ES256"))
    with JwksServer(jwks(jwk("ES256", 1, kid="k1"))) as server:
        config = JwtConfig(
            issuer=ISSUER, audiences=(AUDIENCE,), jwks_url=server.url, public_key_file=place.folder / "public"
        )
        authority = place.authority(jwt=(config,))
        await authority.prepare(signed("ES256", kid="another"))
        assert server.requests == 0
        token = signed("ES256", 1, kid="k1")
        await authority.prepare(token)
        assert authority.judge(token, NOW_UNIX_S)
        await authority.close()


async def test_preparing_survives_a_server_that_is_gone(place):
    server = JwksServer()
    server.close()
    authority = place.authority(jwt=(JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), jwks_url=server.url),))
    await authority.prepare(signed("ES256", kid="k1"))
    await authority.close()
    await authority.close()


def test_issuers_that_share_keys_are_told_apart_by_the_claim(place):
    write_private(place.folder / "keys", jwks(oct_jwk(kid="k1")))
    configs = tuple(
        JwtConfig(issuer=issuer, audiences=(audience,), jwks_file=place.folder / "keys")
        for issuer, audience in (("https://other.example", "other"), (ISSUER, AUDIENCE))
    )
    authority = place.authority(jwt=configs)
    assert authority.judge(signed(kid="k1"), NOW_UNIX_S).actor == "anna"
    with pytest.raises(Denied, match="audience"):
        authority.judge(signed(kid="k1", iss="https://other.example"), NOW_UNIX_S)
    with pytest.raises(Denied, match="another issuer"):
        authority.judge(signed(kid="k1", iss="https://third.example"), NOW_UNIX_S)


def test_a_key_of_one_issuer_signs_nothing_for_another(place):
    write_private(place.folder / "keys", jwks(jwk("EdDSA", kid="k1")))
    authority = place.authority(
        jwt=(
            JwtConfig(issuer="https://other.example", audiences=(AUDIENCE,), jwks_file=place.folder / "keys"),
            JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), secret_file=place.secret),
        )
    )
    with pytest.raises(Denied, match="another issuer"):
        authority.judge(signed("EdDSA", kid="k1"), NOW_UNIX_S)


# --- configuration ------------------------------------------------------------------------------------------


def test_a_configuration_that_lets_nobody_in_is_refused():
    with pytest.raises(InvalidValue, match="--no-auth"):
        open_authority(AuthConfig())


def test_an_issuer_that_is_given_twice_is_refused(place):
    config = JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), secret_file=place.secret)
    with pytest.raises(InvalidValue, match="twice"):
        place.authority(jwt=(config, config))


@pytest.mark.parametrize("name", ["tokens", "denied"])
def test_a_file_that_cannot_be_used_is_named(place, name):
    getattr(place, name).unlink()
    with pytest.raises(InvalidValue, match=str(place.folder / name)):
        place.authority()


def test_without_authentication_everybody_may_do_everything(place):
    authority = open_authority(AuthConfig(no_auth=True))
    for token in (None, "", "anything", "\ud800"):
        principal = authority.judge(token, NOW_UNIX_S)
        assert principal.scopes == SCOPES
        assert principal.tenant == ""
        assert principal.predicate is None
        assert principal.expires_at_unix_s is None
        assert not authority.revoked(principal)


# --- secrets ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("auth"))


@pytest.fixture(scope="module")
def one_authority(one_place):
    return one_place.authority()


visible = st.text(st.characters(codec=None), min_size=4, max_size=40)


@given(
    st.one_of(
        visible,
        st.builds(lambda text: "otpc_" + text, visible),
        st.builds(lambda secret: signed(key=secret), st.binary(min_size=32, max_size=40)),
        st.builds(lambda text: signed(sub=text), st.text(min_size=300, max_size=310)),
        st.builds(lambda text: signed(tenant=text + "\x00"), st.text("abcdef", min_size=8, max_size=20)),
        st.builds(lambda alg, kid: forged({"alg": alg, "kid": kid}, claims()), visible, visible),
    )
)
def test_no_part_of_a_token_is_in_what_a_denial_shows(one_authority, token):
    with pytest.raises(Denied) as caught:
        one_authority.judge(token, NOW_UNIX_S)
    denied = caught.value
    assert denied.__context__ is None
    shown = [str(denied), repr(denied), *map(str, denied.args), str(pickle.loads(pickle.dumps(denied)))]
    shown.append("".join(traceback.format_exception(denied)))
    pieces = {part for part in token.split(".") if len(part) > 20}
    assert not any(piece in text for piece in pieces for text in shown)


@given(st.integers(0, 58), st.sampled_from("ABCxyz019-_"))
def test_a_static_token_that_is_nearly_right_is_denied_without_being_shown(
    one_place, one_authority, place_in_it, character
):
    token = one_place.static[:place_in_it] + character + one_place.static[place_in_it + 1 :]
    if token == one_place.static:
        return
    with pytest.raises(Denied) as caught:
        one_authority.judge(token, NOW_UNIX_S)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert token not in shown
    assert one_place.static not in shown
    assert one_place.static not in repr(vars(one_authority))


def test_principals_of_two_tenants_are_never_mistaken_for_each_other(place):
    other = create_token(place.tokens, "other", [READ, CONTROL], now_unix_s=NOW_UNIX_S, tenant="umbrella")
    authority = place.authority()
    ours, theirs = authority.judge(place.static, NOW_UNIX_S), authority.judge(other, NOW_UNIX_S)
    assert (ours.tenant, theirs.tenant) == ("acme", "umbrella")
    assert ours != theirs
    assert not authority.revoked(ours)
    assert authority.revoked(
        Principal(actor="ci", scopes=ours.scopes, tenant="umbrella", credential=ours.credential)
    )
