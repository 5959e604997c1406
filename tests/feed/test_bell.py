from __future__ import annotations

import select

from otelprogress.feed.bell import Bell


def rings(bell: Bell) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def test_it_rings_until_it_is_hushed_however_often_it_was_rung():
    bell = Bell()
    assert not rings(bell)
    for _ in range(100_000):  # more than a socket holds
        bell.ring()
    assert rings(bell)
    while rings(bell):
        bell.hush()
    bell.hush()
    bell.ring()
    assert rings(bell)
    bell.close()


def test_a_bell_that_is_closed_is_rung_in_vain():
    bell = Bell()
    bell.close()
    bell.ring()
    bell.hush()
    bell.close()
    assert bell.fileno() == -1
