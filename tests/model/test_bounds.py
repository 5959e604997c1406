from __future__ import annotations

from otelprogress.model.bounds import Repairs, repaired
from tests.model.saying import T0, S, Saying


def test_an_event_in_order_is_the_same_object():
    repairs = Repairs()
    for event in (Saying().started(), Saying().tick(1, 5, 10)):
        assert repaired(event, T0, repairs) is event
    assert (repairs.numbers, repairs.times) == (0, 0)


def test_a_bad_number_leaves_the_rest_of_its_event():
    repairs = Repairs()
    event = repaired(Saying().tick(1, float("nan"), 10), T0, repairs)
    assert (event.completed, event.total, repairs.numbers) == (None, 10, 1)


def test_a_clock_may_be_a_day_ahead_but_no_more():
    repairs = Repairs()
    assert repaired(Saying().tick(86_000), T0, repairs).time_unix_ns == T0 + 86_000 * S
    assert repaired(Saying().tick(90_000), T0, repairs).time_unix_ns == T0
    assert repairs.times == 1
