"""One row of the table, and how samples become one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import msgspec


class Row(msgspec.Struct, kw_only=True):
    """One comparison. `ratio` is `measured / peer_measured`; `target` says in words what `met` decided."""

    id: str
    what: str
    measured: float
    unit: str
    peer: str
    peer_measured: float
    ratio: float
    target: str
    met: bool


class Effort(msgspec.Struct, frozen=True):
    """How long to measure: `--quick` takes fewer and shorter rounds of the same things."""

    rounds: int
    scale: float

    def times(self, count: int) -> int:
        """`count`, scaled; at least 1."""
        return max(1, int(count * self.scale))


QUICK = Effort(rounds=5, scale=0.2)
FULL = Effort(rounds=11, scale=1.0)


def row(  # noqa: PLR0917 - a row of a table reads best in its columns' order
    number: str,
    what: str,
    measured: float,
    unit: str,
    peer: str,
    peer_measured: float,
    *,
    target: str,
    met: bool,
) -> Row:
    """A row with its ratio worked out."""
    ratio = measured / peer_measured if peer_measured else float("inf")
    return Row(
        id=number,
        what=what,
        measured=measured,
        unit=unit,
        peer=peer,
        peer_measured=peer_measured,
        ratio=ratio,
        target=target,
        met=met,
    )


def alternate(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let everyone run in turn, `rounds` times, so that drift of the machine hits all alike. One warm-up each."""
    for run in contestants.values():
        run()
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            samples[name].append(run())
    return samples


def medians(samples: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each contestant."""
    return {name: statistics.median(values) for name, values in samples.items()}


def over(samples: Mapping[str, list[float]], name: str, base: str) -> float:
    """The median of `name` minus `base`, taken round by round: what one costs over the other."""
    return statistics.median(a - b for a, b in zip(samples[name], samples[base], strict=True))


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of all lie, nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def markdown(rows: list[Row]) -> str:
    """The table for people."""
    lines = ["| id | what | measured | peer | ratio | target | met |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r.id} | {r.what} | {r.measured:.4g} {r.unit} | {r.peer}: {r.peer_measured:.4g} {r.unit} | {r.ratio:.3g} | {r.target} | {'yes' if r.met else '**no**'} |"
        for r in rows
    ]
    return "\n".join(lines)
