"""The demo, a pipeline of others, the collector, a backend of others: `rotel` in front, Arize Phoenix behind.

On the way rotel is told 503 for requests that did arrive, and the collector is stopped from the middle of the job to
its end, so that rotel's requests run into their timeouts. Whatever rotel then repeats and reorders: the collector
tells each durable event once, in order. Phoenix takes no logs: they are switched off for it, its traces go on.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import PIPE
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from otelprogress.feed.client import AsyncClient
from otelprogress.feed.watch import Watch
from otelprogress.model import semconv
from otelprogress.model.events import FeedEvent, State
from tests.backends.demo import CHILDREN, STEPS, check_trace, demo_command, trace_id_in
from tests.backends.phoenix import Phoenix
from tests.collector.collecting import CollectorProcess
from tests.foreign.rotel import Relay, rotel
from tests.waiting import aeventually

pytestmark = [pytest.mark.backend, pytest.mark.timeout(1200)]

SETTINGS = {
    "OTELPROGRESS_COLLECTOR_RUNTIME_FILE": "false",
    # Longer than the collector is stopped: order is kept, nothing counts as lost.
    "OTELPROGRESS_COLLECTOR_REORDER_WINDOW_S": "120",
}


async def test_the_demo_through_a_pipeline_that_repeats_and_reorders_is_told_once_and_stands_in_the_backend(
    phoenix: Phoenix, tmp_path: Path
) -> None:
    export = ("--export-otlp", phoenix.http_url)
    with (
        CollectorProcess(tmp_path / "data", *export, **SETTINGS) as collector,
        Relay(collector.url) as behind,
        rotel(tmp_path, logs_to=behind.url, traces_to=f"http://127.0.0.1:{collector.grpc_port}") as url,
        Relay(url) as front,
    ):
        address = f"ws://127.0.0.1:{collector.http_port}"
        async with AsyncClient(address, collector.token) as client:
            async with client.watch(roots=False) as watch:
                demo = await asyncio.create_subprocess_exec(
                    *demo_command(tmp_path),
                    env=os.environ
                    | {
                        "OTEL_EXPORTER_OTLP_ENDPOINT": front.url,
                        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                    },
                    stdout=PIPE,
                )
                told: list[FeedEvent] = []
                try:
                    await _told_until(watch, told, "extract")
                    behind.answers_to_lose = 3
                    await _told_until(watch, told, "join")
                    os.kill(collector.pid, signal.SIGSTOP)
                    output, _ = await asyncio.wait_for(demo.communicate(), 300)
                finally:
                    os.kill(collector.pid, signal.SIGCONT)
                    if demo.returncode is None:
                        demo.kill()
                        await demo.wait()
                assert demo.returncode == 0
                await _told_until(watch, told, None)
            trace_id = trace_id_in(output.decode())
            views = await client.list(roots=False)
        assert {view.trace_id for view in views} == {trace_id}
        assert {(view.state, view.incomplete, view.dropped) for view in views} == {
            (State.SUCCEEDED, False, 0)
        }
        [run] = [view for view in views if view.parent_id is None]
        assert [step.name for step in run.steps] == STEPS
        assert sorted(view.name for view in views if view.parent_id == run.id) == CHILDREN

        sent = sent_by_run(front)
        assert by_run(told, late=False) == sent
        # A span that overtook its logs has told its run already: what the logs say then is marked, and said once.
        for run_id, kinds in by_run(told, late=True).items():
            assert not Counter(kinds) - Counter(sent[run_id])
        assert behind.answers_lost == 3
        await aeventually(lambda: metric(collector, "events_ignored_total", reason="duplicate") >= 3)

        await asyncio.to_thread(check_trace, phoenix, trace_id)
        assert metric(collector, "export_off", signal="logs") == 1
        assert metric(collector, "export_off", signal="traces") == 0
        assert metric(collector, "export_dropped_total", signal="traces") == 0
    log = collector.log.read_text()
    assert "Traceback" not in log


async def _told_until(watch: Watch, told: list[FeedEvent], step: str | None) -> None:
    """Follow until that step of the job starts; `None`: until the job and all that is below it has ended."""
    async with asyncio.timeout(300):
        async for event in watch:
            told.append(event)
            if step is not None and event.kind == "step.started" and event.step.name == step:
                return
            ended = {one.operation.id for one in told if not one.operation.live}
            if step is None and len(ended) == 1 + len(CHILDREN):
                return


def by_run(told: list[FeedEvent], *, late: bool) -> dict[str, list[str]]:
    """What the feed told of each run, in its order."""
    found: dict[str, list[str]] = defaultdict(list)
    for event in told:
        assert event.kind != "snapshot", "it was told anew, not followed"
        if event.late is late:
            found[event.operation.id].append(event.kind)
    return dict(found)


def sent_by_run(front: Relay) -> dict[str, list[str]]:
    """What the demo said of each run, by the sequence that it gave each event."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for record in front.log_records():
        if record.event_name in semconv.DURABLE_EVENTS:
            said = {attribute.key: attribute.value.int_value for attribute in record.attributes}
            run_id = f"{record.trace_id.hex()}-{record.span_id.hex()}"
            found[run_id][said[semconv.WRITER_SEQUENCE]] = record.event_name.removeprefix(semconv.PREFIX)
    return {run_id: [events[one] for one in sorted(events)] for run_id, events in found.items()}


def metric(collector: CollectorProcess, name: str, **labels: str) -> float:
    """The one line of `/metrics` with that name and those labels, the backend's name left out."""
    lines = [
        line
        for line in collector.get("/metrics").decode().splitlines()
        if line.startswith(f"otelprogress_collector_{name}{{")
        and all(f'{label}="{value}"' in line for label, value in labels.items())
    ]
    assert len(lines) == 1, lines
    return float(re.sub(r".*\} ", "", lines[0]))
