"""OTLP/HTTP against a real server: every answer of the specification, real exporters, and bad senders."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager

import pytest
import requests
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.applications import Starlette

from otelprogress.model import semconv
from otelprogress_collector.host import Accepted, Overloaded
from otelprogress_collector.receivers.limits import MIB, Limits
from otelprogress_collector.receivers.otlp_http import routes
from otelprogress_collector.store.interface import StoreUnavailable
from tests.collector.receivers.fakes import Desk, by_fixed_tokens
from tests.collector.receivers.messages import ASpan, Group, Log, request
from tests.collector.serving import served
from tests.waiting import aeventually

TYPES = {"protobuf": "application/x-protobuf", "json": "application/json"}
both = pytest.mark.parametrize("encoding", ["protobuf", "json"])
PATH = "/v1/logs"


def step(**said) -> Log:
    return Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, "load")], **said)


class Client:
    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def post(self, path=PATH, body=b"", encoding="protobuf", **said) -> requests.Response:
        headers = {"content-type": TYPES[encoding]} | said.pop("headers", {})
        return await self.ask("POST", path, data=body, headers=headers, **said)

    async def ask(self, method: str, path: str = PATH, **said) -> requests.Response:
        return await asyncio.to_thread(requests.request, method, self.url + path, timeout=30, **said)

    async def raw(self, *parts: bytes) -> bytes:
        """What comes back on a connection of its own, up to its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def receiving(desk: Desk | None = None, **said):
    desk = desk or Desk(said.get("limits", Limits()))
    async with served(Starlette(routes=routes(desk.ingest, by_fixed_tokens, **said))) as port:
        yield Client(port), desk


def read_status(answer: requests.Response, encoding: str) -> tuple[int, str]:
    assert answer.headers["content-type"] == TYPES[encoding]
    if encoding == "json":
        said = answer.json()
        return said["code"], said["message"]
    message = Status.FromString(answer.content)
    return message.code, message.message


# --- success ---------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("packed", [False, True])
async def test_a_request_is_taken_passed_on_and_answered_in_its_own_type(encoding, packed):
    body = request("logs", encoding, Group([step()]))
    async with receiving() as (client, desk):
        answer = await client.post(
            body=gzip.compress(body) if packed else body,
            encoding=encoding,
            headers={"content-encoding": "gzip"} if packed else {},
        )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[encoding]
    assert answer.content == (b"" if encoding == "protobuf" else b"{}")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert desk.kinds == [semconv.STEP_STARTED]
    assert desk.forwarded == [("logs", body, encoding, False)]


@both
@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
async def test_an_empty_request_succeeds_on_every_path(signal, encoding):
    async with receiving() as (client, _):
        answer = await client.post(f"/v1/{signal}", b"" if encoding == "protobuf" else b"{}", encoding)
    assert answer.status_code == 200


async def test_partial_success_says_how_many_and_why():
    bad = Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, 7)])
    async with receiving() as (client, desk):
        for encoding in ("protobuf", "json"):
            body = request("logs", encoding, Group([bad, step()]))
            answer = await client.post(body=body, encoding=encoding)
            assert answer.status_code == 200
            if encoding == "protobuf":
                partial = ExportLogsServiceResponse.FromString(answer.content).partial_success
                told = (partial.rejected_log_records, partial.error_message)
            else:
                partial = answer.json()["partialSuccess"]
                told = (int(partial["rejectedLogRecords"]), partial["errorMessage"])
            assert told == (1, "otelprogress.step.name must be a string, not 7")
    assert len(desk.host.events) == 2


async def test_what_the_model_refused_is_told_too():
    desk = Desk()
    desk.host.answer = Accepted(1, "the model says no")
    async with receiving(desk) as (client, _):
        answer = await client.post(body=request("logs", "protobuf", Group([step()])))
    partial = ExportLogsServiceResponse.FromString(answer.content).partial_success
    assert (partial.rejected_log_records, partial.error_message) == (1, "the model says no")


async def test_rejected_spans_are_told_as_spans_and_not_passed_on():
    async with receiving() as (client, desk):
        answer = await client.post(
            "/v1/traces",
            request("traces", "protobuf", Group([ASpan()], [("service.name", "shop")])),
            headers={"authorization": "Bearer etl-only"},
        )
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 1
    assert "service 'shop'" in partial.error_message
    assert desk.forwarded == []


@pytest.mark.parametrize(
    "content_type", ["application/x-protobuf", "Application/X-Protobuf; charset=x", "application/protobuf"]
)
async def test_a_content_type_may_be_written_in_several_ways(content_type):
    async with receiving() as (client, _):
        answer = await client.post(headers={"content-type": content_type})
    assert answer.status_code == 200


async def test_a_body_without_a_length_is_taken():
    body = request("logs", "json", Group([step()]))
    async with receiving() as (client, desk):
        pieces = iter([body[:10], body[10:]])
        answer = await client.post(body=pieces, encoding="json")
    assert (answer.status_code, desk.kinds) == (200, [semconv.STEP_STARTED])


# --- refusals --------------------------------------------------------------------------------------------------------


@both
async def test_a_body_that_cannot_be_read_is_400(encoding):
    async with receiving() as (client, desk):
        answer = await client.post(body=b"\x07 nothing", encoding=encoding)
    assert answer.status_code == 400
    code, message = read_status(answer, encoding)
    assert code == 3
    assert message
    assert desk.forwarded == []


@both
async def test_a_body_that_is_not_the_gzip_it_claims_to_be_is_400(encoding):
    async with receiving() as (client, _):
        for body in (b"{}", gzip.compress(b"{}") + b"rubbish", gzip.compress(b"{}")[:-3]):
            answer = await client.post(body=body, encoding=encoding, headers={"content-encoding": "gzip"})
            assert answer.status_code == 400


@both
async def test_an_unknown_token_is_401_and_one_that_may_not_write_403(encoding):
    async with receiving() as (client, desk):
        for token, status, code in (("unknown", 401, 16), ("reader", 403, 7)):
            answer = await client.post(encoding=encoding, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == status
            assert read_status(answer, encoding)[0] == code
            assert token not in answer.text.replace("the token is unknown", "")
            assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert desk.host.events == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_other_methods_are_405_and_tell_the_right_one(method):
    async with receiving() as (client, _):
        answer = await client.ask(method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/xml"],
)
async def test_what_a_page_of_another_site_can_send_is_415(content_type):
    async with receiving() as (client, desk):
        answer = await client.post(body=b"{}", headers={"content-type": content_type})
    assert answer.status_code == 415
    assert answer.json()["code"] == 3
    assert desk.forwarded == []


@pytest.mark.parametrize("content_encoding", ["br", "deflate", "zstd", "gzip, gzip", "x"])
async def test_other_content_encodings_are_415(content_encoding):
    async with receiving() as (client, _):
        answer = await client.post(headers={"content-encoding": content_encoding})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")


async def test_a_foreign_host_is_403():
    asked = []

    def allowed(host: str) -> bool:
        asked.append(host)
        return host.startswith("127.0.0.1")

    async with receiving(host_allowed=allowed) as (client, _):
        assert (await client.post()).status_code == 200
        answer = await client.post(headers={"host": "evil.example"})
        assert answer.status_code == 403
        doubled = await client.raw(
            b"POST /v1/logs HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
        )
    assert doubled.startswith(b"HTTP/1.1 403")
    assert asked == [f"127.0.0.1:{client.port}", "evil.example", "evil.example"]


@both
async def test_a_host_that_is_overloaded_is_503_with_a_short_wait(encoding):
    desk = Desk()
    desk.host.error = Overloaded("more waits than may wait", 60.0)
    body = request("logs", encoding, Group([step()]))
    async with receiving(desk) as (client, _):
        answer = await client.post(body=body, encoding=encoding)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert read_status(answer, encoding) == (8, "more waits than may wait")
    if encoding == "protobuf":
        info = RetryInfo()
        assert Status.FromString(answer.content).details[0].Unpack(info)
        assert info.retry_delay.seconds == 5
    assert desk.forwarded == []


async def test_a_sender_over_its_rate_is_429():
    desk = Desk(rate_limit=lambda *_: 0.3)
    async with receiving(desk) as (client, _):
        answer = await client.post(body=request("logs", "protobuf", Group([step()])))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert desk.host.events == []


async def test_a_store_that_takes_nothing_is_503():
    desk = Desk()
    desk.host.error = StoreUnavailable("the disk is full at /secret/path")
    async with receiving(desk) as (client, _):
        answer = await client.post(body=request("logs", "protobuf", Group([step()])))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "/secret" not in answer.text


async def test_bytes_that_cannot_be_passed_on_are_asked_for_again():
    desk = Desk()
    desk.forward_error = StoreUnavailable("full")
    async with receiving(desk) as (client, _):
        answer = await client.post(body=request("logs", "protobuf", Group([step()])))
    assert answer.status_code == 503
    assert desk.kinds == [semconv.STEP_STARTED]


async def test_an_error_of_our_own_is_500_and_logged(caplog):
    desk = Desk()
    desk.host.error = RuntimeError("a bug with a secret in it")
    async with receiving(desk) as (client, _):
        answer = await client.post(body=request("logs", "protobuf", Group([step()])))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "a request of logs was not taken" in caplog.text


# --- sizes, bombs, slow senders -------------------------------------------------------------------------------------

SMALL = Limits(max_request_bytes=2 * MIB, max_inflated_bytes=3 * MIB)


@both
async def test_a_request_over_the_limit_is_413_with_or_without_a_length(encoding):
    async with receiving(limits=SMALL) as (client, desk):
        for body in (bytes(2 * MIB + 1), iter([bytes(MIB), bytes(MIB), b"x"])):
            answer = await client.post(body=body, encoding=encoding)
            assert answer.status_code == 413
            assert read_status(answer, encoding)[0] == 8
            assert "retry-after" not in answer.headers
    assert desk.forwarded == []


async def test_a_gzip_bomb_is_413():
    async with receiving(limits=SMALL) as (client, _):
        answer = await client.post(
            body=gzip.compress(bytes(3 * MIB + 1), 9), headers={"content-encoding": "gzip"}
        )
    assert answer.status_code == 413
    assert "inflated" in Status.FromString(answer.content).message


async def test_a_request_of_exactly_the_limit_is_taken():
    whole = request("logs", "json", Group([step()]))
    body = whole + b" " * (2 * MIB - len(whole))
    async with receiving(limits=SMALL) as (client, desk):
        assert (await client.post(body=body, encoding="json")).status_code == 200
    assert desk.kinds == [semconv.STEP_STARTED]


async def test_a_length_that_promises_too_much_is_answered_without_waiting_for_it():
    async with receiving(limits=Limits(max_request_bytes=1_000, body_deadline_s=0.2)) as (client, _):
        answer = await client.raw(
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999999999999\r\n\r\n"
        )
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 408"))


async def test_a_body_that_never_comes_is_408_and_the_connection_closed():
    async with receiving(limits=Limits(body_deadline_s=0.1)) as (client, _):
        answer = await client.raw(
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
        )
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer


async def test_the_deadline_is_for_the_body_not_for_us():
    desk = Desk()
    desk.host.gate = asyncio.Event()
    async with receiving(desk, limits=Limits(body_deadline_s=0.05)) as (client, _):
        asyncio.get_running_loop().call_later(0.2, desk.host.gate.set)
        answer = await client.post(body=request("logs", "protobuf", Group([step()])))
        assert answer.status_code == 200


async def test_bodies_under_way_are_bounded_together():
    desk = Desk()
    desk.host.gate = asyncio.Event()
    whole = request("logs", "json", Group([step()]))
    body = whole + b" " * MIB
    async with receiving(desk, limits=Limits(max_in_flight_bytes=int(1.5 * MIB))) as (client, _):
        first = asyncio.create_task(client.post(body=body, encoding="json"))
        await aeventually(lambda: desk.host.gate._waiters)
        second = await client.post(body=body, encoding="json")
        desk.host.gate.set()
        assert (await first).status_code == 200
        assert (await client.post(body=body, encoding="json")).status_code == 200
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")


async def test_a_sender_that_leaves_in_the_middle_changes_nothing():
    async with receiving() as (client, desk):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await client.post(encoding="json", body=b"{}")).status_code == 200
    assert desk.forwarded == [("logs", b"{}", "json", False)]


async def test_a_connection_is_kept_after_a_refusal():
    async with receiving() as (client, _):
        refused = (
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
        )
        good = (
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            b"Connection: close\r\n\r\n{}"
        )
        answer = await client.raw(refused, good)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.endswith(b"{}")


async def test_a_large_request_does_not_keep_others_waiting():
    body = request("logs", "protobuf", Group([step()] * 20_000))
    async with receiving() as (client, _):
        turns = 0
        large = asyncio.create_task(client.post(body=body))
        while not large.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await large).status_code == 200
    assert turns > 20_000 // 256


# --- senders as they are --------------------------------------------------------------------------------------------


def export_with_the_sdk(url: str, compression) -> None:
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    resource = Resource.create({"service.name": "plain"})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(
        SimpleSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces", compression=compression))
    )
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(
        SimpleLogRecordProcessor(OTLPLogExporter(f"{url}/v1/logs", compression=compression))
    )
    logger = logs.get_logger("app")
    with traces.get_tracer("app").start_as_current_span("import flights") as span:
        logger.emit(
            event_name=semconv.OPERATION_STARTED,
            attributes={semconv.OPERATION_NAME: "import flights", semconv.OPERATION_STEPS: ["load", "check"]},
        )
        logger.emit(event_name="cache.miss", severity_number=SeverityNumber.WARN)
        span.set_attribute(semconv.OPERATION_STATE, "succeeded")
    traces.shutdown()
    logs.shutdown()


@pytest.mark.parametrize("compression", ["NoCompression", "Gzip"])
async def test_the_unmodified_sdk_takes_part_by_the_conventions_alone(compression):
    from opentelemetry.exporter.otlp.proto.http import Compression

    async with receiving() as (client, desk):
        await asyncio.to_thread(export_with_the_sdk, client.url, getattr(Compression, compression))
    started, note, ended = desk.host.events
    assert (started.kind, started.steps, started.service) == (
        semconv.OPERATION_STARTED,
        ("load", "check"),
        "plain",
    )
    assert (note.message, note.level) == ("cache.miss", "warning")
    assert (ended.kind, ended.run_id) == (semconv.OPERATION_ENDED, started.run_id)
    assert [passed[0] for passed in desk.forwarded] == ["logs", "logs", "traces"]


async def test_an_exporter_backs_off_and_loses_nothing():
    desk = Desk()
    refusals = [Overloaded("wait", 0.01), StoreUnavailable("full"), None]

    async def accept(events, size):
        error = refusals.pop(0) if refusals else None
        if error is not None:
            raise error
        desk.host.events += events
        return Accepted()

    desk.host.accept = accept

    def export(url: str) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
        from opentelemetry.sdk.trace import TracerProvider

        logs = LoggerProvider()
        logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{url}/v1/logs")))
        with TracerProvider().get_tracer("app").start_as_current_span("import"):
            logs.get_logger("app").emit(event_name=semconv.STEP_STARTED, attributes={semconv.STEP_NAME: "a"})
        logs.shutdown()

    async with receiving(desk) as (client, _):
        await asyncio.to_thread(export, client.url)
    assert desk.kinds == [semconv.STEP_STARTED]
    assert refusals == []


async def test_our_own_sender_is_understood():
    from otelprogress.model.tree import OperationTree
    from otelprogress.otel.sender import Sender
    from otelprogress.otel.target import otlp_target
    from tests.otel.events import ended, started, step_started, ticked

    async with receiving() as (client, desk):
        sender = Sender(
            otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": client.url}),
            version="1",
            resource={"service.name": "etl"},
        )
        tree = OperationTree()
        said = [started(), step_started(0), ticked(3.0), ended()]
        for one in said:
            sender(tree.apply(one, one.time_unix_ns))
        assert await asyncio.to_thread(sender.flush, 15)
        await asyncio.to_thread(sender.shutdown, 5)
    durable = [one for one in desk.host.events if one.durable]
    assert [(one.kind, one.run_id, one.writer_id) for one in durable] == [
        (one.kind, one.run_id, one.writer_id) for one in said if one.durable
    ]
    assert {passed[3] for passed in desk.forwarded} <= {True, False}


@both
async def test_a_json_answer_is_json_whatever_stands_in_it(encoding):
    name = 'otelprogress."\\\u2028<script>'
    async with receiving() as (client, _):
        answer = await client.post(body=request("logs", encoding, Group([Log(name)])), encoding=encoding)
    if encoding == "json":
        told = json.loads(answer.content)["partialSuccess"]
        assert told["rejectedLogRecords"] == "0"
        assert "unknown event" in told["errorMessage"]
    assert answer.status_code == 200
