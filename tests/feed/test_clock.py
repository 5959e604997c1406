from __future__ import annotations

import pytest

from otelprogress.feed.clock import ManualClock, SystemClock


def test_the_system_clock_reads_nanoseconds_and_seconds():
    clock = SystemClock()
    assert clock.time_unix_ns() > 1_600_000_000_000_000_000
    assert clock.monotonic_s() <= clock.monotonic_s()


def test_a_manual_clock_moves_both_readings_together():
    clock = ManualClock(origin_unix_ns=10)
    clock.advance(1.5)
    assert (clock.time_unix_ns(), clock.monotonic_s()) == (1_500_000_010, 1.5)


def test_a_wall_clock_that_is_set_back_leaves_the_monotonic_reading():
    clock = ManualClock()
    before = clock.time_unix_ns()
    clock.jump(-3600)
    assert clock.time_unix_ns() == before - 3600 * 10**9
    assert clock.monotonic_s() == 0


def test_a_manual_clock_refuses_to_go_back():
    with pytest.raises(ValueError, match="jump"):
        ManualClock().advance(-1)
