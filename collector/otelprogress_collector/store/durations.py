"""How long things took: which durations are kept, and what follows from them. Pure; both stores use it."""

from __future__ import annotations

import math
import statistics
from bisect import insort
from collections.abc import Iterable
from typing import Final, NamedTuple

from otelprogress.model.estimate import Baseline
from otelprogress.model.events import State
from otelprogress_collector.store.interface import Duration

KEPT_DURATIONS: Final = 100
"""Of one operation or step."""
KEPT_NAMES: Final = 20_000
"""Operations and steps whose durations are kept, at most some 40 MB. Beyond that those go that ended longest ago."""
FORGOTTEN_AT_ONCE: Final = 1_000
"""So many names go when there are too many, so that a flood of names does not pay for it at each of them."""
MIN_FOR_BASELINE: Final = 3

Key = tuple[str, str, str]
"""Tenant, name, step name (empty: the operation itself)."""


class Took(NamedTuple):
    """One duration; the order of these is the order in which they are forgotten."""

    ended_at_unix_ns: int
    duration_s: float


def by_key(durations: Iterable[Duration]) -> dict[Key, list[Took]]:
    """Those that count, by whose they are."""
    found: dict[Key, list[Took]] = {}
    for one in durations:
        if one.outcome == State.SUCCEEDED and math.isfinite(one.duration_s) and one.duration_s >= 0.0:
            took = Took(one.ended_at_unix_ns, one.duration_s)
            found.setdefault((one.tenant, one.name, one.step_name), []).append(took)
    return found


def merged(kept: Iterable[Took], new: Iterable[Took]) -> list[Took]:
    """What is kept of both, the one that ended first at the front."""
    durations = list(kept)
    for took in new:
        insort(durations, took)
    return durations[-KEPT_DURATIONS:]


def baseline_of(kept: Iterable[Took]) -> Baseline | None:
    """Median and quartiles; `None`: too few to say."""
    durations_s = [took.duration_s for took in kept]
    if len(durations_s) < MIN_FOR_BASELINE:
        return None
    low_s, median_s, high_s = statistics.quantiles(durations_s, n=4, method="inclusive")
    return Baseline(median_s, low_s, high_s, len(durations_s))
