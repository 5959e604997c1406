from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelprogress.protocol.window import Window


def test_without_a_limit_everything_may_be_sent_and_nothing_is_held():
    window = Window(0)
    for _ in range(3):
        assert not window.is_full()
        assert window.has_room(10**9)
        window.count(b"x" * 1000)
    assert window.outstanding_bytes == 0
    assert window.acknowledge(2) == 2
    assert window.acknowledge(2) == 0
    assert window.acknowledge(4) is None


def test_a_frame_that_is_too_long_passes_alone():
    window = Window(10)
    assert window.has_room(100)
    window.count(b"x" * 100)
    assert window.is_full()
    assert window.is_blocked
    assert not window.has_room(1)
    assert window.acknowledge(1) == 1
    assert not window.is_blocked
    assert window.has_room(1)


@given(st.integers(1, 50), st.lists(st.integers(0, 30) | st.none(), max_size=50))
def test_what_is_on_its_way_is_within_the_window_or_a_single_frame(window_bytes: int, moves: list):
    window = Window(window_bytes)
    on_its_way: list[int] = []
    acknowledged = 0
    for size in moves:
        if size is None:
            acknowledged += len(on_its_way)
            assert window.acknowledge(acknowledged) == len(on_its_way)
            on_its_way = []
        elif not window.is_full() and window.has_room(size):
            window.count(b"x" * size)
            on_its_way.append(size)
        assert window.outstanding_bytes == sum(on_its_way)
        assert sum(on_its_way) <= window_bytes or sum(1 for each in on_its_way if each) == 1
