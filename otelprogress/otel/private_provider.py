"""The SDK providers that nobody but us sees, for applications that have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from otelprogress.otel.resources import make_resource

if TYPE_CHECKING:
    from otelprogress.otel.sender import Sender


class SenderSpanProcessor(SpanProcessor):
    """Hands ended, sampled spans to the sender, which encodes them on its own thread."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor.on_end`."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._sender.submit_span(span)


def make_tracer_provider(sender: Sender | None, attributes: Mapping[str, str | int]) -> TracerProvider:
    """A TracerProvider with the sampler and the resource that the environment asks for.

    Args:
        sender: exports its spans; `None`, or a sender without a traces endpoint: spans only live in process.
        attributes: added to the resource.
    """
    settings: dict[str, Any] = {
        "resource": make_resource(attributes),
        # The runtime's own exit handler bounds the time; the SDK's would run after it, unbounded.
        "shutdown_on_exit": False,
    }
    try:
        # The SDK counts its own spans through the global MeterProvider, and asking for that one may set it.
        provider = TracerProvider(**settings, meter_provider=NoOpMeterProvider())
    except TypeError:  # SDK before 1.43
        provider = TracerProvider(**settings)
    if sender is not None and sender.target.traces is not None:
        provider.add_span_processor(SenderSpanProcessor(sender))
    return provider
