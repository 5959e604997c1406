"""P3: what one call costs the thread that makes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import otelprogress as progress
from bench.loop import with_tqdm
from bench.rows import Effort, Row, alternate, medians, over, row
from otelprogress.model import semconv

CALLS = 200_000
STEPS = 2_000


class ForgetfulLogExporter(LogRecordExporter):
    """Takes every batch and keeps nothing."""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Nowhere:
    """A text stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is held."""


def run(effort: Effort) -> list[Row]:
    """`advance()` and `step()`, in an application that has its own providers, both with batch processors."""
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=Nowhere())))  # type: ignore[arg-type] # write and flush are all it uses
    trace.set_tracer_provider(tracers)
    loggers = LoggerProvider()
    loggers.add_log_record_processor(BatchLogRecordProcessor(ForgetfulLogExporter()))
    _logs.set_logger_provider(loggers)
    progress.configure(view="off", integrations=())
    try:
        return [*advancing(effort), *stepping(effort)]
    finally:
        progress.shutdown()


def advancing(effort: Effort) -> list[Row]:
    """`step.advance()` on the step at hand, and `progress.advance()`, which first finds the current one."""
    count = effort.times(CALLS)

    def timed(call: Callable[[], object]) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter_ns()
            for _ in range(count):
                call()
            return (time.perf_counter_ns() - start) / count / 1e3

        return once

    with progress.operation("advance"), progress.step("count") as step:
        bar = with_tqdm(range(count * (effort.rounds + 2)))
        samples = alternate(
            {
                "bare": timed(lambda: None),
                "step.advance": timed(step.advance),
                "progress.advance": timed(progress.advance),
                "tqdm.update": timed(bar.update),  # type: ignore[attr-defined] # a tqdm, typed as what it iterates
            },
            effort.rounds,
        )
    tqdm = medians(samples)["tqdm.update"]
    own, current = medians(samples)["step.advance"], medians(samples)["progress.advance"]
    return [
        row("P3", "step.advance()", own, "µs", "tqdm.update()", tqdm, target="≤ 0.15 µs", met=own <= 0.15),
        row(
            "P3",
            "progress.advance()",
            current,
            "µs",
            "tqdm.update()",
            tqdm,
            target="≤ 0.15 µs",
            met=current <= 0.15,
        ),
    ]


def stepping(effort: Effort) -> list[Row]:
    """`with step(name)` against the plain OpenTelemetry calls that say the same: two span events, two log events."""
    count = effort.times(STEPS)
    names = [f"step {index % 20}" for index in range(count)]
    tracer, logger = trace.get_tracer("bench"), _logs.get_logger("bench")

    def plain() -> float:
        with tracer.start_as_current_span("plain") as span:
            start = time.perf_counter_ns()
            for index, name in enumerate(names):
                said: dict[str, str | int] = {
                    semconv.STEP_NAME: name,
                    semconv.STEP_INDEX: index % 20,
                    semconv.STEP_STATE: "running",
                }
                span.add_event(semconv.STEP_STARTED, said)
                logger.emit(event_name=semconv.STEP_STARTED, attributes=said, timestamp=time.time_ns())
                said = {
                    semconv.STEP_NAME: name,
                    semconv.STEP_INDEX: index % 20,
                    semconv.STEP_STATE: "succeeded",
                }
                span.add_event(semconv.STEP_ENDED, said)
                logger.emit(event_name=semconv.STEP_ENDED, attributes=said, timestamp=time.time_ns())
            return (time.perf_counter_ns() - start) / count / 1e3

    def ours() -> float:
        with progress.operation("ours"):
            start = time.perf_counter_ns()
            for name in names:
                with progress.step(name):
                    pass
            return (time.perf_counter_ns() - start) / count / 1e3

    samples = alternate({"plain": plain, "ours": ours}, effort.rounds)
    middle = medians(samples)
    ratio = over(samples, "ours", "plain") / middle["plain"] + 1
    return [
        row(
            "P3",
            "step() enter and exit, feed on",
            middle["ours"],
            "µs",
            "2 add_event + 2 Logger.emit",
            middle["plain"],
            target="≤ 1.5 times the OTel calls it makes",
            met=ratio <= 1.5,
        )
    ]
