"""Which TracerProvider our operations use: the application's when it has one, else a private one of ours.

We never set a global provider: a later `set_tracer_provider()` of the application would be refused and its
exporter would see nothing. So the application's providers are looked for at every operation's start and when
they are set, and our processors are attached to them once. Only an operation that starts while there is none
makes a private provider, which nobody else sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanKind

if TYPE_CHECKING:
    from opentelemetry._logs import Logger
    from opentelemetry.context import Context
    from opentelemetry.trace import Link

    from otelprogress.otel.log_processor import ProgressLogProcessor
    from otelprogress.otel.sender import Sender
    from otelprogress.otel.span_processor import ProgressSpanProcessor


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
        resource_attributes: added to the resource of the private provider.
    """

    def __init__(
        self,
        *,
        span_processor: ProgressSpanProcessor | None = None,
        log_processor: ProgressLogProcessor | None = None,
        sender: Sender | None = None,
        resource_attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        raise NotImplementedError

    def open_span(
        self,
        name: str,
        *,
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] = (),
        start_unix_ns: int | None = None,
        owner: object = None,
    ) -> OpenedSpan:
        """Start the span of an operation and track it (`REGISTRY`) until `ProgressEmitter.finish`. Never raises."""
        raise NotImplementedError

    def adopt(self, span: Span, *, owner: object = None) -> OpenedSpan | None:
        """Track a span that somebody else opened and will end; `None`: it cannot carry an operation."""
        raise NotImplementedError

    def attach(self, provider: object) -> bool:
        """Attach our processors to a provider (tracer or logger) once; whether it listens there now."""
        raise NotImplementedError

    def poll(self) -> None:
        """Look for providers that appeared since the last look. Cheap: two attribute reads."""
        raise NotImplementedError

    def user_logger(self) -> Logger | None:
        """The application's logger for our records, where they would reach somewhere our sender does not."""
        raise NotImplementedError

    def providers(self) -> list[ProviderReport]:
        """What is there, for `doctor`."""
        raise NotImplementedError

    def shutdown(self, timeout_s: float = 2.0) -> None:
        """Close the private provider, stop looking for others. Processors that are attached fall silent."""
        raise NotImplementedError

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's operations and private provider."""
        raise NotImplementedError
