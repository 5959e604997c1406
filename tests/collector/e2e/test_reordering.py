"""Spans and log events of one run on a whole collector, in the order in which their exporters happen to send them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress_collector.app import Collector
from tests.collector.collecting import CollectorProcess, collecting
from tests.collector.e2e.reading import Message, Reader
from tests.collector.e2e.writing import PROTOBUF, Writer, ask, send
from tests.collector.receivers.messages import ASpan, Group, SpanEvent, request

STEP = [(semconv.STEP_NAME, "load"), (semconv.STEP_INDEX, 0)]


def span_of(writer: Writer, encoding: str) -> bytes:
    """The span of a run with one step, as an SDK exports it once it has ended."""
    trace_id, span_id = (int(part, 16) for part in writer.run_id.split("-"))
    now_ns = time.time_ns()
    span = ASpan(
        writer.name,
        [(semconv.OPERATION_STATE, "succeeded"), (semconv.OPERATION_STEPS, ["load"])],
        trace_id=trace_id,
        span_id=span_id,
        start_time_unix_nano=now_ns - 10**9,
        end_time_unix_nano=now_ns,
        events=[
            SpanEvent(semconv.STEP_STARTED, STEP, now_ns - 9 * 10**8),
            SpanEvent(semconv.STEP_ENDED, STEP, now_ns - 10**8),
            SpanEvent(semconv.OPERATION_ENDED, [(semconv.OPERATION_STATE, "succeeded")], now_ns),
        ],
    )
    return request("traces", encoding, Group([span]))


def logs_of(writer: Writer) -> bytes:
    said = {"step_name": "load", "step_index": 0}
    return writer.encoded(
        writer.event(semconv.OPERATION_STARTED, name=writer.name, parent_span_id="", steps=("load",)),
        writer.event(semconv.STEP_STARTED, **said),
        writer.event(semconv.STEP_ENDED, **said),
        writer.event(semconv.OPERATION_ENDED, state=State.SUCCEEDED),
    )


def wait_for_log_events(collector: Collector, seconds: float) -> None:
    collector.host.hub.tree._grace_ns = int(seconds * 1e9)


def send_span(port: int, writer: Writer, encoding: str) -> None:
    kind = PROTOBUF if encoding == "protobuf" else "application/json"
    answer = ask(port, "/v1/traces", span_of(writer, encoding), content_type=kind)
    assert answer.status == 200, answer


def ends(writer: Writer) -> Callable[[Message], bool]:
    return lambda message: any(
        event["operation"]["id"] == writer.run_id and event["kind"] == "operation.ended"
        for event in message.get("events", ())
    )


def told(messages: list[Message], writer: Writer) -> list[tuple[str, bool]]:
    return [
        (event["kind"], event.get("late", False))
        for message in messages
        for event in message.get("events", ())
        if event["operation"]["id"] == writer.run_id
    ]


ONCE = [
    ("operation.started", False),
    ("step.started", False),
    ("step.ended", False),
    ("operation.ended", False),
]


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
async def test_a_reader_sees_each_thing_once_though_the_span_comes_before_its_log_events(
    tmp_path: Path, encoding: str
):
    async with collecting(tmp_path) as collector:
        wait_for_log_events(collector, 3_600.0)  # however slow this machine is

        def follow() -> list[tuple[str, bool]]:
            writer, after = Writer(), Writer("afterwards")
            with Reader(collector.http_port, collector.own_token) as reader:
                reader.subscribe(filter={"roots": False})
                send_span(collector.http_port, writer, encoding)
                send_span(collector.http_port, writer, encoding)  # its answer was lost, as it happens
                assert send(collector.http_port, logs_of(writer)).status == 200
                assert send(collector.http_port, after.started()).status == 200
                heard = reader.hear_of(after.name)
            return told(heard, writer)

        assert await asyncio.to_thread(follow) == ONCE
        assert collector.host.hub.tree.stats.overruled == 4
        assert collector.host.hub.tree.stats.late == 0


async def test_a_reader_sees_what_the_span_says_once_log_events_had_their_time(tmp_path: Path):
    async with collecting(tmp_path) as collector:
        wait_for_log_events(collector, 0.2)

        def follow() -> list[tuple[str, bool]]:
            writer = Writer()
            with Reader(collector.http_port, collector.own_token) as reader:
                reader.subscribe(filter={"roots": False})
                send_span(collector.http_port, writer, "protobuf")
                return told(reader.hear_until(ends(writer)), writer)

        assert await asyncio.to_thread(follow) == ONCE


def test_a_span_that_was_accepted_survives_a_kill_and_is_still_overruled(tmp_path: Path):
    writer, after = Writer(), Writer("afterwards")
    with CollectorProcess(tmp_path / "data") as collector:
        send_span(collector.http_port, writer, "protobuf")
        collector.kill()
        collector.start()  # now nothing is concluded from silence for 45 s
        assert writer.run_id.encode() not in collector.get("/v1/operations")
        with Reader(collector.http_port, collector.token) as reader:
            reader.subscribe(filter={"roots": False})
            assert send(collector.http_port, logs_of(writer)).status == 200
            assert send(collector.http_port, after.started()).status == 200
            assert told(reader.hear_of(after.name), writer) == ONCE
