"""Spans whose ids were settled before there was a tracer: a program that was started before knows them already."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


class GivenIds(RandomIdGenerator):
    """Gives one trace id and one span id, again and again."""

    def __init__(self, trace_id: int, span_id: int) -> None:
        self._trace_id = trace_id
        self._span_id = span_id

    def generate_trace_id(self) -> int:
        """The one; asked for roots only."""
        return self._trace_id

    def generate_span_id(self) -> int:
        """The one."""
        return self._span_id


def with_ids(tracer: Tracer, trace_id: int, span_id: int) -> Tracer:
    """A tracer like that one whose spans have these ids; one that is not the SDK's is given back as it is."""
    if not hasattr(tracer, "id_generator"):
        return tracer
    given: Any = copy.copy(tracer)
    given.id_generator = GivenIds(trace_id, span_id)
    return given  # type: ignore[no-any-return]
