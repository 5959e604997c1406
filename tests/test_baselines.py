from __future__ import annotations

from otelprogress import baselines
from otelprogress.baselines import KEPT_S, MAX_NAMES, Baselines


class Found:
    def of(self, step_name: str) -> str:
        return f"of {step_name!r}"


class Asked:
    def __init__(self, answer: Found | None) -> None:
        self.names: list[str] = []
        self.answer = answer

    def baseline(self, name: str) -> Found | None:
        self.names.append(name)
        return self.answer


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


def test_the_history_is_asked_once_a_minute_for_a_name(monkeypatch):
    clock, history = Clock(), Asked(Found())
    monkeypatch.setattr(baselines, "time", clock)
    known = Baselines(history)
    assert [known("", "load", ""), known("", "load", "copy")] == ["of ''", "of 'copy'"]
    clock.now_s = KEPT_S - 1
    known("", "load", "")
    assert history.names == ["load"]
    clock.now_s = KEPT_S
    known("", "load", "")
    assert history.names == ["load", "load"]


def test_what_is_not_known_is_not_asked_for_again_at_once_either():
    history = Asked(None)
    known = Baselines(history)
    assert [known("", "load", ""), known("", "load", "")] == [None, None]
    assert history.names == ["load"]


def test_names_without_end_take_no_memory_without_end():
    known = Baselines(Asked(None))
    for number in range(3 * MAX_NAMES):
        known("", f"load {number}", "")
    assert len(known._known) <= MAX_NAMES + 1
