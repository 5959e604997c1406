"""Who may read over HTTP, judged without a server."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from otelprogress.feed.clock import ManualClock
from otelprogress_collector.api.access import Access
from otelprogress_collector.api.problem import Problem
from otelprogress_collector.auth.admission import CollectorAdmission
from otelprogress_collector.auth.rate import RateLimits, TokenBuckets
from tests.collector.api.kit import TOKEN, FakeAuthority, reader

GOOD_HOST = ("host", "127.0.0.1:4318")


def scope(*headers: tuple[str, str], client: tuple[str, int] | None = ("127.0.0.1", 5)) -> dict[str, Any]:
    return {
        "type": "http",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": client,
        "server": ("127.0.0.1", 4318),
    }


class Door:
    """An `Access` with a clock that stands still, and what it was built from."""

    def __init__(self, authority: FakeAuthority | None = None, **limits: Any) -> None:
        self.clock = ManualClock()
        self.authority = authority or FakeAuthority()
        self.access = Access(self.authority, self.clock, CollectorAdmission("127.0.0.1", 4318), **limits)

    async def refusal(self, *headers: tuple[str, str]) -> Problem:
        with pytest.raises(Problem) as refusal:
            await self.access.reader(scope(*headers))
        return refusal.value


async def test_a_known_token_is_somebody_and_was_prepared():
    door = Door()
    principal = await door.access.reader(scope(GOOD_HOST, ("authorization", f"Bearer {TOKEN}")))
    assert principal.actor == "ada"
    assert door.authority.prepared == [TOKEN]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", "Basic QTpC"),),
        (("authorization", f"Bearer {'x' * 5_000}"),),
    ],
)
async def test_without_a_good_token_the_answer_is_a_challenge_that_quotes_nothing(headers):
    refusal = await Door().refusal(GOOD_HOST, *headers)
    assert refusal.status == HTTPStatus.UNAUTHORIZED
    assert refusal.headers["WWW-Authenticate"] == "Bearer"
    assert "wrong" not in refusal.detail.replace("missing or wrong", "")


async def test_two_tokens_are_one_too_many():
    bearer = ("authorization", f"Bearer {TOKEN}")
    assert (await Door().refusal(GOOD_HOST, bearer, bearer)).status == HTTPStatus.BAD_REQUEST


async def test_the_host_is_judged_before_the_token_is_looked_at():
    door = Door()
    refusal = await door.refusal(("host", "evil.example"), ("authorization", f"Bearer {TOKEN}"))
    assert refusal.status == HTTPStatus.FORBIDDEN
    assert door.authority.prepared == []


async def test_the_subprotocol_item_is_no_token_of_a_plain_request():
    from otelprogress.feed.admission import bearer_item

    refusal = await Door().refusal(GOOD_HOST, ("sec-websocket-protocol", bearer_item(TOKEN)))
    assert refusal.status == HTTPStatus.UNAUTHORIZED


async def test_a_token_that_may_only_write_does_not_read():
    door = Door(FakeAuthority({TOKEN: reader(scopes=frozenset({"progress:write"}))}))
    refusal = await door.refusal(GOOD_HOST, ("authorization", f"Bearer {TOKEN}"))
    assert (refusal.status, "progress:read" in refusal.detail) == (HTTPStatus.FORBIDDEN, True)


def test_one_that_was_let_in_is_not_for_ever():
    door = Door()
    expires = reader(expires_at_unix_s=door.clock.time_unix_ns() / 1e9 + 10)
    door.access.still(expires)
    door.clock.advance(10)
    with pytest.raises(Problem):
        door.access.still(expires)
    door.access.still(reader("bob"))
    door.authority.denied.add("bob")
    with pytest.raises(Problem):
        door.access.still(reader("bob"))


async def test_guesses_are_counted_against_the_address_that_makes_them():
    limits = RateLimits(by_token=None, by_address=TokenBuckets(per_s=1.0, burst=2))
    door = Door(rate_limits=limits)
    statuses = [(await door.refusal(GOOD_HOST, ("authorization", f"Bearer {n}"))).status for n in range(4)]
    assert statuses == [401, 401, 429, 429]
    door.clock.advance(2)
    assert (await door.refusal(GOOD_HOST)).status == 401


async def test_an_address_that_is_unknown_is_judged_too():
    limits = RateLimits(by_token=None, by_address=TokenBuckets(per_s=1.0, burst=1))
    door = Door(rate_limits=limits)
    request = scope(GOOD_HOST, ("authorization", f"Bearer {TOKEN}"), client=None)
    await door.access.reader(request)
    with pytest.raises(Problem):
        await door.access.reader(request)
