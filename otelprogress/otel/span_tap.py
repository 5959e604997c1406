"""Hear `span.add_event()` and `span.record_exception()` when they happen. The only file that touches the SDK's privates.

The SDK tells a processor nothing between a span's start and its end. What works, tested against the oldest
and the newest supported SDK: an attribute `add_event` on the instance, which shadows the method;
`record_exception` calls it too. Everything here degrades to "not heard" where a span takes no attributes or
a private name is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.trace import Span

OnEvent = Callable[[str, Mapping[str, Any] | None, int | None], None]
"""Name, attributes, timestamp (`None`: now)."""


class _Tap:
    """Stands in for `span.add_event`: the application's call first, then, whatever it was, ours."""

    __slots__ = ("on_event", "original")

    def __init__(self, original: Callable[..., None], on_event: OnEvent) -> None:
        self.original = original
        self.on_event = on_event

    def __call__(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        **newer: Any,
    ) -> None:
        self.original(name, attributes, timestamp, **newer)
        self.on_event(name, attributes, timestamp)


class _EndTap:
    """Stands in for `span.end`: ours first, once, then the application's call."""

    __slots__ = ("before_end", "original")

    def __init__(self, original: Callable[..., None], before_end: Callable[[], object]) -> None:
        self.original = original
        self.before_end: Callable[[], object] | None = before_end

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        before_end, self.before_end = self.before_end, None
        if before_end is not None:
            with contextlib.suppress(Exception):
                before_end()
        self.original(*args, **kwargs)


def tap(span: Span, on_event: OnEvent) -> bool:
    """Call `on_event` after each event that somebody else adds to `span`, on their thread.

    Args:
        span: live.
        on_event: must neither raise nor wait; it runs after the event is on the span, with no lock held.

    Returns:
        Whether it could be done. A span that is tapped already stays with its first listener: `False`.
    """
    try:
        if isinstance(span.__dict__.get("add_event"), _Tap):
            return False
        span.add_event = _Tap(span.add_event, on_event)  # type: ignore[method-assign]  # that is the tap
    except Exception:
        return False
    return True


def tap_end(span: Span, before_end: Callable[[], object]) -> None:
    """Call `before_end` once, just before `span` ends, on the thread that ends it; what it raises is swallowed."""
    span.end = _EndTap(span.end, before_end)  # type: ignore[method-assign]  # that is the tap


def untap(span: Span) -> None:
    """Undo `tap` and `tap_end`. Breaks the reference cycles they made, so that an ended span is freed at once."""
    own = getattr(span, "__dict__", None)
    if own is None:
        return
    if isinstance(own.get("add_event"), _Tap):
        own.pop("add_event", None)
    if isinstance(own.get("end"), _EndTap):
        own.pop("end", None)


def add_own_event(span: Span, name: str, attributes: Mapping[str, Any], time_unix_ns: int) -> None:
    """Add an event of ours: not heard by the tap, so that it does not come back as a foreign note."""
    own = getattr(span, "__dict__", None)
    shadow = own.get("add_event") if own is not None else None
    add_event = shadow.original if isinstance(shadow, _Tap) else span.add_event
    add_event(name, attributes, time_unix_ns)


def event_limit(span: Span) -> int | None:
    """How many events the span keeps; `None`: unlimited, or not to be known."""
    limit = getattr(getattr(span, "_limits", None), "max_events", None)
    return limit if isinstance(limit, int) else None


def processors_of(provider: object) -> tuple[object, ...]:
    """The span or log record processors of an SDK provider; empty where they are not to be seen."""
    for group_name, list_name in (
        ("_active_span_processor", "_span_processors"),
        ("_multi_log_record_processor", "_log_record_processors"),
    ):
        processors = getattr(getattr(provider, group_name, None), list_name, None)
        if isinstance(processors, tuple | list):
            return tuple(processors)
    return ()


def exporter_of(processor: object) -> object | None:
    """The exporter behind a batch or simple processor of the SDK; `None`: it has none that we can see."""
    for owner in (processor, getattr(processor, "_batch_processor", None)):
        for name in ("_exporter", "span_exporter"):
            exporter = getattr(owner, name, None)
            if exporter is not None:
                found: object = exporter
                return found
    return None


def endpoint_of(exporter: object) -> str | None:
    """Where an OTLP exporter of the SDK sends to, as it was told; `None`: it is none, or not to be seen."""
    endpoint = getattr(exporter, "_endpoint", None)
    return endpoint if isinstance(endpoint, str) else None
