"""The main path with real parts: code that reports, the feed, a client, and what the application's exporter gets."""

from __future__ import annotations

import asyncio
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

import otelprogress as progress
from otelprogress import runtime
from otelprogress.feed import runtime_file


@pytest.fixture
def exported(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    progress.configure(feed="127.0.0.1:0", service_name="etl", integrations=())
    yield exporter
    runtime.shutdown()


ROWS = [{"day": day, "ok": day % 3 != 0} for day in range(30)]


@progress.operation(
    "nightly load", title="nightly load {day}", steps={"extract": 1, "clean": 2, "load": 6}, result=True
)
def nightly_load(day: str, go_on: threading.Event) -> int:
    with progress.step("extract"):
        rows = list(ROWS)
    with progress.step("clean") as step:
        good = []
        for row in step.track(rows, unit="row"):
            if row["ok"]:
                good.append(row)
            else:
                step.count(rejected=1)
            if row["day"] == 20:
                assert go_on.wait(30), "nobody saw the loop while it ran"
        if n := step.counts["rejected"]:
            step.note(f"{n} rows rejected: bad date", level="warning")
    with progress.step("load") as step:
        for table in step.track(["flights", "planes"], unit="table"):
            with progress.operation("load table", title=table) as child:
                child.set_total(len(good), unit="row")
                child.advance(len(good))
    return len(good)


async def test_every_step_is_seen_live_and_the_trace_is_whole(exported):
    go_on = threading.Event()
    seen = []
    (found,) = runtime_file.scan()
    async with progress.AsyncClient(found.content.url, found.content.token) as client:
        stream = client.watch(level="ticks", roots=False, max_rate_hz=50)
        joined = asyncio.Event()

        async def follow() -> None:
            async for event in stream:
                if event.operation.name == "warm up":
                    joined.set()
                    continue
                seen.append(event)
                step = event.step or event.operation.step
                if step is not None and step.name == "clean" and step.completed == 20:
                    go_on.set()  # only now may the loop go on: this tick was seen while it stood in its body
                if event.kind == "operation.ended" and event.operation.name == "nightly load":
                    return

        following = asyncio.ensure_future(follow())
        with progress.operation("warm up"):
            await asyncio.wait_for(joined.wait(), 30)
        work = asyncio.ensure_future(asyncio.to_thread(nightly_load, "monday", go_on))
        await asyncio.wait_for(following, 60)
        assert await work == 20

        last = await client.get("nightly_load-1")
        listed = await client.list(roots=False)

    milestones = [
        (event.kind, event.step.name)
        for event in seen
        if event.step is not None and event.kind.startswith("step.")
    ]
    assert milestones == [
        (kind, name) for name in ("extract", "clean", "load") for kind in ("step.started", "step.ended")
    ]
    ratios = [event.operation.ratio or 0 for event in seen if event.operation.name == "nightly load"]
    assert ratios == sorted(ratios), "progress never goes back"
    assert ratios[-1] == 1
    (warning,) = [event for event in seen if event.kind == "operation.noted"]
    assert (warning.message, warning.level) == ("10 rows rejected: bad date", "warning")

    assert (last.state, last.title, last.service, last.result) == (
        "succeeded",
        "nightly load monday",
        "etl",
        "20",
    )
    clean = last.steps[1]
    assert (clean.completed, clean.total, clean.unit, clean.counters) == (30, 30, "{row}", {"rejected": 10})
    assert last.children is not None
    assert (last.children.total, last.children.succeeded) == (2, 2)
    assert sorted(view.title for view in listed) == ["flights", "nightly load monday", "planes", "warm up"]

    _, *children, root = exported.get_finished_spans()
    assert [span.name for span in children] == ["load table", "load table"]
    assert {span.parent.span_id for span in children} == {root.context.span_id}
    assert last.id == f"{root.context.trace_id:032x}-{root.context.span_id:016x}"
    assert [event.name.removeprefix("otelprogress.") for event in root.events] == [
        "step.started",
        "step.ended",
        "step.started",
        "operation.noted",
        "step.ended",
        "step.started",
        "step.ended",
        "operation.ended",
    ]
    assert root.attributes["otelprogress.operation.state"] == "succeeded"
    assert root.status.is_ok or root.status.status_code is trace.StatusCode.UNSET


def test_the_blocking_client_waits_for_the_end(exported):
    go_on = threading.Event()
    go_on.set()
    thread = threading.Thread(target=nightly_load, args=("tuesday", go_on))
    thread.start()
    with progress.Client() as client:
        thread.join()
        news = client.wait("nightly_load", until="end", timeout_s=30)
        assert news.operation.state == "succeeded"
