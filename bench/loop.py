"""P1 and P2: what a loop wrapper costs per item, and what it costs to set one up.

Every peer draws to a file that forgets, in its documented fastest form. otelprogress runs as `configure()` leaves
it: sampler, host, feed and history are alive; only the bar is off, as the peers' bars go nowhere either.
"""

from __future__ import annotations

import gc
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import otelprogress as progress
from bench.rows import Effort, Row, alternate, medians, over, row

ITEMS = 2_000_000
SHORT_ITEMS = 10


def run(effort: Effort) -> list[Row]:
    """All loop rows."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    progress.configure(view="off", integrations=())
    gc.disable()
    try:
        return [*sized(effort), *unsized(effort), *gated(effort), *set_up(effort)]
    finally:
        gc.enable()
        progress.shutdown()


def ns_per_item(make: Callable[[], Iterable[Any]], count: int) -> Callable[[], float]:
    """One timed pass: nanoseconds an item, set-up included (it is paid once in `count` items)."""

    def once() -> float:
        start = time.perf_counter_ns()
        for _ in make():
            pass
        return (time.perf_counter_ns() - start) / count

    return once


class Forgetful:
    """A text stream that keeps nothing and claims to be a terminal, so that peers do draw."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is held."""

    def isatty(self) -> bool:
        return True


def as_it_is(items: Iterable[Any]) -> Iterable[Any]:
    return items


def with_ours(items: Iterable[Any]) -> Iterable[Any]:
    return progress.track(items, "loop")


def with_tqdm(items: Iterable[Any]) -> Iterable[Any]:
    from tqdm import tqdm

    # Its FAQ: the default mininterval with dynamic miniters is the fast path; smoothing=0 saves the average.
    return tqdm(items, file=Forgetful(), smoothing=0)


def with_rich(items: Iterable[Any]) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    return track(items, console=Console(file=Path(os.devnull).open("w")), update_period=0.1)


def with_progressbar(items: Iterable[Any]) -> Iterable[Any]:
    import progressbar

    # Plain arguments take its fast path, counted by the C extension of `progressbar2[fast]`.
    return progressbar.progressbar(items, fd=Forgetful())


def sized(effort: Effort) -> list[Row]:
    """P1: iterables whose iterator knows its length."""
    count = ITEMS  # in the quick form too: set-up is paid once in so many
    numbers = list(range(count))
    shapes: dict[str, Any] = {
        "list": numbers,
        "tuple": tuple(numbers),
        "range": range(count),
        "dict": dict.fromkeys(numbers),
    }
    rows = []
    for name, items in shapes.items():
        contestants: dict[str, Callable[[], float]] = {
            "bare": ns_per_item(partial(as_it_is, items), count),
            "ours": ns_per_item(partial(with_ours, items), count),
        }
        if name == "list":
            contestants |= {
                "tqdm": ns_per_item(lambda: with_tqdm(numbers), count),
                "rich": ns_per_item(lambda: with_rich(numbers), count),
                "progressbar2[fast]": ns_per_item(lambda: with_progressbar(numbers), count),
            }
        samples = alternate(contestants, effort.rounds)
        cost = over(samples, "ours", "bare")
        rows.append(
            row(
                "P1",
                f"track({name}) over a bare loop",
                cost,
                "ns/item",
                "bare loop",
                medians(samples)["bare"],
                target="≤ 4 ns/item over the bare loop",
                met=cost <= 4,
            )
        )
        if name == "list":
            tqdm, rich, fast = (
                over(samples, peer, "bare") for peer in ("tqdm", "rich", "progressbar2[fast]")
            )
            rows += [
                row(
                    "P1",
                    "track(list), cost over a bare loop",
                    cost,
                    "ns/item",
                    "tqdm",
                    tqdm,
                    target="≤ 1/25 of tqdm",
                    met=cost <= tqdm / 25,
                ),
                row(
                    "P1",
                    "track(list), cost over a bare loop",
                    cost,
                    "ns/item",
                    "rich",
                    rich,
                    target="for comparison",
                    met=True,
                ),
                row(
                    "P1",
                    "track(list), cost over a bare loop",
                    cost,
                    "ns/item",
                    "progressbar2[fast]",
                    fast,
                    target="level: ≤ 1.25 times or within 1 ns",
                    met=cost <= max(1.25 * fast, fast + 1),
                ),
            ]
    return rows


def unsized(effort: Effort) -> list[Row]:
    """P2: any other iterable."""
    count = ITEMS  # in the quick form too: set-up is paid once in so many

    def numbers() -> Iterator[int]:
        yield from range(count)

    samples = alternate(
        {
            "bare": ns_per_item(numbers, count),
            "ours": ns_per_item(lambda: progress.track(numbers(), "loop", total=count), count),
            "tqdm": ns_per_item(lambda: with_tqdm(numbers()), count),
        },
        effort.rounds,
    )
    cost, tqdm = over(samples, "ours", "bare"), over(samples, "tqdm", "bare")
    return [
        row(
            "P2",
            "track(generator) over a bare loop",
            cost,
            "ns/item",
            "bare loop",
            medians(samples)["bare"],
            target="≤ 15 ns/item over the bare loop",
            met=cost <= 15,
        ),
        row(
            "P2",
            "track(generator), cost over a bare loop",
            cost,
            "ns/item",
            "tqdm",
            tqdm,
            target="≤ 1/8 of tqdm",
            met=cost <= tqdm / 8,
        ),
    ]


def gated(effort: Effort) -> list[Row]:
    """P2: a loop that can be cancelled and paused between two items."""
    count = ITEMS  # in the quick form too: set-up is paid once in so many
    numbers = list(range(count))

    def ours() -> float:
        with progress.operation("gated", controls=["cancel", "pause"]):
            return ns_per_item(lambda: progress.track(numbers), count)()

    samples = alternate(
        {
            "bare": ns_per_item(lambda: numbers, count),
            "ours": ours,
            "tqdm": ns_per_item(lambda: with_tqdm(numbers), count),
        },
        effort.rounds,
    )
    cost, tqdm = over(samples, "ours", "bare"), over(samples, "tqdm", "bare")
    return [
        row(
            "P2",
            "track(list) with controls over a bare loop",
            cost,
            "ns/item",
            "bare loop",
            medians(samples)["bare"],
            target="≤ 15 ns/item over the bare loop",
            met=cost <= 15,
        ),
        row(
            "P2",
            "track(list) with controls, cost over a bare loop",
            cost,
            "ns/item",
            "tqdm",
            tqdm,
            target="≤ 1/8 of tqdm",
            met=cost <= tqdm / 8,
        ),
    ]


def set_up(effort: Effort) -> list[Row]:
    """P2: a loop of ten items, many times: set-up and tear-down."""
    loops = effort.times(1_000)
    items = list(range(SHORT_ITEMS))

    def timed(make: Callable[[], Iterable[Any]], loops: int) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter_ns()
            for _ in range(loops):
                deque(make(), maxlen=0)
            return (time.perf_counter_ns() - start) / loops / 1e3

        return once

    def inside() -> float:
        with progress.operation("short loops"):
            return timed(lambda: progress.track(items), loops)()

    samples = alternate(
        {
            "bare": timed(lambda: items, loops),
            "ours": inside,
            "tqdm": timed(lambda: with_tqdm(items), loops),
            "rich": timed(lambda: with_rich(items), max(3, loops // 100)),
        },
        effort.rounds,
    )
    cost, tqdm, rich = (over(samples, name, "bare") for name in ("ours", "tqdm", "rich"))
    return [
        row(
            "P2",
            "set-up and tear-down of a 10-item loop in an operation",
            cost,
            "µs",
            "tqdm",
            tqdm,
            target="≤ 1/15 of tqdm",
            met=cost <= tqdm / 15,
        ),
        row(
            "P2",
            "set-up and tear-down of a 10-item loop in an operation",
            cost,
            "µs",
            "rich",
            rich,
            target="for comparison",
            met=True,
        ),
    ]
