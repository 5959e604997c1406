"""One run of an invoices program, in whichever language, and what a collector has to make of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from otelprogress.feed.client import AsyncClient
from otelprogress.model.events import FeedEvent, OperationView, State, StepState
from otelprogress_collector.app import Collector
from tests.collector.collecting import collecting
from tests.foreign.dialogue import Program, operations, running
from tests.otel.otlp_server import GrpcReceiver
from tests.waiting import aeventually

EVENTS_OF_ROOT = [
    ("operation.started", None),
    ("step.started", "fetch"),
    ("step.ended", "fetch"),
    ("operation.noted", "3 addresses are incomplete"),
    ("step.started", "send"),
    ("operation.noted", "mail server says hello"),
    ("step.ended", "send"),
    ("operation.ended", None),
]
TRACE = ["invoices", "send batch", "send batch"]


Way = Callable[[Collector, str], AbstractAsyncContextManager[str]]
"""From a collector and its URL to the URL that the program sends to."""


@asynccontextmanager
async def direct(collector: Collector, url: str) -> AsyncIterator[str]:
    yield url


async def check_invoices(
    tmp_path: Path,
    command: Sequence[str | Path],
    *,
    grpc: bool = False,
    through: Way = direct,
    **environment: str,
) -> None:
    """Run the program against a collector: its operation is seen while it runs, then with all that became of it.

    Args:
        tmp_path: for the collector's data.
        command: of the program.
        grpc: whether it speaks OTLP/gRPC.
        through: what stands between it and the collector.
        **environment: of the program, beside the endpoint.
    """
    with GrpcReceiver() as backend:
        exporters = [{"name": "backend", "url": backend.url, "protocol": "grpc"}]
        async with collecting(tmp_path / "data", exporters=exporters) as collector:
            port = collector.grpc_port if grpc else collector.http_port
            async with through(collector, f"http://127.0.0.1:{port}") as endpoint:
                environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
                async with running(command, **environment) as program:
                    await _follow(collector, program)
            await aeventually(lambda: len(backend.spans()) == len(_ended(backend)) == len(TRACE))
        assert sorted(span.name for span in backend.spans()) == TRACE


def _ended(backend: GrpcReceiver) -> set[bytes]:
    """The span ids of the ends that were forwarded: requests that came twice are forwarded twice."""
    return {
        record.span_id
        for record in backend.log_records()
        if record.event_name == "otelprogress.operation.ended"
    }


async def _follow(collector: Collector, program: Program) -> None:
    trace_id, span_id = await program.says()
    url, seen = f"ws://127.0.0.1:{collector.http_port}", list[FeedEvent]()
    async with AsyncClient(url, collector.own_token) as client:
        async with client.watch(trace_id=trace_id, level="ticks") as watch:
            async for event in watch:  # what it says first may still be on its way
                seen.append(event)
                if event.operation.step is not None and event.operation.step.completed == 40:
                    break
            check_while_it_runs(event.operation, span_id)
            program.go_on()
            while not (event := await anext(watch)).operation.id.endswith(span_id) or event.operation.live:
                seen.append(event)
            seen.append(event)
        await program.end()
        check_events(seen, f"{trace_id}-{span_id}")
        views = await operations(collector, trace_id=trace_id)
        check_after_it_ran(views, span_id)
        assert {view.id for view in await client.list(roots=False)} == {view.id for view in views}
        check_after_it_ran([await client.get(view.id) for view in views], span_id)


def check_while_it_runs(root: OperationView, span_id: str) -> None:
    assert (root.name, root.title, root.service) == ("invoices", "Invoices of May", "billing")
    assert (root.state, root.step_count, root.parent_id) == (State.RUNNING, 2, None)
    assert root.id.endswith(span_id)
    step = root.step
    assert (step.name, step.state, step.total, step.unit) == ("fetch", StepState.RUNNING, 120, "{invoice}")
    assert (root.ratio, root.ratio_source) == (40 / 120 / 2, "measured")


def check_after_it_ran(views: list[OperationView], span_id: str) -> None:
    assert len(views) == len(TRACE)
    # JavaScript counts milliseconds: the two batches may have started at the same time.
    [root] = [view for view in views if view.parent_id is None]
    [first] = [view for view in views if view.name == "send batch" and view.state is State.SUCCEEDED]
    [second] = [view for view in views if view.name == "send batch" and view.state is State.FAILED]
    assert (root.id[33:], root.state, root.ratio) == (span_id, State.SUCCEEDED, 1.0)
    assert (root.incomplete, root.dropped, root.warnings) == (False, 0, 1)
    fetch, send = root.steps
    assert (fetch.name, fetch.state, fetch.completed, fetch.total) == ("fetch", StepState.SUCCEEDED, 120, 120)
    assert (fetch.unit, fetch.counters) == ("{invoice}", {"rejected": 2.5})
    assert (send.name, send.state) == ("send", StepState.SUCCEEDED)
    assert (root.children.succeeded, root.children.failed) == (1, 1)
    assert first.parent_id == second.parent_id == root.id
    assert first.step.completed == 7
    assert (second.error_type, second.error_message) == ("RangeError", "no stamp left")
    assert first.parent_step_index == second.parent_step_index == 1


def check_events(seen: list[FeedEvent], root_id: str) -> None:
    """Each durable event once, in order; a snapshot stands for those before it."""
    told = [
        (event.kind, event.step.name if event.step else event.message)
        for event in seen
        if event.operation.id == root_id and event.kind not in ("snapshot", "operation.progressed")
    ]
    assert told == EVENTS_OF_ROOT[-len(told) :]
    assert len(told) >= len(EVENTS_OF_ROOT) - 2
