from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from otelprogress_collector.auth.rate import Doorstep, RateLimits, TokenBuckets, address_key


def test_a_burst_is_let_through_and_then_so_many_a_second():
    limits = RateLimits(by_token=None, by_address=TokenBuckets(per_s=10, burst=5))
    assert [limits.retry_after_s(0.0, address="192.0.2.1") for _ in range(5)] == [0.0] * 5
    assert limits.retry_after_s(0.0, address="192.0.2.1") == pytest.approx(0.1)
    assert limits.retry_after_s(0.11, address="192.0.2.1") == 0.0
    assert limits.retry_after_s(0.11, address="192.0.2.1") > 0.0
    assert limits.refused == 2


def test_addresses_and_tokens_are_counted_apart():
    limits = RateLimits(by_token=TokenBuckets(per_s=1, burst=1), by_address=TokenBuckets(per_s=1, burst=2))
    assert limits.retry_after_s(0.0, address="192.0.2.1", token_id="a") == 0.0
    assert limits.retry_after_s(0.0, address="192.0.2.1", token_id="a") > 0.0
    assert limits.retry_after_s(0.0, address="192.0.2.1", token_id="b") == 0.0
    assert limits.retry_after_s(0.0, address="192.0.2.1", token_id="c") > 0.0
    assert limits.retry_after_s(0.0, address="192.0.2.2", token_id="c") == 0.0
    assert limits.retry_after_s(0.0, address="192.0.2.3") == 0.0


def test_who_is_refused_by_one_bucket_pays_from_neither():
    limits = RateLimits(by_token=TokenBuckets(per_s=1, burst=1), by_address=TokenBuckets(per_s=1, burst=3))
    limits.retry_after_s(0.0, address="192.0.2.1", token_id="a")
    for _ in range(100):
        assert limits.retry_after_s(0.0, address="192.0.2.1", token_id="a") > 0.0
    assert limits.retry_after_s(0.0, address="192.0.2.1", token_id="b") == 0.0


def test_nobody_is_sent_away_for_more_than_5_s_or_for_no_time_at_all():
    slow = RateLimits(by_token=None, by_address=TokenBuckets(per_s=0.001, burst=1))
    quick = RateLimits(by_token=None, by_address=TokenBuckets(per_s=1e6, burst=1))
    for limits, waits in ((slow, 5.0), (quick, 0.1)):
        assert limits.retry_after_s(0.0, address="a") == 0.0
        assert limits.retry_after_s(0.0, address="a") == waits


def test_what_costs_more_than_a_bucket_holds_is_let_through_and_paid_off():
    limits = RateLimits(by_token=None, by_address=TokenBuckets(per_s=1, burst=4))
    assert limits.retry_after_s(0.0, address="a", cost=10) == 0.0
    assert limits.retry_after_s(6.5, address="a") == pytest.approx(0.5)
    assert limits.retry_after_s(7.0, address="a") == 0.0


def test_without_limits_nothing_is_refused():
    limits = RateLimits(by_token=None, by_address=None)
    assert {limits.retry_after_s(0.0, address="a", token_id="t") for _ in range(1000)} == {0.0}


def test_there_is_an_end_to_keys_and_the_busy_ones_stay():
    buckets = TokenBuckets(per_s=1, burst=2, max_keys=100)
    for number in range(10_000):
        buckets.take("busy", 0.0, 0.0)
        buckets.take(f"made-up-{number}", 0.0)
    assert len(buckets) == 100
    buckets.take("busy", 0.0, 2.0)
    assert buckets.wait_s("busy", 0.0) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"per_s": 0, "burst": 1},
        {"per_s": 1, "burst": 0.5},
        {"per_s": float("nan"), "burst": 1},
        {"per_s": 1, "burst": 1, "max_keys": 0},
    ],
)
def test_a_limit_that_lets_nothing_through_is_refused(settings):
    with pytest.raises(ValueError, match="per_s"):
        TokenBuckets(**settings)


@given(
    st.floats(0.1, 1000),
    st.floats(1, 1000),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20)), max_size=40),
)
def test_in_no_time_more_is_let_through_than_the_burst_and_what_came_back(per_s, burst, asked):
    limits = RateLimits(by_token=None, by_address=TokenBuckets(per_s=per_s, burst=burst))
    now_s, let_through, dearest = 0.0, 0.0, 0.0
    for pause_s, cost in asked:
        now_s += pause_s
        wait_s = limits.retry_after_s(now_s, address="a", cost=cost)
        if wait_s:
            assert 0.1 <= wait_s <= 5.0
        else:
            let_through += cost
            dearest = max(dearest, cost)
        assert let_through <= max(burst, dearest) + now_s * per_s + 1e-6


@given(st.floats(0.5, 100), st.floats(1, 50), st.integers(1, 60))
def test_who_waits_as_told_is_let_in(per_s, burst, requests):
    limits = RateLimits(by_token=None, by_address=TokenBuckets(per_s=per_s, burst=burst))
    now_s = 0.0
    for _ in range(requests):
        waits = 0
        while wait_s := limits.retry_after_s(now_s, address="a"):
            now_s += wait_s
            waits += 1
            assert waits <= 2  # a second time only for a rounding error


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_one_host_is_one_key(address, key):
    assert address_key(address) == key


class DoorstepMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.door = Doorstep(per_address=3, total=5)
        self.inside: list[str] = []

    @rule(
        address=st.sampled_from(["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"])
    )
    def enter(self, address):
        key = address_key(address)
        room = len(self.inside) < 5 and sum(address_key(one) == key for one in self.inside) < 3
        assert self.door.enter(address) == room
        if room:
            self.inside.append(address)

    @rule(data=st.data())
    def leave(self, data):
        if self.inside:
            address = data.draw(st.sampled_from(self.inside))
            self.inside.remove(address)
            self.door.leave(address)

    @invariant()
    def all_are_counted(self):
        assert self.door.count == len(self.inside)


TestDoorstep = DoorstepMachine.TestCase
TestDoorstep.settings = settings(max_examples=30, stateful_step_count=30)


def test_who_never_entered_cannot_leave():
    with pytest.raises(ValueError, match="nobody from"):
        Doorstep().leave("192.0.2.1")
