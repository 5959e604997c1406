"""OTLP/gRPC against a real server: codes, details, sizes, and the stock exporters."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otelprogress.model import semconv
from otelprogress.otel.transport_grpc import retry_delay_s
from otelprogress_collector.host import Accepted, Overloaded
from otelprogress_collector.receivers.limits import MIB, Limits
from otelprogress_collector.receivers.otlp_grpc import GrpcReceiver
from otelprogress_collector.store.interface import StoreUnavailable
from tests.collector.exporters.certificates import Authority
from tests.collector.receivers.fakes import Desk, by_fixed_tokens
from tests.collector.receivers.messages import Group, Log, request
from tests.waiting import aeventually

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


def step() -> Log:
    return Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, "load")])


class Client:
    def __init__(self, port: int) -> None:
        self.port = port
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=(("grpc.max_send_message_length", -1),)
        )

    async def export(
        self, body: bytes = b"", *, method: str = EXPORT, metadata=(), compression=None
    ) -> bytes:
        call = self._channel.unary_unary(method)
        return await call(body, metadata=metadata, compression=compression, timeout=20)

    async def close(self) -> None:
        await self._channel.close()


@asynccontextmanager
async def receiving(desk: Desk | None = None, limits: Limits = Limits(), **said):
    desk = desk or Desk(limits)
    receiver = GrpcReceiver(desk.ingest, by_fixed_tokens, limits=limits, **said)
    client = Client(await receiver.start("127.0.0.1:0"))
    try:
        yield client, desk
    finally:
        await client.close()
        await receiver.stop(0.5)


async def refusal(call) -> tuple[grpc.StatusCode, Status, float | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    metadata = caught.value.trailing_metadata() or ()
    details = Status.FromString(dict(metadata).get("grpc-status-details-bin", b""))
    return caught.value.code(), details, retry_delay_s(metadata)


async def test_a_request_is_taken_as_bytes_and_passed_on_untouched():
    body = request("logs", "protobuf", Group([step()])) + b"\xa2\x06\x03abc"  # a field of the future
    async with receiving() as (client, desk):
        assert await client.export(body) == b""
    assert desk.kinds == [semconv.STEP_STARTED]
    assert desk.forwarded == [("logs", body, "protobuf", False)]


async def test_gzip_is_understood():
    body = request("logs", "protobuf", Group([step()] * 50))
    async with receiving() as (client, desk):
        await client.export(body, compression=grpc.Compression.Gzip)
    assert desk.forwarded == [("logs", body, "protobuf", False)]


@pytest.mark.parametrize("method", [EXPORT, TRACES, METRICS])
async def test_an_empty_request_succeeds_in_every_service(method):
    async with receiving() as (client, _):
        assert await client.export(method=method) == b""


async def test_partial_success_says_how_many_and_why():
    bad = Log(semconv.STEP_STARTED, [(semconv.STEP_NAME, 7)])
    async with receiving() as (client, _):
        answer = await client.export(request("logs", "protobuf", Group([bad, step()])))
    partial = ExportLogsServiceResponse.FromString(answer).partial_success
    assert partial.rejected_log_records == 1
    assert "must be a string" in partial.error_message


async def test_what_cannot_be_read_is_an_invalid_argument():
    async with receiving() as (client, _):
        code, details, delay_s = await refusal(client.export(b"\x07 nothing"))
    assert (code, details.code, delay_s) == (grpc.StatusCode.INVALID_ARGUMENT, 3, None)
    assert details.message


async def test_an_unknown_token_is_unauthenticated_and_one_that_may_not_write_denied():
    async with receiving() as (client, desk):
        for token, code in (
            ("Bearer unknown", grpc.StatusCode.UNAUTHENTICATED),
            ("Basic good", grpc.StatusCode.UNAUTHENTICATED),
            ("Bearer reader", grpc.StatusCode.PERMISSION_DENIED),
        ):
            answered, _, delay_s = await refusal(client.export(metadata=(("authorization", token),)))
            assert (answered, delay_s) == (code, None)
        twice = (("authorization", "Bearer good"), ("authorization", "Bearer good"))
        assert (await refusal(client.export(metadata=twice)))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert await client.export(metadata=(("authorization", "Bearer good"),)) == b""
    assert desk.host.events == []


async def test_an_overload_is_resource_exhausted_with_the_time_to_wait():
    desk = Desk()
    desk.host.error = Overloaded("more waits than may wait", 0.25)
    async with receiving(desk) as (client, _):
        code, details, delay_s = await refusal(client.export(request("logs", "protobuf", Group([step()]))))
    assert (code, delay_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.25)
    info = RetryInfo()
    assert details.details[0].Unpack(info)


async def test_a_store_that_takes_nothing_is_unavailable():
    desk = Desk()
    desk.host.error = StoreUnavailable("full")
    async with receiving(desk) as (client, _):
        code, _, delay_s = await refusal(client.export(request("logs", "protobuf", Group([step()]))))
    assert (code, delay_s) == (grpc.StatusCode.UNAVAILABLE, 2.0)


async def test_an_error_of_our_own_is_internal_and_logged(caplog):
    desk = Desk()
    desk.host.error = RuntimeError("a bug with a secret in it")
    async with receiving(desk) as (client, _):
        code, details, _ = await refusal(client.export(request("logs", "protobuf", Group([step()]))))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in details.message
    assert "a request of logs was not taken" in caplog.text


async def test_a_message_over_the_limit_is_resource_exhausted_for_good():
    async with receiving(limits=Limits(max_inflated_bytes=MIB)) as (client, _):
        code, _, delay_s = await refusal(client.export(bytes(MIB + 1)))
        assert (code, delay_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
        code, _, delay_s = await refusal(client.export(bytes(64 * MIB), compression=grpc.Compression.Gzip))
        assert (code, delay_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
        assert await client.export(b"") == b""


async def test_messages_of_more_than_grpcs_own_four_mebibytes_are_taken():
    body = request("logs", "protobuf", Group([Log(body="x" * 1_000)] * 6_000))
    assert len(body) > 5 * MIB
    async with receiving() as (client, desk):
        await client.export(body)
    assert desk.forwarded[0][1] == body


async def test_another_method_is_unimplemented():
    async with receiving() as (client, _):
        code, _, _ = await refusal(client.export(method=EXPORT.replace("Export", "Import")))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_taken_port_is_an_error_that_names_it():
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        receiver = GrpcReceiver(Desk().ingest, by_fixed_tokens)
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            await receiver.start(f"127.0.0.1:{port}")
        await receiver.stop(0)


async def test_a_second_receiver_does_not_share_the_port():
    async with receiving() as (client, _):
        second = GrpcReceiver(Desk().ingest, by_fixed_tokens)
        with pytest.raises(OSError, match=str(client.port)):
            await second.start(f"127.0.0.1:{client.port}")


async def test_a_stop_lets_calls_under_way_end():
    desk = Desk()
    desk.host.gate = asyncio.Event()
    receiver = GrpcReceiver(desk.ingest, by_fixed_tokens)
    client = Client(await receiver.start("127.0.0.1:0"))
    asked = asyncio.create_task(client.export(request("logs", "protobuf", Group([step()]))))
    await aeventually(lambda: desk.host.gate._waiters)
    stopping = asyncio.create_task(receiver.stop(10))
    desk.host.gate.set()
    assert await asked == b""
    await stopping
    await receiver.stop(1)
    await client.close()


@pytest.mark.parametrize("compression", ["NoCompression", "Gzip"])
async def test_the_stock_exporter_delivers(compression):
    def export(port: int) -> None:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
        from opentelemetry.sdk.trace import TracerProvider

        exporter = OTLPLogExporter(
            f"127.0.0.1:{port}", insecure=True, compression=getattr(grpc.Compression, compression)
        )
        logs = LoggerProvider()
        logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        with TracerProvider().get_tracer("app").start_as_current_span("import"):
            logs.get_logger("app").emit(
                event_name=semconv.OPERATION_STARTED, attributes={semconv.OPERATION_NAME: "import"}
            )
        logs.shutdown()

    desk = Desk()
    refusals = [Overloaded("wait", 0.01), StoreUnavailable("full")]
    take = desk.host.accept

    async def accept(events, size):
        if refusals:
            raise refusals.pop(0)
        return await take(events, size)

    desk.host.accept = accept
    async with receiving(desk) as (client, _):
        await asyncio.to_thread(export, client.port)
    assert desk.kinds == [semconv.OPERATION_STARTED]


async def test_our_own_sender_over_tls_is_understood(tmp_path):
    from otelprogress.otel.sender import Sender
    from otelprogress.otel.target import otlp_target
    from tests.otel.events import started

    authority = Authority(tmp_path)
    pair = authority.issue("collector")
    credentials = grpc.ssl_server_credentials([(Path(pair.key).read_bytes(), Path(pair.cert).read_bytes())])
    async with receiving(credentials=credentials) as (client, desk):
        sender = Sender(
            otlp_target(
                {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{client.port}",
                    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                    "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.cert),
                }
            ),
            version="1",
            resource={"service.name": "etl"},
        )
        sender.submit(started())
        assert await asyncio.to_thread(sender.flush, 15)
        await asyncio.to_thread(sender.shutdown, 5)
    assert desk.kinds == [semconv.OPERATION_STARTED]


async def test_answers_carry_the_codes_of_the_specification():
    desk = Desk()
    desk.host.answer = Accepted(2, "because")
    async with receiving(desk) as (client, _):
        answer = await client.export(request("logs", "protobuf", Group([step()])))
    partial = ExportLogsServiceResponse.FromString(answer).partial_success
    assert (partial.rejected_log_records, partial.error_message) == (2, "because")
