"""The gRPC sender against real servers."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otelprogress.exceptions import InvalidValue
from otelprogress.otel.transport import DELIVERED, Verdict
from otelprogress_collector.exporters.backend import parse_backend
from otelprogress_collector.exporters.grpc_sender import GrpcSender
from tests.collector.exporters.certificates import Authority
from tests.otel.otlp_server import GrpcReceiver, Reply, dead_url


@contextlib.asynccontextmanager
async def sending_to(url: str, **settings):
    sender = GrpcSender(parse_backend({"url": url, "protocol": "grpc", **settings}))
    try:
        yield sender
    finally:
        await sender.close()


@pytest.fixture
def receiver():
    with GrpcReceiver() as one:
        yield one


@pytest.mark.parametrize(
    ("signal", "method"),
    [
        ("traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        ("logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
        ("metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
    ],
)
async def test_bytes_go_as_they_came_to_the_service_of_their_signal(receiver, signal, method):
    body = bytes(range(256)) * 5
    async with sending_to(receiver.url, headers={"API-Key": "k"}) as sender:
        assert await sender.send(signal, body, "protobuf") == DELIVERED
    [got] = receiver.received
    assert (got.path, got.body, got.headers["api-key"]) == (method, body, "k")


async def test_bodies_arrive_whole_when_compressed(receiver):
    body = b"0123456789" * 100_000
    async with sending_to(receiver.url, gzip=True) as sender:
        assert await sender.send("traces", body, "protobuf") == DELIVERED
    assert receiver.received[0].body == body


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "CANCELLED", "DATA_LOSS", "OUT_OF_RANGE"]
)
async def test_busy_answers_are_tried_again(receiver, code):
    receiver.default = Reply(grpc.StatusCode[code])
    async with sending_to(receiver.url) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reason) == (Verdict.RETRY, f"gRPC {code}: 'scripted'")


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "UNAUTHENTICATED", "INTERNAL", "RESOURCE_EXHAUSTED"])
async def test_other_errors_are_refusals(receiver, code):
    receiver.default = Reply(grpc.StatusCode[code])
    async with sending_to(receiver.url) as sender:
        assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.REFUSED


async def test_an_exhausted_backend_is_tried_again_when_it_says_when(receiver):
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(2_500_000_000)
    detail = AnyMessage()
    detail.Pack(info)
    status = Status(code=8, message="full", details=[detail])
    receiver.default = Reply(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        headers=(("grpc-status-details-bin", status.SerializeToString()),),
    )
    async with sending_to(receiver.url) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.retry_after_s, answer.reached) == (Verdict.RETRY, 2.5, True)


async def test_unimplemented_means_not_taken(receiver):
    receiver.default = Reply(grpc.StatusCode.UNIMPLEMENTED)
    async with sending_to(receiver.url) as sender:
        assert (await sender.send("metrics", b"x", "protobuf")).verdict is Verdict.UNSUPPORTED


async def test_a_partial_success_is_counted(receiver):
    partial = ExportMetricsServiceResponse(partial_success={"rejected_data_points": 9, "error_message": "no"})
    receiver.default = Reply(body=partial.SerializeToString())
    async with sending_to(receiver.url) as sender:
        answer = await sender.send("metrics", b"x", "protobuf")
    assert (answer.verdict, answer.rejected, answer.reason) == (Verdict.DELIVERED, 9, "partial success: 'no'")


async def test_nobody_there_is_tried_again():
    async with sending_to(dead_url()) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reached) == (Verdict.RETRY, False)
    assert answer.reason.startswith("gRPC UNAVAILABLE")


async def test_an_answer_that_does_not_come_is_tried_again(receiver):
    receiver.default = Reply(hang=True)
    async with sending_to(receiver.url, timeout_s=0.2) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reached) == (Verdict.RETRY, False)


async def test_an_answer_that_is_far_too_large_is_a_refusal_and_not_read(receiver):
    receiver.default = Reply(body=bytes(1_000_000))
    async with sending_to(receiver.url) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert answer.verdict is Verdict.REFUSED
    assert "RESOURCE_EXHAUSTED" in answer.reason


async def test_an_http_server_is_not_mistaken_for_a_backend():
    async def answer(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        async with sending_to(
            f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=2
        ) as sender:
            assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.RETRY


async def test_proxies_of_the_environment_are_not_used_unless_asked(receiver, monkeypatch):
    monkeypatch.setenv("http_proxy", dead_url())
    monkeypatch.delenv("no_proxy", raising=False)
    async with sending_to(receiver.url) as sender:
        assert await sender.send("traces", b"x", "protobuf") == DELIVERED
    async with sending_to(receiver.url, proxy_from_env=True, timeout_s=2) as sender:
        assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.RETRY


async def test_what_a_backend_echoes_has_no_secrets_in_it():
    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            token = dict(details.invocation_metadata)["authorization"]
            return grpc.unary_unary_rpc_method_handler(
                lambda _body, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, f"bad {token}")
            )

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=(Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with sending_to(
            f"http://127.0.0.1:{port}", headers={"authorization": "Bearer s3cret"}
        ) as sender:
            answer = await sender.send("traces", b"x", "protobuf")
    finally:
        server.stop(None).wait()
    assert answer.reason == "gRPC UNAUTHENTICATED: 'bad …'"


# --- TLS -------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@contextlib.contextmanager
def secure_server(authority, *, wants_certificate: bool):
    class Accept(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda _body, _context: b"")

    pair = authority.issue("server")
    credentials = grpc.ssl_server_credentials(
        [(Path(pair.key).read_bytes(), Path(pair.cert).read_bytes())],
        root_certificates=Path(authority.cert).read_bytes() if wants_certificate else None,
        require_client_auth=wants_certificate,
    )
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=(Accept(),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


async def test_a_backend_of_a_private_authority_is_trusted_when_told(authority):
    with secure_server(authority, wants_certificate=False) as url:
        async with sending_to(url, ca_file=authority.cert) as sender:
            assert await sender.send("traces", b"x", "protobuf") == DELIVERED


async def test_a_backend_of_an_unknown_authority_gets_nothing(authority):
    with secure_server(authority, wants_certificate=False) as url:
        async with sending_to(url, timeout_s=2) as sender:
            assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.RETRY


async def test_a_backend_that_wants_a_certificate_gets_one(authority):
    client = authority.issue("client")
    with secure_server(authority, wants_certificate=True) as url:
        settings = {"ca_file": authority.cert, "cert_file": client.cert, "key_file": client.key}
        async with sending_to(url, **settings) as sender:
            assert await sender.send("traces", b"x", "protobuf") == DELIVERED


@pytest.mark.parametrize("wrong", ["ca_file", "cert_file", "key_file"])
async def test_tls_files_that_are_none_fail_the_start(authority, tmp_path, wrong):
    (tmp_path / "junk").write_text("junk")
    client = authority.issue("client")
    files = {"ca_file": authority.cert, "cert_file": client.cert, "key_file": client.key}
    files[wrong] = str(tmp_path / "junk")
    with pytest.raises(InvalidValue, match="its TLS files are not to be used"):
        GrpcSender(parse_backend({"url": "https://a:4317", **files}))
