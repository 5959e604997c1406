"""Who may send."""

from __future__ import annotations

import pytest

from otelprogress_collector.auth.principal import READ, WRITE, Denied, Principal
from otelprogress_collector.receivers.admission import Forbidden, authenticate_with, bearer_of, by_name


class FixedAuthority:
    def __init__(self, *, required: bool = True) -> None:
        self.required_for_ingest = required
        self.prepared: list[str | None] = []
        self.denied = False

    async def prepare(self, token):
        self.prepared.append(token)

    def judge(self, token, now_unix_s):
        if token not in ("writer", "reader") or now_unix_s != 5.0:
            raise Denied("nobody that is known")
        return Principal(actor=token, scopes=frozenset({WRITE if token == "writer" else READ}))

    def revoked(self, principal):
        return self.denied


async def asked(authority, headers):
    return await authenticate_with(authority, lambda: 5.0)(headers)


async def test_a_good_token_is_prepared_and_judged():
    authority = FixedAuthority()
    assert (await asked(authority, {"authorization": "Bearer writer"})).actor == "writer"
    assert authority.prepared == ["writer"]


async def test_a_token_that_may_not_write_is_forbidden():
    with pytest.raises(Forbidden, match=WRITE):
        await asked(FixedAuthority(), {"authorization": "bearer reader"})


async def test_a_revoked_token_is_denied():
    authority = FixedAuthority()
    authority.denied = True
    with pytest.raises(Denied, match="revoked"):
        await asked(authority, {"authorization": "Bearer writer"})


async def test_without_a_token_only_who_needs_none_is_let_in():
    with pytest.raises(Denied):
        await asked(FixedAuthority(), {})
    anybody = await asked(FixedAuthority(required=False), {})
    assert anybody.scopes == {WRITE}


async def test_a_wrong_token_is_denied_even_where_none_is_needed():
    with pytest.raises(Denied):
        await asked(FixedAuthority(required=False), {"authorization": "Bearer guess"})


@pytest.mark.parametrize("said", ["Bearer writer", "bearer  writer ", "writer", " writer "])
def test_a_token_may_stand_without_a_scheme_as_logfire_sends_it(said):
    assert bearer_of({"authorization": said}) == "writer"


@pytest.mark.parametrize("said", ["", " ", "Bearer", "Bearer ", "Basic dXNlcg==", "a b", "a, b"])
def test_what_is_no_bearer_token_is_denied_without_quoting_it(said):
    with pytest.raises(Denied) as caught:
        bearer_of({"authorization": said})
    assert "dXNlcg" not in str(caught.value)


def test_two_headers_of_a_name_are_one_value_that_is_neither():
    headers = by_name([("Authorization", "Bearer a"), ("authorization", "Bearer b"), ("Host", "x")])
    assert headers == {"authorization": "Bearer a, Bearer b", "host": "x"}
