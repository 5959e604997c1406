"""Spans of others while they are open: Logfire and partial-span-processor, each as its authors ship it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from otelprogress.model.events import OperationView, State, StepState
from otelprogress_collector.app import Collector
from tests.collector.collecting import collecting
from tests.foreign.dialogue import PATIENCE_S, operations, running
from tests.foreign.parts import PARTIAL_PYTHON, PYTHON, installed
from tests.waiting import aeventually

pytestmark = pytest.mark.backend

HERE = Path(__file__).parent
RULES = "name=import *;children=steps"


def environment_of(collector: Collector) -> dict[str, str]:
    """Where Logfire, and a plain exporter, find the collector."""
    url = f"http://127.0.0.1:{collector.http_port}"
    return {
        "LOGFIRE_BASE_URL": url,
        "LOGFIRE_TOKEN": collector.own_token,
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "PYTHONWARNINGS": "ignore",
    }


async def the_operation(collector: Collector, *steps: tuple[str, StepState]) -> OperationView:
    """The one there is, once its steps stand so."""
    found: list[OperationView] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await operations(collector)
                if len(found) == 1 and tuple((step.name, step.state) for step in found[0].steps) == steps:
                    return found[0]
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still {found}") from None


@pytest.mark.parametrize("ingest_token", [False, True])
async def test_a_program_with_logfire_is_seen_while_its_spans_are_open(tmp_path: Path, ingest_token: bool):
    python = installed(PYTHON)
    async with collecting(tmp_path / "data", rules=RULES, ingest_token=ingest_token) as collector:
        command = [python, HERE / "logfire_program.py"]
        async with running(command, **environment_of(collector)) as program:
            [trace_id] = await program.says()
            seen = await the_operation(collector, ("read", StepState.RUNNING))
            assert (seen.trace_id, seen.name, seen.state) == (
                trace_id,
                "import flights of {airport}",
                State.RUNNING,
            )
            program.go_on()
            await program.end()
        seen = await the_operation(collector, ("read", StepState.SUCCEEDED), ("write", StepState.SUCCEEDED))
        assert (seen.state, seen.service, seen.parent_id) == (State.SUCCEEDED, "airport", None)


async def test_a_program_with_heartbeats_is_seen_while_its_spans_are_open(tmp_path: Path):
    python = installed(PARTIAL_PYTHON)
    async with collecting(tmp_path / "data", rules=RULES) as collector:
        command = [python, HERE / "partial_program.py"]
        async with running(command, **environment_of(collector)) as program:
            [trace_id] = await program.says()
            seen = await the_operation(collector, ("read", StepState.RUNNING))
            assert (seen.trace_id, seen.name, seen.state) == (trace_id, "import ships", State.RUNNING)
            program.go_on()
            await program.end()
        seen = await the_operation(collector, ("read", StepState.SUCCEEDED), ("write", StepState.SUCCEEDED))
        assert (seen.state, seen.service) == (State.SUCCEEDED, "harbour")
        assert seen.message.startswith("quay is full")
        read, write = seen.steps
        assert read.ended_at_unix_ns <= write.started_at_unix_ns


async def test_heartbeats_that_cease_are_a_death(tmp_path: Path):
    python = installed(PARTIAL_PYTHON)
    async with collecting(tmp_path / "data", rules=RULES) as collector:
        command = [python, HERE / "partial_program.py"]
        async with running(command, **environment_of(collector)) as program:
            await program.says()
            await the_operation(collector, ("read", StepState.RUNNING))
            await program.kill()
        assert await aeventually(lambda: collector.monitor.stats.lost_runs, PATIENCE_S) == 1
        [seen] = await operations(collector)
        assert (seen.state, seen.lost_detector) == (State.LOST, "lease")
