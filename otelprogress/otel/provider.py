"""Which TracerProvider our operations use: the application's when it has one, else a private one of ours.

We never set a global provider: a later `set_tracer_provider()` of the application would be refused and its
exporter would see nothing. So the application's providers are looked for at every operation's start and when
they are set, and our processors are attached to them once. Only an operation that starts while there is none
makes a private provider, which nobody else sees.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    get_current_span,
)

from otelprogress.imports import late
from otelprogress.model import semconv
from otelprogress.otel import global_providers, span_tap
from otelprogress.otel.registry import REGISTRY, TrackedSpan
from otelprogress.otel.target import same_place

if TYPE_CHECKING:
    from opentelemetry._logs import Logger
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
    from opentelemetry.trace import Link, Tracer

    from otelprogress.otel.log_processor import ProgressLogProcessor
    from otelprogress.otel.sender import Sender
    from otelprogress.otel.span_processor import ProgressSpanProcessor

_LOG = logging.getLogger("otelprogress.otel.provider")
_RANDOM: Final = random.SystemRandom()
"""Ids of ours must differ in forked children that were seeded alike."""


@dataclass(frozen=True, slots=True)
class OpenedSpan:
    """The span of an operation with the ids that its events carry."""

    span: Span
    trace_id: int
    span_id: int
    sampled: bool
    parent_span_id: int
    """0: a root, or its parent is in another trace."""
    recording: bool
    """`False`: unsampled, or the SDK is disabled. Events flow all the same."""


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """One provider as `doctor` shows it."""

    signal: str
    """`traces`, `logs` or `metrics`."""
    origin: str
    """`application`, `private` or `none`."""
    kind: str
    """Its class."""
    attached: bool
    """Whether our processor listens there."""
    exporters: tuple[str, ...] = ()
    """Class and endpoint of each exporter that can be seen."""
    note: str = ""


class ProviderBinding:
    """Binds operations to whatever OpenTelemetry set-up the process has or gets.

    Args:
        span_processor: attached to the application's TracerProvider; `None`: nothing is attached.
        log_processor: attached to the application's LoggerProvider; `None`: nothing is attached.
        sender: takes the spans of the private provider; `None`: they are not exported.
        version: of otelprogress, for the instrumentation scope.
        resource_attributes: added to the resource of the private provider.
        on_found: called, on any thread, after a provider of the application was found. What the provider does at
            exit then comes after what the runtime does, if the runtime registers its handler again.
    """

    def __init__(
        self,
        *,
        span_processor: ProgressSpanProcessor | None = None,
        log_processor: ProgressLogProcessor | None = None,
        sender: Sender | None = None,
        version: str = "",
        resource_attributes: Mapping[str, str | int] | None = None,
        on_found: Callable[[], object] | None = None,
    ) -> None:
        self._on_found = on_found
        self._span_processor = span_processor
        self._log_processor = log_processor
        self._sender = sender
        self._version = version
        self._resource_attributes = dict(resource_attributes or {})
        self._lock = threading.RLock()
        self._seen_tracer_provider: Any = None
        self._seen_logger_provider: Any = None
        self._attached: list[Any] = []
        self._tracer: Tracer | None = None
        self._tracer_of: Any = None
        """The provider that gave the tracer; `None`: the private one."""
        self._private: SdkTracerProvider | None = None
        self._user_logger: Logger | None = None
        self._log_processors_seen: tuple[object, ...] = ()
        self._closed = False
        self.errors = 0
        """Errors of OpenTelemetry's or ours that operations did not notice."""
        self._hook = global_providers.SetHook(self.poll)
        self._hook.install()
        self.poll()

    # --- spans of operations --------------------------------------------------------------------------

    def open_span(
        self,
        name: str,
        *,
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] = (),
        start_unix_ns: int | None = None,
        given: tuple[int, int] | None = None,
        owner: object = None,
    ) -> OpenedSpan:
        """Start the span of an operation and track it (`REGISTRY`) until `ProgressEmitter.finish`.

        Never raises: where OpenTelemetry does, or is disabled, the operation gets a span that records nothing,
        with random ids of ours in the parent's trace.

        Args:
            name: low-cardinality; the span's.
            kind: the span's.
            attributes: the span's from the start, as samplers see them.
            links: the span's.
            start_unix_ns: `None`: now.
            given: trace and span id that were settled before; the former counts for roots only. `None`: new ones.
            parent: `None`: the current context. An empty `Context()` is falsy and means the same.
            owner: left in `TrackedSpan.owner`, for whoever finds the operation from the current span.
        """
        try:
            above = get_current_span(parent).get_span_context()
            tracer = self._current_tracer()
            if given is not None:
                from otelprogress.otel.given_ids import with_ids

                tracer = with_ids(tracer, *given)
            span = tracer.start_span(
                name,
                context=parent,
                kind=kind,
                attributes=attributes,
                links=links,
                start_time=start_unix_ns,
            )
            ids = span.get_span_context()
            if not ids.is_valid or ids.span_id == above.span_id:
                span = _unrecorded_span(above, given)  # a disabled SDK gives back the parent
                ids = span.get_span_context()
        except Exception:
            self.errors += 1
            above = SpanContext(0, 0, is_remote=False)
            span = _unrecorded_span(above, given)
            ids = span.get_span_context()
        return self._opened(span, ids, above, owner)

    def adopt(
        self,
        span: Span,
        *,
        owner: object = None,
        before_end: Callable[[], object] | None = None,
    ) -> OpenedSpan | None:
        """Track a span that somebody else opened and will end.

        Args:
            span: live. `None` is returned for one without valid ids, one that has ended, or one that carries an
                operation already.
            owner: as in `open_span`.
            before_end: called once, on the thread that ends the span, just before it ends: the last moment to
                emit the end of the operation, for the span takes nothing afterwards. What it raises is swallowed.
        """
        try:
            ids = span.get_span_context()
            if (
                not ids.is_valid
                or REGISTRY.find(ids) is not None
                or getattr(span, "end_time", None) is not None
            ):
                return None
            opened = self._opened(span, ids, getattr(span, "parent", None), owner)
            if before_end is not None:
                span_tap.tap_end(span, before_end)
        except Exception:
            self.errors += 1
            return None
        return opened

    def _opened(self, span: Span, ids: SpanContext, above: SpanContext | None, owner: object) -> OpenedSpan:
        try:
            tracked = TrackedSpan(span, role="own", owner=owner)
            REGISTRY.add(tracked, span)
            if self._span_processor is not None:
                self._span_processor.hear_events_of(tracked, span)
        except Exception:
            self.errors += 1
        return OpenedSpan(
            span=span,
            trace_id=ids.trace_id,
            span_id=ids.span_id,
            sampled=ids.trace_flags.sampled,
            parent_span_id=above.span_id if above is not None and above.trace_id == ids.trace_id else 0,
            recording=span.is_recording(),
        )

    def _current_tracer(self) -> Tracer:
        self.poll()
        provider = global_providers.tracer_provider()
        tracer = self._tracer
        if tracer is not None and provider is self._tracer_of:
            return tracer
        # Only now, at an operation's start: the SDK's `get_tracer` asks for the global MeterProvider, which must
        # not happen in the middle of the application's set-up. And with no lock of ours held.
        if provider is None:
            provider = self._private_provider()
            tracer = provider.get_tracer(semconv.SCOPE_NAME, self._version)
            self._tracer, self._tracer_of = tracer, None
        else:
            tracer = provider.get_tracer(semconv.SCOPE_NAME, self._version)
            self._tracer, self._tracer_of = tracer, provider
        return tracer

    def _private_provider(self) -> SdkTracerProvider:
        with self._lock:
            if self._private is None:
                with late:
                    from otelprogress.otel.private_provider import make_tracer_provider

                    self._private = make_tracer_provider(self._sender, self._resource_attributes)
            return self._private

    # --- the application's providers --------------------------------------------------------------------

    def poll(self) -> None:
        """Look for providers that appeared since the last look. Cheap where nothing did: two attribute reads."""
        if self._closed:
            return
        tracers = global_providers.tracer_provider()
        loggers = global_providers.logger_provider()
        if tracers is self._seen_tracer_provider and loggers is self._seen_logger_provider:
            return
        with self._lock:
            try:
                if tracers is not None and tracers is not self._seen_tracer_provider:
                    self.attach(tracers)
                if loggers is not None and loggers is not self._seen_logger_provider:
                    self.attach(loggers)
            except Exception:
                self.errors += 1
            finally:
                self._seen_tracer_provider = tracers
                self._seen_logger_provider = loggers
                self._log_processors_seen = ()
        if self._on_found is not None:
            with contextlib.suppress(Exception):
                self._on_found()

    def attach(self, provider: object) -> bool:
        """Attach our processors to a tracer or logger provider, once; whether we listen there now.

        Providers that are not the SDK's have no `add_span_processor`: `False`, and operations still get spans.
        """
        with self._lock:
            if any(provider is one for one in self._attached):
                return True
            listens = False
            try:
                if hasattr(provider, "add_span_processor") and self._span_processor is not None:
                    self._span_processor.attach_to(provider)
                    listens = True
                if hasattr(provider, "add_log_record_processor") and self._log_processor is not None:
                    self._log_processor.attach_to(provider)
                    listens = True
            except Exception:
                self.errors += 1
            if listens:
                self._attached.append(provider)
            return listens

    def user_logger(self) -> Logger | None:
        """The application's logger for our records, where they would reach somewhere our sender does not.

        `None`: it has no LoggerProvider, none of its processors exports, or all export to where our sender
        sends. Where some do and some do not, records go through the application's pipeline, and the sender
        leaves them out, so that no place gets them twice.
        """
        provider = self._seen_logger_provider
        if provider is None or self._closed:
            return None
        processors = span_tap.processors_of(provider)
        if processors is not self._log_processors_seen and processors != self._log_processors_seen:
            with self._lock:
                self._log_processors_seen = processors
                self._choose_user_logger(provider, processors)
        return self._user_logger

    def _choose_user_logger(self, provider: Any, processors: tuple[object, ...]) -> None:
        ours = self._sender.target.logs if self._sender is not None else None
        same = elsewhere = 0
        for processor in processors:
            if processor is self._log_processor or getattr(processor, "only_listens", False):
                continue
            exporter = span_tap.exporter_of(processor)
            endpoint = span_tap.endpoint_of(exporter) if exporter is not None else None
            if ours is not None and endpoint is not None and same_place(ours, endpoint):
                same += 1
            else:
                elsewhere += 1  # also what cannot be seen through: a processor of theirs may want our records
        self._user_logger = provider.get_logger(semconv.SCOPE_NAME, self._version) if elsewhere else None
        if self._sender is not None:
            self._sender.events_by_application = bool(same and elsewhere)

    def resource(self) -> dict[str, Any]:
        """The attributes of this process's resource: the application's where it has a provider, else our own."""
        for provider in (self._seen_tracer_provider, self._seen_logger_provider, self._private):
            resource = getattr(provider, "resource", None)
            if resource is not None:
                return {**self._resource_attributes, **resource.attributes}
        from otelprogress.otel.resources import make_resource

        return dict(make_resource(self._resource_attributes).attributes)

    def providers(self) -> list[ProviderReport]:
        """What is there, for `doctor`."""
        reports = []
        for signal, provider, mine in (
            ("traces", global_providers.tracer_provider(), self._span_processor),
            ("logs", global_providers.logger_provider(), self._log_processor),
            ("metrics", global_providers.meter_provider(), None),
        ):
            if provider is None:
                private = self._private if signal == "traces" else None
                reports.append(
                    ProviderReport(
                        signal=signal,
                        origin="private" if private is not None else "none",
                        kind=type(private).__name__ if private is not None else "",
                        attached=private is not None,
                        note=""
                        if private is None or self._sender is not None
                        else "no endpoint: spans are not exported",
                    ),
                )
                continue
            processors = span_tap.processors_of(provider)
            exporters = tuple(
                _describe(exporter)
                for exporter in (span_tap.exporter_of(one) for one in processors)
                if exporter is not None
            )
            attached = mine is not None and any(provider is one for one in self._attached)
            note = (
                ""
                if attached or mine is None
                else "not an SDK provider: spans that we did not open are not seen"
            )
            reports.append(
                ProviderReport(signal, "application", type(provider).__name__, attached, exporters, note)
            )
        return reports

    # --- the end ------------------------------------------------------------------------------------------

    def shutdown(self, timeout_s: float = 2.0) -> None:
        """Close the private provider and stop looking for others. Our processors stay attached, silent.

        The application's providers are left as they are: it shuts them down.

        Args:
            timeout_s: kept for symmetry with the sender, which does the waiting; nothing here waits.
        """
        self._closed = True
        self._hook.remove()
        for processor in (self._span_processor, self._log_processor):
            if processor is not None:
                processor.unbind()
        self._user_logger = None
        if self._private is not None:
            with contextlib.suppress(Exception):
                self._private.shutdown()

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's operations; a private provider is made anew at the next one."""
        self._lock = threading.RLock()
        REGISTRY.clear()
        if self._private is not None:
            self._private = None
            if self._tracer_of is None:
                self._tracer = None


def _unrecorded_span(above: SpanContext, given: tuple[int, int] | None = None) -> NonRecordingSpan:
    """A span that records nothing, with random ids or the given ones, in the trace of `above` where that is one."""
    trace_id, span_id = given or (_RANDOM.getrandbits(128) or 1, _RANDOM.getrandbits(64) or 1)
    if above.is_valid:
        trace_id, flags, state = above.trace_id, above.trace_flags, above.trace_state
    else:
        flags, state = TraceFlags(TraceFlags.DEFAULT), None
    return NonRecordingSpan(
        SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags, trace_state=state)
    )


def _describe(exporter: object) -> str:
    endpoint = span_tap.endpoint_of(exporter)
    if endpoint is None:
        return type(exporter).__name__
    scheme, separator, rest = endpoint.rpartition("://")
    authority, slash, path = rest.partition("/")
    # A password may stand before the host, a key in the query.
    place = authority.rpartition("@")[2] + slash + path.partition("?")[0]
    return f"{type(exporter).__name__} to {scheme}{separator}{place}"
