"""How fast, how long still, and is it stuck: estimates from absolute counts. Pure; every time is an argument.

The rate is a time-decayed mean: gained items over passed seconds, both forgotten with the same time constant, so
that a burst of reports weighs by the time it covers and not by their number. The time constant adapts to slow
items. An ETA is an interval between what the recent and the lifelong rate say, wider while little was seen.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Final

import msgspec

from otelprogress.model.events import Eta

TIME_CONSTANT_S: Final = 15.0
"""Shortest memory of the rate."""
INTERVALS_REMEMBERED: Final = 5.0
"""The memory is at least this many usual intervals, for items slower than the time constant."""
INTERVAL_WEIGHT: Final = 0.2
"""Weight of a new interval in the usual one."""
INTERVAL_CAP: Final = 5.0
"""One interval counts at most as this many usual ones: a stall is no new habit."""
STALL_FLOOR_S: Final = 30.0
STALL_INTERVALS: Final = 5.0
STALL_DURATIONS: Final = 5.0
"""What has not counted yet may be silent for so many of its usual durations."""
STALL_HISTORY: Final = 3
"""Fewer durations than that say nothing of a stall."""
MAX_ETA_S: Final = 10 * 365 * 86_400.0
"""What would take longer has no ETA."""


class Baseline(msgspec.Struct, frozen=True, gc=False):
    """How long an operation, or one of its steps, took in earlier runs."""

    median_s: float
    low_s: float
    """Lower quartile."""
    high_s: float
    """Upper quartile."""
    count: int = 0
    """How many durations it is made of; 0: not said, so nothing is concluded from it but an ETA."""


class Estimator(msgspec.Struct, gc=False, omit_defaults=True):
    """The movement of one absolute count. Construct it with where and when counting began."""

    completed: float
    """The last count seen."""
    at_ns: int
    """When it was reached, by the writer's clock."""
    gained: float = 0.0
    """Items gained, decayed."""
    window_s: float = 0.0
    """Seconds passed, decayed likewise."""
    gained_ever: float = 0.0
    active_s: float = 0.0
    usual_interval_s: float | None = None
    moves: int = 0

    def observe(self, completed: float, time_unix_ns: int) -> bool:
        """Take in an absolute count; whether it moved. A count that went back starts a new comparison."""
        before = self.completed
        if completed == before:
            return False
        elapsed_s = (time_unix_ns - self.at_ns) / 1e9
        self.completed = completed
        self.at_ns = time_unix_ns
        if completed < before or elapsed_s < 0.0:
            return True
        gained = completed - before
        usual_s = self.usual_interval_s
        if elapsed_s > 0.0:
            if usual_s is None:
                self.usual_interval_s = usual_s = elapsed_s
            else:
                usual_s += INTERVAL_WEIGHT * (min(elapsed_s, INTERVAL_CAP * usual_s) - usual_s)
                self.usual_interval_s = usual_s
            memory_s = INTERVALS_REMEMBERED * usual_s
            decay = exp(-elapsed_s / (max(TIME_CONSTANT_S, memory_s)))
            self.gained *= decay
            self.window_s = self.window_s * decay + elapsed_s
            self.active_s += elapsed_s
        self.gained += gained
        self.gained_ever += gained
        self.moves += 1
        return True

    def resume(self, time_unix_ns: int) -> None:
        """Leave the time since the last move out: the run was waiting or paused."""
        self.at_ns = max(self.at_ns, time_unix_ns)

    def rate(self, silent_s: float = 0.0) -> float | None:
        """Items per second, `None` while unknown. Falls once it is `silent_s` longer than two usual intervals."""
        window_s = self.window_s
        if window_s <= 0.0:
            return None
        overdue_s = silent_s - 2.0 * (self.usual_interval_s or 0.0)
        return self.gained / (window_s + overdue_s if overdue_s > 0.0 else window_s)

    def eta(self, total: float, silent_s: float = 0.0) -> Eta | None:
        """Until `total` is reached, counted from `silent_s` after the last move; `None` while unknown."""
        rest = total - self.completed
        if rest <= 0.0:
            return Eta(0.0, 0.0)
        recent = self.rate(silent_s)
        if not recent or self.active_s <= 0.0:
            return None
        lifelong = self.gained_ever / self.active_s
        fast, slow = (recent, lifelong) if recent > lifelong else (lifelong, recent)
        doubt = 1.0 + 0.5 / sqrt(self.moves)
        if slow * MAX_ETA_S <= rest * doubt:
            return None
        return Eta(rest / fast / doubt, rest / slow * doubt)


def stall_after_s(explicit_s: float | None, estimator: Estimator | None) -> float | None:
    """After how long without movement a run counts as stalled; `None`: never.

    A value that the operation declares is taken as it is. Otherwise max(30 s, 5 usual intervals), and never for
    a count that did not move yet: nobody knows its pace.
    """
    if explicit_s is not None:
        return explicit_s
    if estimator is None or not estimator.moves:
        return None
    return max(STALL_FLOOR_S, STALL_INTERVALS * (estimator.usual_interval_s or 0.0))


def stall_after_history_s(baseline: Baseline | None) -> float | None:
    """The same for what has not counted yet, by how long it took before; `None`: nobody knows.

    max(30 s, five times the upper quartile) of at least three successful durations.
    """
    if baseline is None or baseline.count < STALL_HISTORY:
        return None
    return max(STALL_FLOOR_S, STALL_DURATIONS * baseline.high_s)


def eta_from_ratio(ratio: float | None, active_s: float) -> Eta | None:
    """Until the whole is done, when `ratio` of it took `active_s`; `None` while that says nothing."""
    if not ratio or active_s <= 0.0:
        return None
    if ratio >= 1.0:
        return Eta(0.0, 0.0)
    rest_s = active_s * (1.0 - ratio) / ratio
    # The first percents say little about the rest: half as long to thrice as long, closing in on +-10 %.
    low_s, high_s = rest_s / (1.1 + 0.9 * (1.0 - ratio)), rest_s * (1.1 + 1.9 * (1.0 - ratio) ** 2)
    return Eta(low_s, high_s) if high_s <= MAX_ETA_S else None


def eta_from_baseline(baseline: Baseline | None, active_s: float) -> Eta | None:
    """Until a run of the usual length is done; `None` without history, or when it took longer than ever."""
    if baseline is None or active_s >= baseline.high_s:
        return None
    return Eta(max(0.0, baseline.low_s - active_s), baseline.high_s - active_s)


def widest(first: Eta | None, second: Eta | None) -> Eta | None:
    """The interval that covers both; the other where one is unknown."""
    if first is None or second is None:
        return first or second
    return Eta(min(first.low_s, second.low_s), max(first.high_s, second.high_s))
