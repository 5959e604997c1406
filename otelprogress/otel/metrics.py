"""The metrics of `conventions.md`, through the metrics API; recorded on the host's thread, never the application's.

`ProgressMetrics` listens to a host. Dimensions are operation name, step name, outcome and `error.type`, never an id
or a title; exemplars link to the trace, because each value is recorded in a context made of the event's ids.

Instruments come from the application's MeterProvider when it has one. If it has none, a private one is made only
where a sender takes metrics; else they are the API's, which do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics as metrics_api
from opentelemetry.context import Context
from opentelemetry.metrics import Meter, NoOpMeterProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.otel import global_providers

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider

    from otelprogress.model.tree import Applied
    from otelprogress.otel.sender import Sender

_MAX_RUNS: Final = 100_000
"""Runs remembered at once. Of more, the oldest are forgotten: their duration is not recorded."""
_BOUNDARIES_S: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400)
"""Operations last from a moment to a day; the SDK's defaults end at 10 s."""


class _Run:
    __slots__ = ("completed", "name", "stalled", "started_unix_ns", "steps")

    def __init__(self, name: str, started_unix_ns: int) -> None:
        self.name = name
        self.started_unix_ns = started_unix_ns
        self.stalled = False
        self.steps: dict[int, int] = {}
        """Index → start of the steps that are open."""
        self.completed: dict[int, float] = {}
        """Index → items counted so far, the initial ones left out; -1: of the operation itself."""


class ProgressMetrics:
    """See the module.

    Args:
        sender: takes the metrics of the private MeterProvider; `None`: there is none.
        version: of otelprogress.
        resource: attributes for the private provider.
    """

    def __init__(
        self,
        *,
        sender: Sender | None = None,
        version: str = "",
        resource: Mapping[str, Any] | None = None,
    ) -> None:
        self._sender = sender
        self._version = version
        self._resource = dict(resource or {})
        self._runs: dict[str, _Run] = {}
        self._private: SdkMeterProvider | None = None
        self._provider: Any = None
        self._instruments: _Instruments | None = None
        self.errors = 0
        """Recordings that went wrong."""

    def __call__(self, applied: Sequence[Applied]) -> None:
        """Listen to a host: `host.add_listener(metrics)`."""
        for one in applied:
            self.record(one.source)

    def record(self, event: Event) -> None:
        """Record what one event means. Never raises; safe to be given an event twice only for counts."""
        try:
            self._record(event)
        except Exception:
            self.errors += 1

    def shutdown(self) -> None:
        """Close the private MeterProvider. The sender collects the last values first, at its own shutdown."""
        if self._private is not None:
            self._private.shutdown()

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's runs and its private provider."""
        self._runs = {}
        self._private = None
        self._provider = None
        self._instruments = None

    # --- inside -------------------------------------------------------------------------------------------

    def _record(self, event: Event) -> None:
        kind = event.kind
        if kind == semconv.OPERATION_STARTED:
            self._started(event)
            return
        run = self._runs.get(event.run_id)
        if run is None:
            return
        if kind == semconv.STEP_STARTED and event.step_index is not None:
            run.steps[event.step_index] = event.time_unix_ns
        self._count(run, event)
        if kind == semconv.STEP_ENDED and event.step_index is not None:
            self._step_ended(run, event)
        elif kind == semconv.OPERATION_STATE_CHANGED and event.stalled is not None:
            if event.stalled and not run.stalled:
                self._now().stalled.add(1, {semconv.OPERATION_NAME: run.name}, context=_context_of(event))
            run.stalled = event.stalled
        elif kind == semconv.OPERATION_ENDED:
            self._ended(run, event)

    def _started(self, event: Event) -> None:
        if event.run_id in self._runs:
            return
        name = event.name or "unknown"
        self._runs[event.run_id] = _Run(name, event.start_unix_ns or event.time_unix_ns)
        if len(self._runs) > _MAX_RUNS:
            forgotten = self._runs.pop(next(iter(self._runs)))
            self._now().active.add(-1, {semconv.OPERATION_NAME: forgotten.name})
        self._now().active.add(1, {semconv.OPERATION_NAME: name}, context=_context_of(event))

    def _count(self, run: _Run, event: Event) -> None:
        if event.completed is None:
            return
        index = event.step_index if event.step_index is not None else -1
        before = run.completed.get(index, event.initial or 0.0)
        if event.completed > before:
            run.completed[index] = event.completed
            self._now().items.add(
                event.completed - before,
                _said({semconv.OPERATION_NAME: run.name}, event.step_name, event.unit),
                context=_context_of(event),
            )

    def _step_ended(self, run: _Run, event: Event) -> None:
        started = run.steps.pop(event.step_index if event.step_index is not None else -1, None)
        if started is None:
            return
        said = _said({semconv.OPERATION_NAME: run.name}, event.step_name)
        if event.step_state is not None:
            said[semconv.STEP_STATE] = event.step_state.value
        self._now().step_duration.record(
            max(0.0, (event.time_unix_ns - started) / 1e9),
            said,
            context=_context_of(event),
        )

    def _ended(self, run: _Run, event: Event) -> None:
        del self._runs[event.run_id]
        instruments, context = self._now(), _context_of(event)
        instruments.active.add(-1, {semconv.OPERATION_NAME: run.name}, context=context)
        said = {semconv.OPERATION_NAME: run.name}
        if event.state is not None:
            said[semconv.OPERATION_STATE] = event.state.value
        if event.error_type is not None:
            said[semconv.ERROR_TYPE] = event.error_type
        instruments.duration.record(
            max(0.0, (event.time_unix_ns - run.started_unix_ns) / 1e9),
            said,
            context=context,
        )

    def _now(self) -> _Instruments:
        """The instruments of the application's provider, or of the private one."""
        provider = global_providers.meter_provider()
        if self._instruments is None or provider is not self._provider:
            self._provider = provider
            chosen = provider if provider is not None else self._private_provider()
            self._instruments = _Instruments(chosen.get_meter(semconv.SCOPE_NAME, self._version))
        return self._instruments

    def _private_provider(self) -> metrics_api.MeterProvider:
        if self._private is None and self._sender is not None and self._sender.sends("metrics"):
            from otelprogress.otel.private_metrics import make_meter_provider

            self._private = make_meter_provider(self._sender, self._resource)
        return self._private if self._private is not None else NoOpMeterProvider()


class _Instruments:
    def __init__(self, meter: Meter) -> None:
        self.duration = _histogram(meter, semconv.METRIC_OPERATION_DURATION, "How long operations took.")
        self.step_duration = _histogram(meter, semconv.METRIC_STEP_DURATION, "How long steps took.")
        self.active = meter.create_up_down_counter(
            semconv.METRIC_OPERATION_ACTIVE,
            "{operation}",
            "Operations that started and have not ended.",
        )
        self.stalled = meter.create_counter(
            semconv.METRIC_OPERATION_STALLED,
            "{operation}",
            "How often operations were found alive but not moving.",
        )
        self.items = meter.create_counter(
            semconv.METRIC_ITEMS, "{item}", "Items completed; their unit is an attribute."
        )


def _histogram(meter: Meter, name: str, description: str) -> metrics_api.Histogram:
    try:
        return meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=_BOUNDARIES_S
        )
    except TypeError:  # a meter that is not of the SDK may not know the advisory
        return meter.create_histogram(name, "s", description)


def _said(said: dict[str, str], step_name: str | None, unit: str | None = None) -> dict[str, str]:
    if step_name:
        said[semconv.STEP_NAME] = step_name
    if unit:
        said[semconv.ITEMS_UNIT] = unit
    return said


def _context_of(event: Event) -> Context:
    """A context of the event's span, from its ids: the thread that records has another one, or none."""
    flags = TraceFlags(TraceFlags.SAMPLED if event.sampled else TraceFlags.DEFAULT)
    ids = SpanContext(int(event.trace_id, 16), int(event.span_id, 16), is_remote=False, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(ids), Context())
