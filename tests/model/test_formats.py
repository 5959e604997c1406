from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model import formats
from otelprogress.model.events import Eta


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (3.21, "3.2s"),
        (9.96, "10s"),
        (58, "58s"),
        (59.6, "1m"),
        (160, "2m40s"),
        (360, "6m"),
        (3_599.7, "1h"),
        (3_900, "1h05m"),
        (86_400 * 3 + 4 * 3_600, "3d4h"),
        (86_400, "1d"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (360, "6m"), (26 * 3600, "26h"), (86_400 * 3, "3d")],
)
def test_ages_have_one_unit(seconds, text):
    assert formats.age(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (61, 119, "1-2m"),
        (40, 55, "40-55s"),
        (3, 3, "3s"),
        (0, 0, "1s"),
        (0, 0.5, "1s"),
        (0.2, 7, "<7s"),
        (30, 100, "<2m"),
        (3_600 * 2, 3_600 * 3, "2-3h"),
        (120, 120, "2m"),
        (86_400 * 3, 86_400 * 9, "3-9d"),
        (1, math.inf, "?"),
    ],
)
def test_an_eta_is_an_interval_in_one_unit(low, high, text):
    assert formats.eta(Eta(low, high), dash="-") == text


def test_an_eta_shrinks_while_its_view_grows_old():
    assert formats.eta(Eta(40, 55), passed_s=30, dash="-") == "10-25s"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (0.5, "0.5"),
        (999, "999"),
        (2_000, "2.0k"),
        (61_200, "61.2k"),
        (99_960, "100k"),
        (999_600, "1.0M"),
        (3_400_000, "3.4M"),
        (math.nan, "?"),
        (-2_500, "-2.5k"),
    ],
)
def test_amounts_have_three_digits(value, text):
    assert formats.amount(value) == text


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_has_a_short_text(value):
    assert len(formats.amount(value)) <= 24
    assert len(formats.rate(value)) <= 24
    if math.isfinite(value):
        assert len(formats.duration(min(value, 1e12))) <= 24


@given(st.floats(0, 1))
def test_only_what_is_done_reads_as_100_percent(ratio):
    assert (formats.percent(ratio) == "100%") <= (ratio > 0.99999)


@pytest.mark.parametrize(
    ("completed", "total", "unit", "text"),
    [
        (61_200, 120_000, "{row}", "61.2k/120k row"),
        (500, 1_000, None, "500/1000"),
        (12, None, "{row}", "12 row"),
        (3_400_000, 10_000_000, "By", "3.4MB/10.0MB"),
        (1, 2, "1", "1/2"),
    ],
)
def test_counts_name_their_unit(completed, total, unit, text):
    assert formats.counts(completed, total, unit) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(2_000, "2.0k/s"), (0, "0/s"), (0.6, "0.6/s"), (0.1, "6.0/min"), (0.001, "3.6/h"), (12.34, "12.3/s")],
)
def test_slow_rates_are_told_by_the_minute_or_hour(per_second, text):
    assert formats.rate(per_second) == text


def test_a_usual_interval_claims_no_precision():
    assert (formats.interval(8.0), formats.interval(0.3), formats.interval(160)) == ("8s", "0.3s", "2m40s")
