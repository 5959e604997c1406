"""Events of an operation that speaks for itself."""

from __future__ import annotations

from otelprogress.model import semconv
from otelprogress.model.events import Event
from tests.collector.receivers.messages import START_NS, a_run


def started(number: int = 1) -> Event:
    return Event(
        kind=semconv.OPERATION_STARTED,
        run_id=a_run(number),
        time_unix_ns=START_NS,
        writer_id="writer",
        sequence=1,
        name="import flights",
        parent_span_id="",
        start_unix_ns=START_NS,
    )
