"""OTLP requests of a hundred records, made before anything is measured."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelprogress.model import semconv
from otelprogress.model.events import Event, State, StepState
from otelprogress.otel.otlp_encode import LogEncoder, encode_record, key_values

RECORDS = 100
"""A request."""
_RUNS = 10
_STEPS = 8
_NOTES_A_STEP = 10
_RESOURCE = {
    "service.name": "bench",
    "service.version": "1.4.2",
    "host.name": "worker-7",
    "process.pid": 4711,
}
_FOREIGN = {"code.function.name": "load", "thread.name": "MainThread", "customer.region": "eu-west-1"}
_TRACE = bytes.fromhex("f3a9" * 8)
"""Stands in the templates where each copy gets a trace of its own."""
_LOG_ENCODER = LogEncoder(_RESOURCE, "1")


def life_of_a_run(span_id: int, *, writer_id: str = "0123456789abcdef") -> list[Event]:
    """A hundred durable events: a start, steps with their notes, an end."""
    now = time.time_ns()
    events: list[Event] = []

    def say(kind: str, **said: object) -> None:
        event = Event(
            kind=kind,
            run_id=f"{_TRACE.hex()}-{span_id:016x}",
            time_unix_ns=now + len(events) * 1_000_000,
            writer_id=writer_id,
            sequence=len(events) + 1,
        )
        events.append(msgspec.structs.replace(event, **said))

    names = tuple(f"step {number}" for number in range(_STEPS))
    say(
        semconv.OPERATION_STARTED,
        name="nightly load",
        parent_span_id="",
        start_unix_ns=now,
        steps=names,
        lease_s=90.0,
    )
    for index, name in enumerate(names):
        step = {"step_name": name, "step_index": index, "total": 1000.0, "unit": "{row}"}
        say(semconv.STEP_STARTED, **step, step_state=StepState.RUNNING, completed=0.0)
        for note in range(_NOTES_A_STEP):
            say(
                semconv.OPERATION_NOTED,
                **step,
                completed=100.0 * note,
                message=f"{note} rows rejected: bad date",
            )
        say(semconv.STEP_ENDED, **step, step_state=StepState.SUCCEEDED, completed=1000.0)
    while len(events) < RECORDS - 1:
        say(semconv.OPERATION_NOTED, message="almost done")
    say(semconv.OPERATION_ENDED, state=State.SUCCEEDED)
    return events


def interleaved() -> list[list[Event]]:
    """Ten runs side by side: ten requests, in each of them ten events of each run."""
    lives = [life_of_a_run(number + 1) for number in range(_RUNS)]
    each = RECORDS // _RUNS
    return [
        [event for life in lives for event in life[at : at + each]] for at in range(0, len(lives[0]), each)
    ]


def own(events: Sequence[Event]) -> bytes:
    """As our SDK's sender encodes them."""
    return _LOG_ENCODER.encode(events)[0]


def foreign(events: Sequence[Event]) -> bytes:
    """As a stock SDK that knows only the conventions: no writer, no sequence, attributes of the user's own."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(key_values(_RESOURCE))
    scope = group.scope_logs.add()
    scope.scope.name = "shop.loader"
    for event in events:
        record = encode_record(msgspec.structs.replace(event, writer_id="", sequence=None, lease_s=None))
        record.attributes.extend(key_values(_FOREIGN))
        scope.log_records.append(record)
    return request.SerializeToString()


def copies(templates: Sequence[bytes]) -> Iterator[bytes]:
    """The templates again and again, each time as the story of another trace."""
    for number in itertools.count(1):
        trace = os.urandom(8) + number.to_bytes(8, "big")
        for template in templates:
            yield template.replace(_TRACE, trace)


def started(count: int, number: int, *, plain: bool = False) -> bytes:
    """The starts of `count` operations that go on living.

    Args:
        count: of them.
        number: tells requests apart.
        plain: a name and counts only; else also a title, a label and two planned steps, of which one is under way.
    """
    now = time.time_ns()
    counts = {"completed": 10.0, "total": 100.0, "unit": "{row}"}
    more = {} if plain else {"title": "Load of the night", "steps": ("extract", "load")}
    step = {} if plain else {"step_name": "extract", "step_index": 0}
    events = []
    for index in range(count):
        said = {
            "run_id": f"{number + 1:032x}-{index + 1:016x}",
            "time_unix_ns": now,
            "writer_id": f"writer {number:x}",
            **({} if plain else {"label": f"job {index}"}),
        }
        events += [
            Event(
                kind=semconv.OPERATION_STARTED,
                name="nightly load",
                parent_span_id="",
                sequence=1,
                **more,  # type: ignore[arg-type]  # fields of an event
                **said,  # type: ignore[arg-type]
            ),
            Event(
                kind=semconv.OPERATION_PROGRESSED if plain else semconv.STEP_STARTED,
                sequence=None if plain else 2,
                **step,  # type: ignore[arg-type]
                **counts,  # type: ignore[arg-type]
                **said,  # type: ignore[arg-type]
            ),
        ]
    return own(events)


def ticks(number: int) -> bytes:
    """A hundred ticks of the hundred runs that `started(100, number)` began."""
    now = time.time_ns()
    return own(
        [
            Event(
                kind=semconv.OPERATION_PROGRESSED,
                run_id=f"{number + 1:032x}-{index + 1:016x}",
                time_unix_ns=now,
                writer_id=f"writer {number:x}",
                step_name="extract",
                step_index=0,
                completed=50.0,
                total=100.0,
                unit="{row}",
            )
            for index in range(RECORDS)
        ]
    )


def spans() -> bytes:
    """A hundred spans of web requests: no operations."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(key_values(_RESOURCE))
    scope = group.scope_spans.add()
    scope.scope.name = "opentelemetry.instrumentation.asgi"
    now = time.time_ns()
    for number in range(RECORDS):
        scope.spans.add(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            name="GET /orders/{id}",
            kind=2,
            start_time_unix_nano=now,
            end_time_unix_nano=now + 12_000_000,
            attributes=key_values(
                {
                    "http.request.method": "GET",
                    "http.route": "/orders/{id}",
                    "http.response.status_code": 200,
                    "url.path": f"/orders/{number}",
                    "server.address": "shop.example",
                    "client.address": "10.1.2.3",
                    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
                }
            ),
        )
    return request.SerializeToString()
