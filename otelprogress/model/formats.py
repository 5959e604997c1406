"""Numbers as people read them: durations, amounts, rates. Pure; the same in the terminal, in tables and in digests.

Durations are seconds, ratios 0 to 1. Nothing here is longer than 24 characters.
"""

from __future__ import annotations

import math
from typing import Final

from otelprogress.model.events import Eta
from otelprogress.model.text import clean

EN_DASH: Final = "\u2013"
MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
_SUFFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_MAX_UNIT_CHARS: Final = 16
_EXACT_BELOW: Final = 10_000
BYTES: Final = "By"
"""UCUM's name of a byte."""


def duration(seconds: float) -> str:
    """`3.2s`, `58s`, `2m40s`, `6m`, `1h05m`, `3d4h`: the two largest units."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole}s"
    if whole < HOUR_S:
        minutes, rest = divmod(whole, MINUTE_S)
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    if whole < DAY_S:
        hours, rest = divmod(whole // MINUTE_S, MINUTE_S)
        return f"{hours}h{rest:02d}m" if rest else f"{hours}h"
    days, rest = divmod(whole // HOUR_S, 24)
    return f"{days}d{rest}h" if rest else f"{days}d"


def interval(seconds: float) -> str:
    """`8s`, `0.3s`, `2m40s`: a usual duration, without a precision that it does not have."""
    return f"{seconds:.2g}s" if seconds < 1 else duration(round(seconds)).replace(".0s", "s")


def age(seconds: float) -> str:
    """`45s`, `6m`, `26h`, `3d`: one unit, rounded down."""
    seconds = max(0.0, seconds)
    if seconds < 2 * MINUTE_S:
        return f"{int(seconds)}s"
    if seconds < 2 * HOUR_S:
        return f"{int(seconds // MINUTE_S)}m"
    if seconds < 2 * DAY_S:
        return f"{int(seconds // HOUR_S)}h"
    return f"{int(seconds // DAY_S)}d"


def eta(interval: Eta, *, passed_s: float = 0.0, dash: str = EN_DASH) -> str:
    """`40-55s`, `1-2m`, `<2m`, `3h`: when the rest is done, from an interval that is `passed_s` old."""
    low, high = max(0.0, interval.low_s - passed_s), max(0.0, interval.high_s - passed_s)
    for unit_s, name, limit_s in (
        (1, "s", 90),
        (MINUTE_S, "m", 90 * MINUTE_S),
        (HOUR_S, "h", 48 * HOUR_S),
        (DAY_S, "d", math.inf),
    ):
        if high < limit_s or math.isinf(limit_s):
            if not math.isfinite(high):
                return "?"
            first, last = math.floor(low / unit_s), max(1, math.ceil(high / unit_s))
            if first < 1:
                return f"<{last}{name}" if last > 1 or name != "s" else "1s"
            return f"{last}{name}" if first == last else f"{first}{dash}{last}{name}"
    raise AssertionError("the last limit is infinite")  # pragma: no cover


def percent(ratio: float) -> str:
    """`67%`, rounded down, so that 100% means done."""
    return f"{math.floor(min(1.0, max(0.0, ratio)) * 100 + 1e-9)}%"


def amount(value: float) -> str:
    """`7`, `0.5`, `999`, `2.0k`, `61.2k`, `120k`, `3.4M`: three digits."""
    if not math.isfinite(value):
        return "?"
    magnitude = abs(value)
    if magnitude < 1_000:
        return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"
    for suffix in _SUFFIXES[1:]:
        magnitude /= 1_000
        value /= 1_000
        if magnitude < 99.95:
            return f"{value:.1f}{suffix}"
        if magnitude < 999.5:
            return f"{value:.0f}{suffix}"
    return f"{value:.2g}{_SUFFIXES[-1]}"


def _count(value: float) -> str:
    return f"{value:.0f}" if abs(value) < _EXACT_BELOW and float(value).is_integer() else amount(value)


def unit_name(unit: str | None) -> str:
    """`{row}` as `row`; nothing for `None` and for the plain `1`."""
    if not unit or unit == "1":
        return ""
    return clean(unit.strip("{}"), _MAX_UNIT_CHARS)


def counts(completed: float, total: float | None, unit: str | None) -> str:
    """`61.2k/120k row`, `500/1000 row`, `3.4MB/10MB`: what can be counted by eye is exact."""
    mark = "B" if unit == BYTES else ""
    done = _count(completed) + mark
    if total is not None:
        done += f"/{_count(total)}{mark}"
    name = "" if mark else unit_name(unit)
    return f"{done} {name}" if name else done


def rate(per_second: float, unit: str | None = None) -> str:
    """`2.0k/s`, `3.4MB/s`; slow ones by the minute or the hour."""
    mark = "B" if unit == BYTES else ""
    if per_second <= 0 or not math.isfinite(per_second):
        return f"0{mark}/s"
    if per_second >= 0.5:
        return f"{amount(round(per_second, 1))}{mark}/s"
    if per_second * MINUTE_S >= 0.5:
        return f"{per_second * MINUTE_S:.1f}{mark}/min"
    return f"{per_second * HOUR_S:.1f}{mark}/h"
