"""P9: from an update to a client, through the collector: OTLP, `disk`, ten thousand events a second.

At a fixed pace: what the collector is late with counts as latency. Where it cannot keep the pace, further rows say what it
does at four fifths of what it kept.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

from bench import served
from bench.fanout import to_collector, to_nats
from bench.feed_load import Readers
from bench.publishers import Publisher
from bench.rows import Effort, Row, percentile, row

PACE_HZ = 10_000
BATCH = 100
CLIENTS = 1
DURATION_S = 6.0
PATIENCE_S = 5.0


def run(effort: Effort) -> list[Row]:
    """p50 and p99, at the pace that is asked for and at one that it can keep."""
    served.take_load_core()
    rounds = 1 if effort.scale < 1 else 3
    duration_s = effort.scale * DURATION_S
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-endtoend-") as name:
        folder = Path(name)
        ours = [through_collector(folder, PACE_HZ, duration_s) for _ in range(rounds)]
        peer = [through_nats(folder, PACE_HZ, duration_s) for _ in range(rounds)]
        rows = rows_of(PACE_HZ, ours, peer)
        kept = median(rate for rate, _ in ours)
        if kept < 0.98 * PACE_HZ:
            pace = max(100, int(0.8 * kept) // 100 * 100)
            rows += rows_of(
                pace,
                [through_collector(folder, pace, duration_s) for _ in range(rounds)],
                [through_nats(folder, pace, duration_s) for _ in range(rounds)],
                note=f" (it kept {kept:,.0f} of {PACE_HZ:,} events/s)",
            )
    return rows


Measured = tuple[float, list[float]]


def rows_of(pace: int, ours: list[Measured], peer: list[Measured], *, note: str = "") -> list[Row]:
    """The two rows of one pace."""
    rows = []
    for name, share, limit in (("p50", 0.5, 30), ("p99", 0.99, 150)):
        measured = percentile([one for _, values in ours for one in values], share)
        rows.append(
            row(
                "P9",
                f"update to client through the collector at {pace:,} events/s, {name}{note}",
                measured,
                "ms",
                "nats-server, which keeps nothing",
                percentile([one for _, values in peer for one in values], share),
                target=f"≤ {limit} ms at {PACE_HZ:,} events/s",
                met=measured <= limit and pace == PACE_HZ and not note,
            )
        )
    return rows


def through_collector(folder: Path, pace_hz: int, duration_s: float) -> Measured:
    with to_collector(folder, CLIENTS, CLIENTS) as (readers, publisher):
        return paced(readers, publisher, pace_hz, duration_s)


def through_nats(folder: Path, pace_hz: int, duration_s: float) -> Measured:
    with to_nats(folder, CLIENTS, CLIENTS) as (readers, publisher):
        return paced(readers, publisher, pace_hz, duration_s)


def paced(readers: Readers, publisher: Publisher, pace_hz: int, duration_s: float) -> Measured:
    """Events a second that arrived, and the milliseconds of each."""
    readers.settle()
    batches = int(pace_hz * duration_s / BATCH)
    began_s = time.perf_counter()
    for number in range(batches):
        publisher.publish(BATCH)
        due_s = began_s + (number + 1) * BATCH / pace_hz
        while True:
            left_s = due_s - time.perf_counter()
            publisher.attend(readers.read(max(0.0, left_s)))
            if left_s <= 0:
                break
    wanted = batches * BATCH * len(readers)
    until_s = time.perf_counter() + PATIENCE_S
    while readers.events < wanted and time.perf_counter() < until_s:
        publisher.attend(readers.read(0.1))
    return readers.events / len(readers) / (time.perf_counter() - began_s), readers.latencies_ms
