"""Waits before connecting again."""

from __future__ import annotations

import random

import pytest

from otelprogress.protocol.backoff import Backoff


class Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def test_the_cap_doubles_from_the_low_to_the_high_bound():
    backoff = Backoff(0.5, 20, rng=Highest())
    assert [backoff.next_delay_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_waits_are_spread_over_the_whole_span_below_the_cap():
    backoff = Backoff(1, 1, rng=random.Random(7))
    waits = [backoff.next_delay_s() for _ in range(1000)]
    assert min(waits) < 0.05
    assert max(waits) > 0.95
    assert all(0 <= wait <= 1 for wait in waits)


def test_thirty_healthy_seconds_make_the_next_wait_small_again():
    backoff = Backoff(0.5, 20, rng=Highest())
    for _ in range(5):
        backoff.next_delay_s(0)
    backoff.connected(100)
    assert backoff.next_delay_s(129.9) == 16
    backoff.connected(200)
    assert backoff.next_delay_s(230) == 0.5


def test_a_failed_attempt_does_not_count_as_a_connection():
    backoff = Backoff(0.5, 20, rng=Highest())
    backoff.connected(0)
    assert [backoff.next_delay_s(now) for now in (40, 80, 120)] == [0.5, 1, 2]


def test_it_can_be_reset_by_hand():
    backoff = Backoff(0.5, 20, rng=Highest())
    backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() == 0.5


def test_the_span_that_a_feed_asks_for_is_kept():
    backoff = Backoff(rng=random.Random(1))
    assert all(2 <= backoff.asked_delay_s(2, 5) <= 5 for _ in range(100))
    assert backoff.asked_delay_s(3, 1) == 3


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (2, 1)])
def test_bounds_that_cannot_be_meant_are_refused(low: float, high: float):
    with pytest.raises(ValueError, match="backoff"):
        Backoff(low, high)
