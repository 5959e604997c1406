"""The OpenTelemetry SDK for Python as it is, with no code of ours in its process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otelprogress.model.events import State, StepState
from tests.collector.collecting import collecting
from tests.foreign.dialogue import operations, running
from tests.foreign.invoices import check_invoices

HERE = Path(__file__).parent


@pytest.mark.parametrize("identity", ["writer", "anonymous"])
@pytest.mark.parametrize("encoding", ["http", "grpc"])
async def test_its_log_events_are_an_operation_with_steps_children_and_outcomes(
    tmp_path: Path, encoding: str, identity: str
):
    command = [sys.executable, HERE / "invoices_program.py", encoding, identity]
    await check_invoices(tmp_path, command, grpc=encoding == "grpc")


@pytest.mark.parametrize("encoding", ["http", "grpc"])
async def test_its_spans_are_operations_by_a_rule_of_the_collector_once_they_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
):
    rule = "name=import *;scope=my.airport;children=steps;title=Import at {airport}"
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_RULES", rule)
    async with collecting(tmp_path / "data") as collector:
        port = collector.grpc_port if encoding == "grpc" else collector.http_port
        command = [sys.executable, HERE / "spans_program.py", encoding]
        endpoint = f"http://127.0.0.1:{port}"
        async with running(command, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as program:
            [flights_trace_id] = await program.says()
            assert (
                await operations(collector) == []
            )  # its children were told, but nobody knows whose they are
            program.go_on()
            [weather_trace_id] = await program.says()
            [flights] = await operations(collector)
            program.go_on()
            await program.end()
        assert (flights.trace_id, flights.name, flights.title) == (
            flights_trace_id,
            "import flights",
            "Import at JFK",
        )
        assert (flights.state, flights.service, flights.ratio) == (State.SUCCEEDED, "airport", 1.0)
        assert [(step.name, step.state) for step in flights.steps] == [
            ("read", StepState.SUCCEEDED),
            ("write", StepState.SUCCEEDED),
        ]
        assert flights.message.startswith("disk is slow")
        [again, weather] = await operations(collector)
        assert (again.id, again.revision) == (flights.id, flights.revision)
        assert (weather.trace_id, weather.state) == (weather_trace_id, State.FAILED)
        assert (weather.error_type, weather.error_message) == (
            "ConnectionError",
            "no answer from the station",
        )
