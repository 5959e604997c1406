from __future__ import annotations

import pytest

from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.waits import MAX_GIVEN, Given, Places


def test_a_place_is_given_back_however_the_wait_ends():
    places = Places(per_viewer=1)
    with pytest.raises(ZeroDivisionError), places.take("ada"):
        assert len(places) == 1
        raise ZeroDivisionError
    assert len(places) == 0
    with places.take("ada"):
        pass


def test_one_viewer_cannot_take_the_places_of_another():
    places = Places(per_viewer=2)
    with places.take("ada"), places.take("ada"):
        with pytest.raises(Refusal, match="too many waits: 2 of yours"), places.take("ada"):
            pass
        with places.take("grace"):
            assert len(places) == 3


def test_all_together_have_a_bound_too():
    places = Places(in_all=1, what="subscriptions")
    with places.take("ada"):
        with pytest.raises(Refusal, match="too many subscriptions: 1 are open here"), places.take("grace"):
            pass


def test_how_long_ago_a_position_was_given_is_remembered_by_viewer():
    now_s = 0.0
    given = Given(lambda: now_s)
    given.give("ada", "kq1")
    now_s = 45.0
    assert given.elapsed_s("ada", "kq1") == 45.0
    assert given.elapsed_s("grace", "kq1") is None
    given.give("ada", "kq1")
    now_s = 50.0
    assert given.elapsed_s("ada", "kq1") == 5.0


def test_what_is_remembered_has_a_bound():
    given = Given(lambda: 0.0)
    for number in range(MAX_GIVEN + 1):
        given.give("ada", f"kq{number}")
    assert given.elapsed_s("ada", "kq0") is None
    assert given.elapsed_s("ada", f"kq{MAX_GIVEN}") == 0.0
