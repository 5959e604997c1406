from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model.timetable import BUCKET_BITS, Timetable


def test_an_empty_timetable_waits_for_nothing():
    assert Timetable().next_unix_ns() is None
    assert Timetable().due(10**18) == []


@given(st.lists(st.integers(0, 10**12), min_size=1), st.integers(0, 10**12))
def test_nothing_due_is_left_and_nothing_comes_more_than_a_bucket_early(deadlines, now):
    timetable = Timetable()
    for position, deadline in enumerate(deadlines):
        timetable.add(deadline, str(position))
    due = {deadlines[int(name)] for name in timetable.due(now)}
    assert {deadline for deadline in deadlines if deadline <= now} <= due
    assert all(deadline < now + (1 << BUCKET_BITS) for deadline in due)
    rest = [deadline for deadline in deadlines if deadline not in due]
    following = timetable.next_unix_ns()
    assert (following is None) == (not rest)
    if following is not None:
        assert min(rest) <= following < min(rest) + (1 << BUCKET_BITS)
