"""The shared log of durable events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.protocol.journal import Entry, Ring


def entry(number: int) -> Entry:
    return Entry(str(number).encode(), number, None, None)  # type: ignore[arg-type]  # facts do not matter to the ring


def test_an_empty_ring_resumes_at_its_beginning_only():
    ring = Ring(4)
    assert (ring.head, ring.first, len(ring)) == (0, 1, 0)
    assert ring.can_resume(0)
    assert not ring.can_resume(1)
    assert list(ring.read(0)) == []


@given(st.integers(1, 9), st.integers(0, 40))
def test_it_holds_the_newest_entries_in_order(capacity: int, count: int):
    ring = Ring(capacity)
    for number in range(1, count + 1):
        assert ring.append(entry(number)) == number
    assert len(ring) == min(capacity, count)
    for position in range(count + 3):
        kept = max(0, count - capacity) <= position <= count
        assert ring.can_resume(position) is kept
        if kept:
            read = [(offset, item.revision) for offset, item in ring.read(position)]
            assert read == [(number, number) for number in range(position + 1, count + 1)]
        else:
            with pytest.raises(LookupError):
                list(ring.read(position))


def test_a_ring_without_room_is_refused():
    with pytest.raises(ValueError, match="room"):
        Ring(0)
