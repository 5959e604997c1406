"""The bytes of all bodies under way."""

from __future__ import annotations

import pytest

from otelprogress_collector.host import Overloaded
from otelprogress_collector.receivers.rate import InFlight


def test_room_is_taken_and_given_back():
    in_flight = InFlight(100)
    with in_flight.body() as one, in_flight.body() as other:
        one.grow(60)
        other.grow(40)
        with pytest.raises(Overloaded) as caught:
            other.grow(1)
        assert 0 < caught.value.retry_after_s <= 5
        assert in_flight.now_bytes == 100
    assert in_flight.now_bytes == 0


def test_a_body_that_is_alone_always_fits():
    in_flight = InFlight(100)
    with in_flight.body() as one:
        one.grow(90)
        one.grow(90)
    assert in_flight.now_bytes == 0


def test_room_is_given_back_when_reading_fails():
    in_flight = InFlight(100)
    with pytest.raises(ValueError), in_flight.body() as one:
        one.grow(70)
        raise ValueError
    assert in_flight.now_bytes == 0
