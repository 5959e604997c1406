"""Instrumentation that keeps what operations say, in memory and in order: no host, no thread, unless asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from otelprogress import active
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.otel.emitter import ProgressEmitter
from otelprogress.otel.provider import ProviderBinding
from otelprogress.otel.span_processor import ProgressSpanProcessor
from otelprogress.sampler import Sampler


class Recording:
    """Everything that was said while it was active."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def kinds(self) -> list[str]:
        return [event.kind.removeprefix(semconv.PREFIX) for event in self.events]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == semconv.PREFIX + kind]

    def started(self, name: str) -> Event:
        (event,) = [event for event in self.of("operation.started") if event.name == name]
        return event

    def ended(self, name: str) -> Event:
        run_id = self.started(name).run_id
        (event,) = [event for event in self.of("operation.ended") if event.run_id == run_id]
        return event


@contextmanager
def recording(*, strict: bool = False, sampler: Sampler | None = None) -> Iterator[Recording]:
    kept = Recording()
    instrumentation = active.Instrumentation(
        emitter=ProgressEmitter(kept.events.append),
        binding=ProviderBinding(span_processor=ProgressSpanProcessor()),
        submit=kept.events.append,
        sampler=sampler,
        strict=strict,
    )
    if sampler is not None:
        sampler.bind(instrumentation)
    before, active.current = active.current, instrumentation
    active.misuses.clear()
    active._warned_at.clear()
    try:
        yield kept
    finally:
        active.current = before
        if sampler is not None:
            sampler.close()
        instrumentation.binding.shutdown(0)
