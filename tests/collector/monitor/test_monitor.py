"""Verdicts over real links and sockets, and the spans that follow from them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from otelprogress.model.events import State
from otelprogress.protocol.encoding import encode
from otelprogress.protocol.messages import SUBPROTOCOL, Alive, Bye, LinkEvents, Register
from otelprogress_collector.auth.principal import READ, WRITE, Denied, Principal
from otelprogress_collector.auth.rate import Doorstep
from otelprogress_collector.host import CollectorHost
from otelprogress_collector.monitor.monitor import Monitor
from otelprogress_collector.recording import open_hub
from otelprogress_collector.store.memory import MemoryStore
from tests.collector.serving import served
from tests.model.saying import Saying
from tests.waiting import aeventually

TOKENS = {
    "good": Principal(actor="a", scopes=frozenset({WRITE})),
    "reader": Principal(actor="r", scopes=frozenset({READ})),
    "other tenant": Principal(actor="o", scopes=frozenset({WRITE}), tenant="other"),
}


class Collector:
    """Host, monitor and a port."""

    def __init__(self, **settings) -> None:
        store = MemoryStore()
        hub, recorder = open_hub(store, store.open(), 0)
        self.host = CollectorHost(hub, store, recorder)
        self.spans: list[bytes] = []
        self.monitor = Monitor(self.host, admit=self._admit, send_span=self._send, **settings)
        self.port = 0

    async def _admit(self, websocket, token):
        shown = websocket.headers.get("authorization", "").removeprefix("Bearer ")
        principal = TOKENS.get(token or shown)
        if principal is None:
            raise Denied("the token is wrong")
        return principal

    async def _send(self, request: bytes) -> None:
        self.spans.append(request)

    def view(self, run: Saying):
        return self.host.hub.view(run.id, self.host.clock.time_unix_ns())

    def link(self, **options):
        return connect(
            f"ws://127.0.0.1:{self.port}/v1/worker", subprotocols=[SUBPROTOCOL], ping_interval=None, **options
        )

    async def registered(self, writer: str = "w1", token: str = "good", **resource):
        link = await self.link()
        await link.send(encode(Register(version=1, writer=writer, token=token, resource=resource)).decode())
        await link.recv()
        return link


@pytest.fixture
async def collector():
    async with running() as one:
        yield one


@asynccontextmanager
async def running(**settings):
    one = Collector(**{"grace_s": 0.05, "farewell_grace_s": 0.05, **settings})
    one.host.start()
    one.monitor.start()
    app = Starlette(routes=[WebSocketRoute("/v1/worker", one.monitor.links.serve)])
    async with served(app) as one.port:
        yield one
        await one.monitor.close()
    await one.host.close()


async def started(collector: Collector, **said) -> Saying:
    run = Saying()
    await collector.host.accept([run.started(**said)], 100)
    return run


def reset(link) -> None:
    """Let the kernel send RST, as for a process that dies with unread data."""
    sock: socket.socket = link.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.transport.abort()


async def test_a_link_that_is_reset_takes_its_runs_with_it(collector):
    link = await collector.registered()
    run = await started(collector)
    reset(link)
    await aeventually(lambda: collector.view(run).state is State.LOST)
    view = collector.view(run)
    assert (view.lost_detector, view.lost_cause) == ("link", "the connection was reset")
    assert view.lost_evidence_unix_ns >= view.started_at_unix_ns


async def test_a_process_that_was_killed_is_lost_with_its_pid_in_the_cause(collector):
    program = (
        "import sys, time; from websockets.sync.client import connect\n"
        "link = connect(sys.argv[1], subprotocols=['otelprogress.v1.json'])\n"
        "import os, json\n"
        "link.send(json.dumps({'type': 'register', 'version': 1, 'writer': 'w1', 'token': 'good',"
        " 'resource': {'process.pid': os.getpid()}}))\n"
        "link.recv(); print('linked', flush=True); time.sleep(600)\n"
    )
    url = f"ws://127.0.0.1:{collector.port}/v1/worker"
    process = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE)
    await asyncio.to_thread(process.stdout.readline)
    run = await started(collector)
    process.kill()
    process.wait()
    process.stdout.close()
    await aeventually(lambda: collector.view(run).state is State.LOST)
    assert f"process {process.pid} is gone" in collector.view(run).lost_cause


async def test_a_writer_that_is_back_in_time_loses_nothing():
    async with running(grace_s=30.0) as collector:
        link = await collector.registered()
        run = await started(collector)
        reset(link)
        await aeventually(lambda: collector.monitor.links.connected == [])
        back = await collector.registered()
        await aeventually(lambda: collector.monitor.links.connected == ["w1"])
        assert collector.view(run).state is State.RUNNING
        await back.close()


async def test_a_lost_writer_that_registers_again_revives_its_runs(collector):
    link = await collector.registered()
    run = await started(collector)
    reset(link)
    await aeventually(lambda: collector.view(run).state is State.LOST)
    back = await collector.registered()
    await aeventually(lambda: collector.view(run).state is State.RUNNING)
    await back.close()


async def test_what_a_writer_leaves_open_when_it_says_goodbye_is_lost_at_its_exit(collector):
    link = await collector.registered()
    run = await started(collector)
    await link.send(encode(Bye()).decode())
    await link.close()
    await aeventually(lambda: collector.view(run).state is State.LOST)
    assert collector.view(run).lost_detector == "atexit"
    assert collector.monitor.links.stats.ended_without_farewell == 0


async def test_one_link_per_writer_the_older_one_is_cut_and_nobody_is_lost(collector):
    first = await collector.registered()
    run = await started(collector)
    second = await collector.registered()
    with pytest.raises(ConnectionClosed):
        await first.recv()
    await second.send(encode(Alive()).decode())
    assert collector.monitor.links.connected == ["w1"]
    assert collector.view(run).state is State.RUNNING
    await second.close()


@pytest.mark.parametrize(
    ("token", "code"), [("wrong", 4401), ("reader", 4403), (None, 4401)], ids=["wrong", "scope", "none"]
)
async def test_who_may_not_write_is_refused_with_the_documented_code(collector, token, code):
    link = await collector.link()
    await link.send(encode(Register(version=1, writer="w1", token=token)).decode())
    with pytest.raises(ConnectionClosed) as closed:
        await link.recv()
    assert closed.value.rcvd.code == code
    assert collector.monitor.links.connected == []


async def test_a_writer_of_another_tenant_is_another_one_whatever_it_calls_itself(collector):
    link = await collector.registered()
    intruder = await collector.link()
    await intruder.send(encode(Register(version=1, writer="w1", token="other tenant")).decode())
    assert '"welcome"' in await intruder.recv()
    links = collector.monitor.links
    assert links.connected_of_tenants() == [("w1", ""), ("w1", "other")]
    await intruder.close()
    await aeventually(lambda: not links.linked("w1", "other"))
    assert links.connected == ["w1"]
    await link.close()


async def test_the_end_of_another_tenants_link_ends_no_run_of_ours(collector):
    run = await started(collector)
    link = await collector.registered(token="other tenant")
    reset(link)
    await aeventually(lambda: collector.monitor.links.linked("w1") is False)
    await collector.host.accept([run.step("load", 1)], 100)
    assert collector.view(run).state is State.RUNNING


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        '{"type": "hello", "version": 1}',
        '{"type": "register", "version": 9, "writer": "w"}',
        "x" * 5000,
    ],
)
async def test_what_is_no_registration_closes_the_connection_for_good(collector, frame):
    link = await collector.link()
    await link.send(frame)
    with pytest.raises(ConnectionClosed) as closed:
        await link.recv()
    assert closed.value.rcvd.code in (4400, 1009)


async def test_events_over_the_link_are_refused_and_their_writer_is_not_lost_for_it(collector):
    run = await started(collector)
    link = await collector.registered()
    await link.send(encode(LinkEvents(n=1)).decode())
    with pytest.raises(ConnectionClosed) as closed:
        await link.recv()
    assert closed.value.rcvd.code == 4400
    assert not collector.monitor.links.linked("w1")
    assert collector.view(run).state is State.RUNNING


async def test_without_the_subprotocol_there_is_no_upgrade(collector):
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{collector.port}/v1/worker")
    assert refused.value.response.status_code == 400


async def test_who_says_nothing_is_cut_off(collector, monkeypatch):
    monkeypatch.setattr("otelprogress_collector.monitor.worker_links._REGISTER_TIMEOUT_S", 0.05)
    link = await collector.link()
    with pytest.raises(ConnectionClosed) as closed:
        await link.recv()
    assert closed.value.rcvd.code == 4408


async def test_only_so_many_of_one_address_may_stand_there_unregistered():
    async with running(doorstep=Doorstep(per_address=2)) as collector:
        strangers = [await collector.link(), await collector.link()]
        with pytest.raises(InvalidStatus) as refused:
            await collector.link()
        answer = refused.value.response
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert b"have not registered" in answer.body
        # Who shows a good token with the request does not wait behind them; one that may not write does.
        known = await collector.link(additional_headers={"Authorization": "Bearer good"})
        with pytest.raises(InvalidStatus):
            await collector.link(additional_headers={"Authorization": "Bearer reader"})
        assert collector.monitor.links.stats.refused == 2
        # A place is free again once one has registered, or is gone.
        await strangers[0].send(encode(Register(version=1, writer="w1", token="good")).decode())
        await strangers[0].recv()
        strangers.append(await collector.link())
        await strangers[1].close()
        strangers.append(await _let_in(collector))
        for link in (*strangers, known):
            await link.close()


async def test_a_place_is_free_again_once_one_was_refused_or_said_nothing(monkeypatch):
    monkeypatch.setattr("otelprogress_collector.monitor.worker_links._REGISTER_TIMEOUT_S", 0.05)
    async with running(doorstep=Doorstep(per_address=1)) as collector:
        for said in ("{", encode(Register(version=1, writer="w1", token="wrong")).decode(), None):
            link = await _let_in(collector)
            if said is not None:
                await link.send(said)
            with pytest.raises(ConnectionClosed):
                await link.recv()
        assert not collector.monitor.links.connected
        await (await _let_in(collector)).close()


async def _let_in(collector: Collector):
    """The server hears of an end a moment after its peer."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(InvalidStatus):
                return await collector.link()
            await asyncio.sleep(0.01)


async def test_the_collectors_own_end_is_nobodys_death(collector):
    link = await collector.registered()
    run = await started(collector)
    await collector.monitor.close()
    assert '"drain"' in await link.recv()
    with pytest.raises(ConnectionClosed) as closed:
        await link.recv()
    assert closed.value.rcvd.code == 1012
    assert collector.view(run).state is State.RUNNING


async def test_interest_reaches_the_worker_when_it_changes():
    asked: list[tuple[str, list[str]]] = []

    def interests(tenant, run_ids):
        asked.append((tenant, list(run_ids)))
        return 10.0

    async with running(interests=interests) as collector:
        link = await collector.registered()
        run = await started(collector)
        assert '"rate_hz":10' in await link.recv()
        await aeventually(lambda: ("", [run.id]) in asked)
        await link.close()


async def test_a_lease_that_runs_out_is_a_verdict_where_there_is_no_link():
    async with running() as collector:  # from its start on: only who was there before it has longer
        run = await started(collector, lease_s=0.1)
        await aeventually(lambda: collector.view(run).state is State.LOST)
        view = collector.view(run)
        assert (view.lost_detector, view.lost_cause) == ("lease", "not heard within its lease of 0.1 s")


async def test_an_open_link_keeps_a_silent_writer_alive():
    async with running() as collector:
        link = await collector.registered()
        run = await started(collector, lease_s=0.01)
        ticked = collector.monitor._leases._ticked_at_s
        await aeventually(lambda: collector.monitor._leases._ticked_at_s >= ticked + 1.5)
        assert collector.view(run).state is State.RUNNING
        await link.close()


# --- closing spans ---------------------------------------------------------------------------------------------------


def the_span(request: bytes):
    return ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans[0]


async def test_the_span_of_a_proven_death_is_closed_at_once_and_once(collector):
    link = await collector.registered()
    run = await started(collector, parent_span_id="00000000000000aa", service="etl")
    reset(link)
    await aeventually(lambda: collector.spans)
    span = the_span(collector.spans[0])
    assert f"{span.trace_id.hex()}-{span.span_id.hex()}" == run.id
    assert span.parent_span_id.hex() == "00000000000000aa"
    ticked = collector.monitor._leases._ticked_at_s
    await aeventually(lambda: collector.monitor._leases._ticked_at_s > ticked + 0.4)
    assert len(collector.spans) == 1


async def test_a_span_that_was_not_sampled_is_closed_by_nobody(collector):
    link = await collector.registered()
    run = await started(collector, sampled=False)
    reset(link)
    await aeventually(lambda: collector.view(run).state is State.LOST)
    await aeventually(lambda: not collector.monitor._closings.concerned)
    assert collector.spans == []


async def test_the_span_of_a_lease_that_ran_out_is_held_and_a_true_end_meanwhile_forgets_it():
    async with running(hold_s=3600.0) as collector:
        run = await started(collector, lease_s=0.05)
        await aeventually(lambda: collector.view(run).state is State.LOST)
        await aeventually(lambda: collector.monitor._closings.held(run.id))
        await collector.host.accept([run.ended(1)], 100)
        await aeventually(lambda: not collector.monitor._closings.held(run.id))
        assert collector.spans == []


async def test_a_true_span_that_comes_after_its_closing_one_is_forwarded_under_a_new_id(collector):
    link = await collector.registered()
    run = await started(collector)
    trace_id, span_id = bytes.fromhex(run.id[:32]), bytes.fromhex(run.id[33:])
    true = ExportTraceServiceRequest()
    true.resource_spans.add().scope_spans.add().spans.add(
        trace_id=trace_id, span_id=span_id, name="nightly load"
    )
    body = true.SerializeToString()
    assert collector.monitor.revised(body, "protobuf") is body
    reset(link)
    await aeventually(lambda: collector.spans)
    revised = the_span(collector.monitor.revised(body, "protobuf"))
    assert revised.span_id != span_id
    assert revised.links[0].span_id == span_id


async def test_verdicts_whose_spans_were_not_closed_before_a_restart_are_closed_after_it():
    store = MemoryStore()
    hub, recorder = open_hub(store, store.open(), 0)
    host = CollectorHost(hub, store, recorder)
    host.start()
    run = Saying()
    await host.accept([run.started(), run.lost(5)], 100)
    spans: list[bytes] = []

    async def send(request: bytes) -> None:
        spans.append(request)

    async def admit(websocket, token):
        raise Denied("nobody")

    monitor = Monitor(host, admit=admit, send_span=send)
    monitor.start()
    await aeventually(lambda: spans)
    assert the_span(spans[0]).span_id.hex() == run.id[33:]
    await monitor.close()
    await host.close()


async def test_a_listed_pid_of_nobody_is_gone():
    from otelprogress_collector.monitor.worker_links import _exists

    assert _exists(os.getpid())
    assert not _exists(2**22 + 7)
