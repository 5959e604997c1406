"""What Logfire and partial-span-processor send, as it was recorded (`record.py`), seen by a collector."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from otelprogress.model.events import OperationView, State, StepState
from otelprogress_collector.app import Collector
from otelprogress_collector.otlp_conversion import to_protobuf
from tests.collector.collecting import collecting
from tests.foreign.dialogue import operations

GOLDEN = Path(__file__).parents[1] / "golden" / "otlp"
RULES = "name=import *;children=steps"


class Recording:
    """The requests of one program, sent to a collector in order."""

    def __init__(self, name: str, encoding: str) -> None:
        self._requests = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        self._encoding = encoding

    async def send(self, collector: Collector, requests: int | None = None) -> None:
        """Send the next ones; `None`: all that are left. Each has to be taken whole."""
        count = len(self._requests) if requests is None else requests
        now, self._requests = self._requests[:count], self._requests[count:]
        async with aiohttp.ClientSession() as http:
            for request in now:
                path, body = request["path"], json.dumps(request["body"]).encode()
                content_type = "application/json"
                if self._encoding == "protobuf":
                    body = to_protobuf("traces" if path.endswith("traces") else "logs", body)
                    content_type = "application/x-protobuf"
                url = f"http://127.0.0.1:{collector.http_port}{path}"
                async with http.post(url, data=body, headers={"Content-Type": content_type}) as answer:
                    assert answer.status == 200
                    assert b"rejected" not in await answer.read()


async def the_operation(collector: Collector) -> OperationView:
    [view] = await operations(collector, ended_within_s="1e9")
    return view


def steps_of(view: OperationView) -> list[tuple[str, StepState]]:
    return [(step.name, step.state) for step in view.steps]


@pytest.mark.parametrize("encoding", ["json", "protobuf"])
async def test_pending_spans_of_logfire_show_an_operation_and_its_step_before_they_end(
    tmp_path: Path, encoding: str
):
    recording = Recording("logfire", encoding)
    async with collecting(tmp_path / "data", rules=RULES) as collector:
        await recording.send(collector, 1)
        view = await the_operation(collector)
        assert (view.name, view.state) == ("import flights of {airport}", State.RUNNING)
        assert steps_of(view) == [("read", StepState.RUNNING)]
        await recording.send(collector)
        view = await the_operation(collector)
        assert (view.state, view.service) == (State.SUCCEEDED, "airport")
        assert steps_of(view) == [("read", StepState.SUCCEEDED), ("write", StepState.SUCCEEDED)]


@pytest.mark.parametrize("encoding", ["json", "protobuf"])
async def test_heartbeats_and_stops_of_partial_spans_show_each_step_as_it_goes(tmp_path: Path, encoding: str):
    recording = Recording("partial", encoding)
    async with collecting(tmp_path / "data", rules=RULES) as collector:
        await recording.send(collector, 6)
        view = await the_operation(collector)
        assert (view.name, view.state) == ("import ships", State.RUNNING)
        assert view.writer_id == f"partial/{view.id}"
        assert steps_of(view) == [("read", StepState.RUNNING)]
        await recording.send(collector, 1)
        assert steps_of(await the_operation(collector)) == [("read", StepState.SUCCEEDED)]
        await recording.send(collector, 1)
        view = await the_operation(collector)
        assert (view.state, view.service) == (State.SUCCEEDED, "harbour")
        await recording.send(collector)
        after = await the_operation(collector)
        assert after.ended_at_unix_ns == view.ended_at_unix_ns
        assert after.message.startswith("quay is full")


@pytest.mark.parametrize("name", ["logfire", "partial"])
async def test_without_a_rule_none_of_it_is_an_operation(tmp_path: Path, name: str):
    async with collecting(tmp_path / "data") as collector:
        await Recording(name, "json").send(collector)
        assert await operations(collector, ended_within_s="1e9") == []
