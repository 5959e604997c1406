"""Both transports against real servers: one contract, two protocols."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from otelprogress.otel.target import OtlpEndpoint
from otelprogress.otel.transport import Verdict
from otelprogress.otel.transport_grpc import GrpcTransport
from otelprogress.otel.transport_http import HttpTransport, retry_after_s
from tests.collector.exporters.certificates import Authority
from tests.otel.otlp_server import GrpcReceiver, HttpReceiver, Reply, dead_url


@pytest.fixture
def http():
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture
def grpc_receiver():
    with GrpcReceiver() as receiver:
        yield receiver


def http_transport(url: str, **settings) -> HttpTransport:
    return HttpTransport(OtlpEndpoint(f"{url}/v1/logs", "http/protobuf", **settings))


def grpc_transport(url: str, **settings) -> GrpcTransport:
    return GrpcTransport("logs", OtlpEndpoint(url, "grpc", **settings))


PARTIAL = ExportLogsServiceResponse(
    partial_success=ExportLogsPartialSuccess(rejected_log_records=2, error_message="too old"),
).SerializeToString()


def test_http_delivers_the_bytes_with_the_headers_asked_for(http):
    transport = http_transport(http.url, headers=(("api-key", "k"),), gzip=True)
    assert transport.send(b"body", 5).verdict is Verdict.DELIVERED
    transport.close()
    [got] = http.received
    assert (got.path, got.body) == ("/v1/logs", b"body")
    assert got.headers["content-type"] == "application/x-protobuf"
    assert got.headers["api-key"] == "k"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_http_trusts_the_authority_that_is_named_for_it_whatever_the_environment_says_for_others(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, certifi.where())
    authority = Authority(tmp_path)
    pair = authority.issue("collector")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    with HttpReceiver(tls=tls) as receiver:
        stranger, trusting = (
            http_transport(receiver.url),
            http_transport(receiver.url, certificate=str(authority.cert)),
        )
        assert stranger.send(b"body", 5).verdict is Verdict.RETRY
        assert trusting.send(b"body", 5).verdict is Verdict.DELIVERED
        stranger.close()
        trusting.close()
        assert [got.body for got in receiver.received] == [b"body"]


def test_grpc_delivers_the_bytes_with_the_headers_asked_for(grpc_receiver):
    transport = grpc_transport(grpc_receiver.url, headers=(("api-key", "k"),), gzip=True)
    assert transport.send(b"body", 5).verdict is Verdict.DELIVERED
    transport.close()
    [got] = grpc_receiver.received
    assert got.path == "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    assert (got.body, got.headers["api-key"]) == (b"body", "k")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED),
        (202, Verdict.DELIVERED),
        (429, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RETRY),
        (504, Verdict.RETRY),
        (404, Verdict.UNSUPPORTED),
        (405, Verdict.UNSUPPORTED),
        (400, Verdict.REFUSED),
        (401, Verdict.REFUSED),
        (413, Verdict.REFUSED),
        (500, Verdict.REFUSED),
        (302, Verdict.REFUSED),
    ],
)
def test_http_answers_mean_what_the_specification_says(http, status, verdict):
    http.default = Reply(status, headers=(("location", "/elsewhere"),))
    transport = http_transport(http.url)
    assert transport.send(b"x", 5).verdict is verdict
    transport.close()
    assert len(http.received) == 1


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (grpc.StatusCode.UNAVAILABLE, Verdict.RETRY),
        (grpc.StatusCode.ABORTED, Verdict.RETRY),
        (grpc.StatusCode.DATA_LOSS, Verdict.RETRY),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Verdict.REFUSED),
        (grpc.StatusCode.INVALID_ARGUMENT, Verdict.REFUSED),
        (grpc.StatusCode.UNAUTHENTICATED, Verdict.REFUSED),
        (grpc.StatusCode.UNIMPLEMENTED, Verdict.UNSUPPORTED),
    ],
)
def test_grpc_answers_mean_what_the_specification_says(grpc_receiver, code, verdict):
    grpc_receiver.default = Reply(code)
    transport = grpc_transport(grpc_receiver.url)
    assert transport.send(b"x", 5).verdict is verdict
    transport.close()


def retry_info(seconds: int) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.seconds = seconds
    return info


def status_with(info: RetryInfo) -> bytes:
    packed = AnyMessage()
    packed.Pack(info)
    return Status(code=8, details=[packed]).SerializeToString()


@pytest.mark.parametrize(
    "metadata",
    [
        (("grpc-status-details-bin", status_with(retry_info(3))),),
        (("google.rpc.retryinfo-bin", retry_info(3).SerializeToString()),),
    ],
)
def test_an_exhausted_grpc_receiver_that_says_when_is_asked_again_then(grpc_receiver, metadata):
    grpc_receiver.default = Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, headers=metadata)
    transport = grpc_transport(grpc_receiver.url)
    answer = transport.send(b"x", 5)
    transport.close()
    assert (answer.verdict, answer.retry_after_s) == (Verdict.RETRY, 3.0)


def test_an_http_receiver_says_when_to_come_back(http):
    http.default = Reply(503, headers=(("retry-after", "4"),))
    transport = http_transport(http.url)
    assert transport.send(b"x", 5).retry_after_s == 4.0
    transport.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("1.5", 1.5),
        ("-1", None),
        ("nan", None),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 60.0),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert retry_after_s(text, 0.0) == seconds


def test_a_partial_success_is_counted_over_http(http):
    http.default = Reply(body=PARTIAL)
    transport = http_transport(http.url)
    answer = transport.send(b"x", 5)
    transport.close()
    assert (answer.verdict, answer.rejected) == (Verdict.DELIVERED, 2)
    assert "too old" in answer.reason


def test_a_partial_success_is_counted_over_grpc(grpc_receiver):
    grpc_receiver.default = Reply(body=PARTIAL)
    transport = grpc_transport(grpc_receiver.url)
    answer = transport.send(b"x", 5)
    transport.close()
    assert (answer.verdict, answer.rejected) == (Verdict.DELIVERED, 2)


def test_a_success_with_an_unreadable_body_is_a_success(http):
    http.default = Reply(body=b"{}")
    transport = http_transport(http.url)
    assert transport.send(b"x", 5).verdict is Verdict.DELIVERED
    transport.close()


def test_an_endless_answer_is_cut_off(http):
    http.default = Reply(endless=True)
    transport = http_transport(http.url)
    assert transport.send(b"x", 20).verdict is Verdict.DELIVERED
    transport.close()


@pytest.mark.parametrize("make", [http_transport, grpc_transport])
def test_nobody_listening_is_a_reason_to_come_back(make):
    transport = make(dead_url())
    answer = transport.send(b"x", 5)
    transport.close()
    assert (answer.verdict, answer.reached) == (Verdict.RETRY, False)


def test_a_hanging_http_receiver_is_left_after_the_time_out(http):
    http.default = Reply(hang=True)
    transport = http_transport(http.url)
    assert transport.send(b"x", 0.2).verdict is Verdict.RETRY
    transport.close()


def test_a_hanging_grpc_receiver_is_left_after_the_time_out(grpc_receiver):
    grpc_receiver.default = Reply(hang=True)
    transport = grpc_transport(grpc_receiver.url)
    assert transport.send(b"x", 0.2).verdict is Verdict.RETRY
    transport.close()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_token_is_read_for_each_request_and_one_that_is_refused_is_not_the_last(kind):
    tokens = ["first", "second", "", "third"]
    unauthorized = Reply(401) if kind == "http" else Reply(grpc.StatusCode.UNAUTHENTICATED)
    with (HttpReceiver if kind == "http" else GrpcReceiver)() as receiver:
        make = http_transport if kind == "http" else grpc_transport
        transport = make(receiver.url, token=lambda: tokens.pop(0))
        receiver.script = [unauthorized]
        assert transport.send(b"body", 5).verdict is Verdict.RETRY
        assert transport.send(b"body", 5).verdict is Verdict.DELIVERED
        assert transport.send(b"body", 5).verdict is Verdict.DELIVERED
        transport.close()
        sent = [one.headers.get("authorization") for one in receiver.received]
        assert sent == ["Bearer first", "Bearer second", None]


@pytest.mark.parametrize("make", [http_transport, grpc_transport])
def test_a_token_that_cannot_be_read_now_costs_no_request(make):
    with (HttpReceiver if make is http_transport else GrpcReceiver)() as receiver:
        transport = make(receiver.url, token=lambda: 1 / 0)
        assert transport.send(b"body", 5).verdict is Verdict.DELIVERED
        transport.close()
        assert "authorization" not in receiver.received[0].headers
