"""P4: what our span processor costs a span that is no operation."""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import otelprogress as progress
from bench.rows import Effort, Row, alternate, medians, over, row

SPANS = 20_000


def run(effort: Effort) -> list[Row]:
    """Start and end of a span that no rule matches, with the processor bound to a live feed."""
    progress.configure(view="off", integrations=())
    rules = [progress.SpanRule(name="import *", root_only=True, children="steps")]
    try:
        count = effort.times(SPANS)
        samples = alternate(
            {
                "plain": timed(count, None),
                "no-op": timed(count, SpanProcessor()),
                "ours": timed(count, progress.ProgressSpanProcessor(rules=rules)),
            },
            effort.rounds,
        )
    finally:
        progress.shutdown()
    cost, floor = over(samples, "ours", "plain"), over(samples, "no-op", "plain")
    return [
        row(
            "P4",
            "our processor, over plain OTel",
            cost,
            "µs",
            "span start+end, plain OTel",
            medians(samples)["plain"],
            target="≤ 0.5 µs",
            met=cost <= 0.5,
        ),
        row(
            "P4",
            "our processor, over plain OTel",
            cost,
            "µs",
            "a processor that does nothing",
            floor,
            target="for comparison",
            met=True,
        ),
    ]


def timed(count: int, processor: SpanProcessor | None) -> Callable[[], float]:
    """µs per span over `count` spans."""
    provider = TracerProvider(shutdown_on_exit=False)
    if processor is not None:
        provider.add_span_processor(processor)
    tracer = provider.get_tracer("bench")

    def once() -> float:
        start = time.perf_counter_ns()
        for _ in range(count):
            tracer.start_span("SELECT").end()
        return (time.perf_counter_ns() - start) / count / 1e3

    return once
