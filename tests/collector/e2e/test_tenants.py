"""Two tenants with tokens of one issuer on a whole collector: by no way in and no way out does one reach the other."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from websockets.exceptions import ConnectionClosed

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.bounds import check_run_id
from otelprogress.model.events import Event, State
from otelprogress_collector.app import Collector
from otelprogress_collector.auth import tokens
from otelprogress_collector.auth.principal import CONTROL, READ, WRITE
from otelprogress_collector.auth.private_file import write_private
from tests.collector.auth.issuing import AUDIENCE, ISSUER, SECRET, signed
from tests.collector.collecting import collecting
from tests.collector.e2e.reading import Message, Reader
from tests.collector.e2e.writing import Answer, Writer, ask, send
from tests.collector.receivers.messages import ASpan, Group, in_json, protobuf
from tests.waiting import aeventually, eventually

T = TypeVar("T")
CANARY = "canary"
"""Stands in every text of the tenant whose progress is asked for."""
EVERY_SCOPE = f"{READ} {WRITE} {CONTROL}"


def token(subject: str, *, expires_in_s: float = 300, **claims: Any) -> str:
    now_s = time.time()
    claims = {"scope": EVERY_SCOPE, "sub": subject, "jti": subject} | claims
    return signed(exp=now_s + expires_in_s, iat=now_s, **claims)


class Both:
    """A collector with something of both, and their tokens. Blocking parts run beside its loop: `beside`."""

    def __init__(self, collector: Collector, folder: Path) -> None:
        self.collector = collector
        self.folder = folder
        self.port = collector.http_port
        self.red = token("red", tenant="red")
        self.blue = token("blue", tenant="blue")
        self.nobody = token("nobody")
        self.only_web = token("web", tenant="red", services=["web"])
        self.hers = Writer(f"{CANARY} load", **{"service.name": f"{CANARY}-service"})
        self.his = Writer("blue load")

    def fill(self) -> None:
        hers = self.hers
        said = {"label": f"{CANARY}-label", "attributes": {"key": CANARY}, "steps": (CANARY,)}
        for body in (hers.started(**said), hers.noted(f"{CANARY} note")):
            assert send(self.port, body, token=self.red).status == 200
        assert send(self.port, self.his.started(), token=self.blue).status == 200

    @property
    def secrets(self) -> tuple[str, ...]:
        return CANARY, self.hers.run_id, self.hers.trace_id, self.hers.writer_id

    def assert_clean(self, said: str, *, asked: str = "") -> None:
        """Nothing of hers is in it but what was asked."""
        for part in (asked, *asked.split("/")):
            if part:
                said = said.replace(part, "")
        for secret in self.secrets:
            assert secret not in said


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    write_private(tmp_path / "secret", SECRET)
    (tmp_path / "denied").touch()
    issuer = {"issuer": ISSUER, "audiences": [AUDIENCE], "secret_file": str(tmp_path / "secret")}
    async with collecting(
        tmp_path / "data",
        jwt=[issuer],
        ingest_token=True,
        deny_list_file=str(tmp_path / "denied"),
        rules="name=stolen",
    ) as collector:
        # Who stands there at the first look at leases is given longer.
        await aeventually(lambda: collector.monitor._leases._ticked_at_s is not None)
        made = Both(collector, tmp_path)
        await beside(made.fill)
        yield made


async def beside(function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.to_thread(function, *arguments)


def partial(answer: Answer) -> tuple[int, str]:
    """How many records were refused, and why."""
    assert answer.status == 200, answer
    said = ExportLogsServiceResponse.FromString(answer.body).partial_success
    return said.rejected_log_records, said.error_message


def over_grpc(both: Both, body: bytes, shown: str | None) -> tuple[grpc.StatusCode, str]:
    """The answer to one log record that must not be taken."""
    metadata = () if shown is None else (("authorization", f"Bearer {shown}"),)
    with grpc.insecure_channel(f"127.0.0.1:{both.collector.grpc_port}") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        try:
            said = ExportLogsServiceResponse.FromString(
                export(body, metadata=metadata, timeout=20)
            ).partial_success
        except grpc.RpcError as refused:
            return refused.code(), refused.details()
        assert said.rejected_log_records == 1
        return grpc.StatusCode.OK, said.error_message


def state_of(both: Both, writer: Writer, shown: str) -> dict[str, Any]:
    answer = ask(both.port, f"/v1/operations/{writer.run_id}", token=shown)
    assert answer.status == 200, answer
    return json.loads(answer.body)


# --- what is read ----------------------------------------------------------------------------------------------------


async def test_no_path_shows_anything_of_the_other(both: Both):
    hers = both.hers
    queries = (
        "",
        "?roots=false&ended_within_s=1e9",
        f"?run={hers.run_id}",
        f"?trace_id={hers.trace_id}",
        f"?label={CANARY}-label",
        f"?service={CANARY}-service",
        f"?name={CANARY}*",
        f"?subtree={hers.run_id}",
        f"?after={hers.run_id}",
        f"?attribute=key={CANARY}",
    )
    named = (hers.run_id, f"{CANARY}_load-1", hers.run_id[:20], CANARY[:3], f"{CANARY}-label", hers.trace_id)
    paths = [
        *(f"/v1/operations{query}" for query in queries),
        *(f"/v1/operations/{name}" for name in named),
        f"/v1/operations/{hers.run_id}?after=0&wait=1",
        *("/metrics", "/openapi.json", "/healthz", "/readyz", "/v1/feed", "/v1/worker"),
    ]

    def look() -> None:
        for shown in (both.blue, both.nobody, both.only_web, None, "x", both.red[:-3] + "AAA"):
            for path in paths:
                if path == "/metrics" and shown == both.nobody:
                    continue  # a token of no tenant is the operator's: those of all are counted there
                answer = ask(both.port, path, token=shown)
                asked, _, query = path.partition("?")
                text = answer.body.decode() + str(answer.headers)
                both.assert_clean(text.replace(query or "\0", ""), asked=asked)
                assert answer.status < 500, path
        assert CANARY in ask(both.port, "/v1/operations", token=both.red).body.decode()

    await beside(look)


async def test_no_frame_shows_anything_of_the_other_whatever_is_asked_for(both: Both):
    hers = both.hers
    filters = [
        {"roots": False, "ended_within_s": 1e9},
        {"run": [hers.run_id, f"{CANARY}_load-1"]},
        {"trace_id": [hers.trace_id]},
        {"label": [f"{CANARY}-label"]},
        {"subtree": hers.run_id},
        {"service": [f"{CANARY}-service"]},
        {"attributes": {"key": CANARY}},
    ]

    def read(shown: str) -> list[Message]:
        with Reader(both.port, both.red) as red:
            stolen = red.subscribe()[-1]["cursor"]
        with Reader(both.port, shown) as reader:
            heard = [
                message
                for number, wanted in enumerate(filters)
                for level in ("ticks", "milestones", "terminal")
                for message in reader.subscribe(f"{number}-{level}", filter=wanted, level=level)
            ]
            resumed = reader.subscribe("stolen", filter={}, cursor=stolen)
            assert [one["reason"] for one in resumed if one["type"] == "gap"] == ["invalid"]
            heard += [one | {"from": ""} for one in resumed]
            for number, name in enumerate((hers.run_id, f"{CANARY}_load-1", "nobody-1")):
                reader.say("command", command_id=f"c-{number}", operation=name, action="cancel")
                status = reader.hear()
                # What was asked for may stand in the answer.
                heard.append(status | {"message": status["message"].replace(name, "…")})
            assert send(both.port, hers.noted(f"{CANARY} more"), token=both.red).status == 200
            # What comes after it, of his own, shows that it was passed over.
            marker = Writer("marker", **{"service.name": "web"})
            own = both.red if shown == both.only_web else shown
            assert send(both.port, marker.started(), token=own).status == 200
            heard += reader.hear_of("marker")
        return heard

    for shown in (both.blue, both.nobody, both.only_web):
        heard = await beside(read, shown)
        commands = [one for one in heard if one["type"] == "command_status"]
        assert len(commands) == 3
        assert len({(one["status"], one["message"]) for one in commands}) == 1, "as of one that nobody has"
        both.assert_clean(json.dumps(heard))


async def test_no_stream_shows_anything_of_the_other(both: Both):
    def read() -> str:
        with Reader(both.port, both.red) as red:
            stolen = red.subscribe()[-1]["cursor"]
        connection = http.client.HTTPConnection("127.0.0.1", both.port, timeout=20)
        try:
            connection.request(
                "GET",
                "/v1/feed/sse?roots=false",
                headers={"Authorization": f"Bearer {both.blue}", "Last-Event-ID": stolen},
            )
            answer = connection.getresponse()
            assert answer.status == 200
            said = b""
            while b"event: snapshot_end" not in said:
                said += answer.readline()
            assert b"event: gap" in said
            send(both.port, both.hers.noted(f"{CANARY} more"), token=both.red)
            send(both.port, both.his.noted("his own"), token=both.blue)
            while b"his own" not in said:
                said += answer.readline()
            return said.decode().replace(stolen, "")
        finally:
            connection.close()

    both.assert_clean(await beside(read))


# --- what is written -------------------------------------------------------------------------------------------------


async def test_nobody_writes_to_a_run_of_another_and_is_told_nothing_of_it(both: Both):
    intruder = Writer(run_id=both.hers.run_id)
    intruder.writer_id, intruder.sequence = both.hers.writer_id, both.hers.sequence

    def write() -> None:
        before = state_of(both, both.hers, both.red)
        for shown in (both.blue, both.nobody):
            for body in (intruder.noted("overwritten"), intruder.ended(State.FAILED), intruder.started()):
                refused, why = partial(send(both.port, body, token=shown))
                assert refused == 1
                both.assert_clean(why, asked=intruder.run_id)
        after = state_of(both, both.hers, both.red)
        assert after | {"as_of_unix_ns": 0} == before | {"as_of_unix_ns": 0}
        # Nor was a number of hers used up.
        assert partial(send(both.port, both.hers.noted("still hers"), token=both.red)) == (0, "")
        assert state_of(both, both.hers, both.red)["message"] == "still hers"

    await beside(write)


async def test_nobody_ends_a_run_of_another_by_its_span(both: Both):
    trace_id, span_id = (int(part, 16) for part in both.hers.run_id.split("-"))
    group = Group([ASpan(name="stolen", trace_id=trace_id, span_id=span_id)])

    def write() -> None:
        for path, body, kind in (
            ("/v1/traces", protobuf("traces", group), "application/x-protobuf"),
            ("/v1/traces", in_json("traces", group), "application/json"),
        ):
            answer = ask(both.port, path, body, token=both.blue, content_type=kind)
            assert answer.status == 200
            if kind != "application/json":
                said = ExportTraceServiceResponse.FromString(answer.body).partial_success
                both.assert_clean(said.error_message, asked=both.hers.run_id)
        seen = state_of(both, both.hers, both.red)
        assert (seen["state"], seen["name"]) == ("running", f"{CANARY} load")

    await beside(write)


async def test_a_parent_of_another_is_no_parent(both: Both):
    child = Writer("child", run_id=f"{both.hers.trace_id}-{'5' * 16}")
    parent_span_id = both.hers.run_id.partition("-")[2]

    def write() -> None:
        assert partial(send(both.port, child.started(parent_span_id=parent_span_id), token=both.blue))[0] == 0
        seen = state_of(both, child, both.blue)
        assert seen.get("parent_id") in (None, "")
        assert not [key for key, value in seen.items() if CANARY in json.dumps(value)]
        hers = state_of(both, both.hers, both.red)
        assert hers.get("children", {}) in ({}, []) or "child" not in json.dumps(hers)

    await beside(write)


async def test_over_grpc_it_is_the_same(both: Both):
    intruder = Writer(run_id=both.hers.run_id)

    body = intruder.noted("overwritten")
    code, why = await beside(over_grpc, both, body, both.blue)
    assert code is grpc.StatusCode.OK
    both.assert_clean(why, asked=intruder.run_id)
    for shown in (None, "x", both.red[:-3] + "AAA", token("red", tenant="red", expires_in_s=-1)):
        code, why = await beside(over_grpc, both, body, shown)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert (shown or "\0") not in why
    reads_only = token("reader", tenant="red", scope=READ)
    assert (await beside(over_grpc, both, body, reads_only))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_run_of_another_is_refused_in_the_words_of_an_id_that_no_run_can_have(both: Both):
    """Over either receiver, of either signal: else anybody could ask which runs there are."""
    intruder = Writer(run_id=both.hers.run_id)
    trace_id, span_id = (int(part, 16) for part in intruder.run_id.split("-"))
    said = [(semconv.OPERATION_STATE, "succeeded")]
    spans = Group([ASpan(attributes=said, trace_id=trace_id, span_id=span_id)])

    def reasons() -> list[str]:
        body = intruder.noted("overwritten")
        by_http = partial(send(both.port, body, token=both.blue))[1]
        as_span = ask(both.port, "/v1/traces", protobuf("traces", spans), token=both.blue)
        as_json = ask(
            both.port,
            "/v1/traces",
            in_json("traces", spans),
            token=both.blue,
            content_type="application/json",
        )
        return [
            by_http,
            over_grpc(both, body, both.blue)[1],
            ExportTraceServiceResponse.FromString(as_span.body).partial_success.error_message,
            json.loads(as_json.body)["partialSuccess"]["errorMessage"],
        ]

    with pytest.raises(InvalidRecord) as impossible:
        check_run_id("no run")
    expected = str(impossible.value).replace("no run", intruder.run_id)
    assert await beside(reasons) == [expected] * 4
    assert "tenant" not in expected


async def test_a_worker_link_of_another_says_nothing_for_her_writer(both: Both):
    """Its end is not the end of her process; while hers is open, another is refused."""

    def link() -> None:
        with Reader(both.port, None, path="/v1/worker") as his:
            his.say("register", version=1, writer=both.hers.writer_id, token=both.blue)
            assert his.hear()["type"] == "welcome"
        # Here he broke off without a farewell: his runs of that writer, and only his, are lost a second later.
        his_own = Writer("his own")
        his_own.writer_id = both.hers.writer_id
        send(both.port, his_own.started(), token=both.blue)
        for shown in (both.nobody, "x", token("reader", tenant="red", scope=READ)):
            with Reader(both.port, None, path="/v1/worker") as refused:
                refused.say("register", version=1, writer="w", token=shown)
                if shown == both.nobody:
                    assert refused.hear()["type"] == "welcome"
                    continue
                with pytest.raises(ConnectionClosed) as closed:
                    refused.hear()
                both.assert_clean(closed.value.rcvd.reason)

    await beside(link)
    links = both.collector.monitor.links
    await aeventually(lambda: not links.linked(both.hers.writer_id))
    assert (await beside(state_of, both, both.hers, both.red))["state"] == "running"


async def test_the_silence_of_one_tenants_process_is_not_that_of_anothers(both: Both):
    """Both run the same image: the same service, the same number of the process, and a writer that names itself no further."""
    hers = Writer(f"{CANARY} container", **{"process.pid": 1})
    his = Writer("his container", **{"process.pid": 1})

    def write() -> None:
        assert partial(send(both.port, hers.started(writer_id="", lease_s=600.0), token=both.red))[0] == 0
        assert partial(send(both.port, his.started(writer_id="", lease_s=0.5), token=both.blue))[0] == 0

    def lost() -> bool:
        return state_of(both, his, both.blue)["state"] == "lost"

    await beside(write)
    await beside(eventually, lost)
    assert (await beside(state_of, both, hers, both.red))["state"] == "running"


async def test_nobody_keeps_a_process_of_another_tenant_alive(both: Both):
    hers, his = Writer(f"{CANARY} silent"), Writer()

    def write() -> None:
        assert partial(send(both.port, hers.started(lease_s=1.0), token=both.red))[0] == 0

        def lost_in_spite_of_him() -> bool:
            alive = Event(
                kind=semconv.WRITER_ALIVE,
                run_id="",
                time_unix_ns=time.time_ns(),
                writer_id=hers.writer_id,
                lease_s=600.0,
            )
            assert send(both.port, his.encoded(alive), token=both.blue).status == 200
            return state_of(both, hers, both.red)["state"] == "lost"

        eventually(lost_in_spite_of_him, 5, every_s=0.1)

    await beside(write)


# --- restricted tokens, gateways ------------------------------------------------------------------------------------


async def test_a_token_of_one_service_writes_and_reads_that_one_only(both: Both):
    web = Writer("page", **{"service.name": "web"})
    other = Writer("other page", **{"service.name": "shop"})

    def use() -> None:
        assert partial(send(both.port, web.started(), token=both.only_web)) == (0, "")
        refused, why = partial(send(both.port, other.started(), token=both.only_web))
        assert refused == 1
        assert "shop" in why
        listed = json.loads(ask(both.port, "/v1/operations", token=both.only_web).body)["operations"]
        assert [one["name"] for one in listed] == ["page"]
        assert ask(both.port, f"/v1/operations/{both.hers.run_id}", token=both.only_web).status == 404

    await beside(use)


async def test_a_gateway_writes_for_each_tenant_that_its_resources_name(both: Both):
    gateway = token("gateway", tenant_from="customer", scope=WRITE)
    purple = Writer("of purple", customer="purple")
    nameless = Writer("of nobody")

    def use() -> None:
        assert partial(send(both.port, purple.started(), token=gateway)) == (0, "")
        assert partial(send(both.port, nameless.started(), token=gateway))[0] == 1
        # Not over what another wrote, by naming a wrong tenant.
        intruder = Writer(run_id=both.hers.run_id, customer="purple")
        assert partial(send(both.port, intruder.noted("overwritten"), token=gateway))[0] == 1
        reader = token("purple", tenant="purple", scope=READ)
        assert [
            one["name"]
            for one in json.loads(ask(both.port, "/v1/operations", token=reader).body)["operations"]
        ] == ["of purple"]
        assert ask(both.port, "/v1/operations", token=gateway).status == 403
        # A plain token says nothing about tenants by its resources.
        mine = Writer("mine", customer="red", tenant="red")
        send(both.port, mine.started(), token=both.blue)
        assert state_of(both, mine, both.blue)["name"] == "mine"
        assert ask(both.port, f"/v1/operations/{mine.run_id}", token=both.red).status == 404

    await beside(use)


# --- the end of a token ---------------------------------------------------------------------------------------------


async def test_nothing_comes_after_a_token_expired(both: Both):
    short = token("short", tenant="red", expires_in_s=2)

    def read() -> tuple[list[str], int, float]:
        expires_at_s = time.time() + 2
        heard: list[str] = []
        with Reader(both.port, short) as reader:
            reader.subscribe()
            try:
                while time.time() < expires_at_s + 20:
                    send(both.port, both.hers.noted("tick"), token=both.red)
                    message = reader.hear(5)
                    assert time.time() < expires_at_s + 0.5, message
                    heard.append(message["type"])
            except ConnectionClosed as closed:
                return heard, closed.rcvd.code, time.time() - expires_at_s
        raise AssertionError("it stayed open")

    heard, code, _ = await beside(read)
    assert "events" in heard
    assert code == 4501
    assert (await beside(lambda: ask(both.port, "/v1/operations", token=short))).status == 401

    def greeted() -> Message:
        with Reader(both.port, short) as reader:
            return reader.hello()

    with pytest.raises(ConnectionClosed):
        await beside(greeted)


async def test_a_renewed_token_keeps_the_connection_and_one_of_another_tenant_does_not_renew_it(both: Both):
    def read() -> None:
        with Reader(both.port, token("short", tenant="red", expires_in_s=2)) as reader:
            reader.subscribe()
            reader.say("auth", token=token("long", tenant="red", expires_in_s=300))
            until_s = time.time() + 3
            while time.time() < until_s:
                send(both.port, both.hers.noted("still here"), token=both.red)
                assert reader.hear_until(lambda message: message["type"] == "events")
            reader.say("auth", token=both.blue)
            answer = reader.hear_until(lambda message: message["type"] != "events")[-1]
            assert answer["type"] == "error"
            both.assert_clean(json.dumps(answer))

    await beside(read)


async def test_a_revoked_token_is_cut_off_within_seconds(both: Both):
    data = both.folder / "data"
    static = tokens.create_token(
        data / "tokens.json", "static", [READ, WRITE], tenant="red", now_unix_s=time.time()
    )
    await aeventually(lambda: _judged(both, static), 10)

    def opened(shown: str) -> Reader:
        reader = Reader(both.port, shown)
        reader.__enter__()
        reader.subscribe()
        return reader

    def cut(reader: Reader) -> int:
        try:
            while True:
                reader.hear(12)
        except ConnectionClosed as closed:
            return closed.rcvd.code
        finally:
            reader.__exit__(None, None, None)

    by_file, by_list = await beside(opened, static), await beside(opened, both.red)
    tokens.revoke_token(data / "tokens.json", "static")
    (both.folder / "denied").write_text("red\n")
    assert await beside(cut, by_file) == 4401
    assert await beside(cut, by_list) == 4401
    for shown in (static, both.red):
        assert (await beside(lambda shown=shown: ask(both.port, "/v1/operations", token=shown))).status == 401
        assert (await beside(lambda shown=shown: send(both.port, b"", token=shown))).status == 401


def _judged(both: Both, shown: str) -> bool:
    try:
        both.collector.authority.judge(shown, time.time())
    except Exception:
        return False
    return True
