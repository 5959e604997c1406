from __future__ import annotations

import pytest

from otelprogress import active, alive
from otelprogress.alive import Alive
from tests.recording import recording


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return int(self.now_s * 1e9)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(alive, "time", made)
    return made


def test_while_something_lives_a_sign_of_life_comes_each_third_of_the_lease(clock):
    with recording() as said:
        ins = active.current
        ins.lease_s = 30.0
        ins.live["a run"] = object()
        look = Alive(ins)
        for now_s in (100, 105, 110, 111, 119, 120, 121):
            clock.now_s = float(now_s)
            look()
        signs = said.of("writer.alive")
    assert [sign.time_unix_ns for sign in signs] == [110_000_000_000, 120_000_000_000]
    assert {(sign.writer_id, sign.lease_s) for sign in signs} == {(ins.writer_id, 30.0)}


def test_nothing_is_said_while_nothing_lives_nor_without_a_lease(clock):
    with recording() as said:
        ins = active.current
        look = Alive(ins)
        ins.lease_s = 30.0
        look()
        ins.lease_s, ins.live["a run"] = None, object()
        look()
        clock.now_s += 1_000
        look()
    assert said.events == []
