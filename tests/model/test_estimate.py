from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model.estimate import (
    Baseline,
    Estimator,
    eta_from_baseline,
    eta_from_ratio,
    stall_after_s,
    widest,
)
from otelprogress.model.events import Eta

S = 10**9


def fed(*counts: tuple[float, float], initial: float = 0.0) -> Estimator:
    estimator = Estimator(initial, 0)
    for at_s, completed in counts:
        estimator.observe(completed, round(at_s * S))
    return estimator


def test_nothing_is_known_before_the_first_move():
    estimator = fed((1, 0.0))
    assert estimator.rate() is None
    assert estimator.eta(10.0) is None
    assert estimator.usual_interval_s is None


def test_an_even_pace_gives_its_rate():
    assert fed(*((at, at * 20.0) for at in range(1, 100))).rate() == pytest.approx(20.0)


def test_work_done_before_is_left_out_of_the_rate():
    assert fed((10, 1_000_100.0), initial=1_000_000.0).rate() == pytest.approx(10.0)


def test_a_burst_of_reports_weighs_by_its_time():
    even = [(at, at * 10.0) for at in range(1, 60)]
    burst = [(59 + i / 10_000, 590.0 + i / 1_000) for i in range(1, 100)]
    assert fed(*even, *burst).rate() == pytest.approx(10.0, rel=0.02)


def test_items_without_any_time_between_them_give_no_rate_yet():
    assert fed((0, 5.0), (0, 9.0)).rate() is None


def test_the_rate_follows_a_change_of_pace():
    slow_then_fast = [(at, float(at)) for at in range(1, 300)] + [
        (300 + at, 300 + 50.0 * at) for at in range(1, 60)
    ]
    assert 40 < fed(*slow_then_fast).rate() <= 50


def test_silence_lowers_the_rate_after_two_usual_intervals():
    estimator = fed(*((at, float(at)) for at in range(1, 60)))
    assert estimator.rate(1.9) == estimator.rate(0)
    assert estimator.rate(30) < estimator.rate(0) / 2


def test_slow_items_are_remembered_longer_than_the_time_constant():
    alternating, at = [], 0.0
    for item in range(1, 40):
        at += 100.0 if item % 2 else 140.0
        alternating.append((at, float(item)))
    assert fed(*alternating).rate() == pytest.approx(1 / 120, rel=0.1)


def test_a_count_that_goes_back_starts_anew_without_a_negative_rate():
    estimator = fed((10, 100.0), (11, 5.0), (21, 105.0))
    assert estimator.rate() == pytest.approx(10.0)


def test_a_pause_is_in_no_rate():
    estimator = fed((10, 100.0))
    estimator.resume(3_610 * S)
    estimator.observe(200.0, 3_620 * S)
    assert estimator.rate() == pytest.approx(10.0)


def test_an_eta_is_an_interval_that_closes_in():
    early = fed((1, 1.0), (2, 2.0)).eta(100.0)
    late = fed(*((at, float(at)) for at in range(1, 91))).eta(100.0)
    assert early.low_s < 98 < early.high_s
    assert late.low_s < 10 < late.high_s
    assert late.high_s / late.low_s < early.high_s / early.low_s


def test_what_is_complete_needs_no_time():
    assert fed((1, 10.0)).eta(10.0) == Eta(0.0, 0.0)
    assert fed((1, 12.0)).eta(10.0) == Eta(0.0, 0.0)


def test_what_would_take_decades_has_no_eta():
    assert fed((3600, 1.0)).eta(2.0**62) is None


def test_one_stall_is_no_new_habit():
    estimator = fed(*((at, float(at)) for at in range(1, 30)), (3_630, 31.0))
    assert estimator.usual_interval_s < 2.0


def test_stalls_by_default_after_30_s_or_five_usual_intervals():
    assert stall_after_s(None, fed((1, 1.0), (2, 2.0))) == 30.0
    assert stall_after_s(None, fed((20, 1.0), (40, 2.0))) == pytest.approx(100.0)


def test_what_never_counted_stalls_only_by_an_explicit_value():
    assert stall_after_s(None, None) is None
    assert stall_after_s(None, fed((5, 0.0))) is None
    assert stall_after_s(7.0, None) == 7.0


def test_a_ratio_says_little_at_first_and_more_later():
    assert eta_from_ratio(None, 10.0) is None
    assert eta_from_ratio(0.0, 10.0) is None
    assert eta_from_ratio(1.0, 10.0) == Eta(0.0, 0.0)
    first, last = eta_from_ratio(0.1, 10.0), eta_from_ratio(0.9, 90.0)
    assert first.low_s < 90 < first.high_s
    assert last.low_s < 10 < last.high_s
    assert last.high_s / last.low_s < 1.5 < first.high_s / first.low_s


def test_history_says_how_long_it_usually_takes():
    baseline = Baseline(100.0, 80.0, 150.0)
    assert eta_from_baseline(baseline, 90.0) == Eta(0.0, 60.0)
    assert eta_from_baseline(baseline, 151.0) is None
    assert eta_from_baseline(None, 1.0) is None


def test_two_intervals_are_covered_by_their_widest():
    assert widest(Eta(1.0, 5.0), Eta(3.0, 9.0)) == Eta(1.0, 9.0)
    assert widest(None, Eta(3.0, 9.0)) == Eta(3.0, 9.0)
    assert widest(None, None) is None


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.floats(0, 2.0**63)), max_size=40),
    st.floats(0, 2.0**63),
    st.floats(0, 1e9),
)
def test_no_sequence_of_counts_gives_a_number_that_is_none(counts, total, silent_s):
    estimator = Estimator(0.0, 0)
    for time_ns, completed in counts:
        estimator.observe(completed, time_ns)
    rate, eta = estimator.rate(silent_s), estimator.eta(total, silent_s)
    assert rate is None or (math.isfinite(rate) and rate >= 0)
    assert eta is None or (0 <= eta.low_s <= eta.high_s and math.isfinite(eta.high_s))
