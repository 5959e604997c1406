"""The HTTP sender against real sockets: what a backend gets, and what each of its answers comes to."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import time
from email.utils import formatdate

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otelprogress.exceptions import InvalidValue
from otelprogress.otel.transport import DELIVERED, Verdict
from otelprogress_collector.exporters.backend import parse_backend
from otelprogress_collector.exporters.http_sender import HttpSender
from tests.collector.exporters.certificates import Authority
from tests.otel.otlp_server import HttpReceiver, Reply, dead_url

PROTOBUF = (("content-type", "application/x-protobuf"),)


@contextlib.asynccontextmanager
async def sending_to(url: str, **settings):
    sender = HttpSender(parse_backend({"url": url, "protocol": "http/protobuf", **settings}))
    try:
        yield sender
    finally:
        await sender.close()


@contextlib.asynccontextmanager
async def raw_server(*pieces: bytes, then: str = "hang", tls: ssl.SSLContext | None = None):
    """Answers each connection with raw bytes, then hangs, closes, or goes on for ever."""
    connections = []

    async def answer(reader, writer):
        connections.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while then == "endless":
                writer.write(b"x-more: and more\r\n" * 100)
                await writer.drain()
            if then == "hang":
                await reader.read()
                await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", connections
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()
        await server.wait_closed()


@pytest.fixture
def receiver():
    with HttpReceiver() as one:
        yield one


# --- what the backend gets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "content_type"), [("protobuf", "application/x-protobuf"), ("json", "application/json")]
)
async def test_bytes_go_as_they_came_with_their_type(receiver, encoding, content_type):
    body = bytes(range(256)) * 5
    async with sending_to(receiver.url + "/base", headers={"API-Key": "k", "x": "y z"}) as sender:
        assert await sender.send("logs", body, encoding) == DELIVERED
    [got] = receiver.received
    assert (got.path, got.body) == ("/base/v1/logs", body)
    assert got.headers["content-type"] == content_type
    assert got.headers["api-key"] == "k"
    assert got.headers["x"] == "y z"
    assert got.headers["accept-encoding"] == "identity"
    assert "content-encoding" not in got.headers


@pytest.mark.parametrize("size", [0, 100, 300_000, 3_000_000])
@pytest.mark.parametrize("compress", [False, True])
async def test_bodies_of_any_size_arrive_whole(receiver, size, compress):
    body = b"0123456789" * (size // 10)
    async with sending_to(receiver.url, gzip=compress) as sender:
        assert await sender.send("traces", body, "protobuf") == DELIVERED
    [got] = receiver.received
    assert got.body == body
    assert got.headers.get("content-encoding") == ("gzip" if compress else None)


async def test_the_same_body_is_the_same_bytes_again_when_compressed():
    async with sending_to("http://127.0.0.1:9", gzip=True) as sender:
        first = await sender._payload(b"a" * 1000)
        assert first == await sender._payload(b"a" * 1000)
        assert gzip.decompress(first) == b"a" * 1000


async def test_one_connection_serves_many_requests():
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    served = []

    async def serve(reader, writer):
        served.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\nbody")
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        async with sending_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as sender:
            for _ in range(20):
                assert await sender.send("traces", b"body", "protobuf") == DELIVERED
    assert len(served) == 1


async def test_a_password_in_the_url_is_sent_as_basic_authorization(receiver):
    url = receiver.url.replace("http://", "http://user:p%40ss@")
    async with sending_to(url) as sender:
        await sender.send("traces", b"x", "protobuf")
    assert receiver.received[0].headers["authorization"] == "Basic dXNlcjpwQHNz"


async def test_proxies_of_the_environment_are_used_only_when_asked(receiver, monkeypatch):
    monkeypatch.setenv("http_proxy", receiver.url)
    monkeypatch.delenv("no_proxy", raising=False)
    url = dead_url().replace("127.0.0.1", "backend.invalid")
    async with sending_to(url) as sender:
        assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.RETRY
    assert receiver.received == []
    async with sending_to(url, proxy_from_env=True) as sender:
        assert await sender.send("traces", b"x", "protobuf") == DELIVERED
    assert receiver.received[0].path == f"{url}/v1/traces"


# --- what its answers come to ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_busy_answers_are_tried_again(receiver, status):
    receiver.default = Reply(status)
    async with sending_to(receiver.url) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reason, answer.retry_after_s) == (Verdict.RETRY, f"HTTP {status}", None)
    assert answer.reached


async def test_retry_after_is_read_as_seconds_and_as_a_date(receiver):
    receiver.script = [
        Reply(503, headers=(("retry-after", "3"),)),
        Reply(503, headers=(("retry-after", formatdate(time.time() + 100, usegmt=True)),)),
        Reply(503, headers=(("retry-after", "soon"),)),
    ]
    async with sending_to(receiver.url) as sender:
        asked = [(await sender.send("traces", b"x", "protobuf")).retry_after_s for _ in range(3)]
    assert asked[0] == 3.0
    assert 90 < asked[1] <= 100
    assert asked[2] is None


@pytest.mark.parametrize("status", [404, 405])
async def test_not_found_means_not_taken(receiver, status):
    receiver.default = Reply(status)
    async with sending_to(receiver.url) as sender:
        assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.UNSUPPORTED


@pytest.mark.parametrize("status", [400, 401, 403, 408, 413, 415, 500, 501])
async def test_other_errors_are_refusals(receiver, status):
    receiver.default = Reply(status)
    async with sending_to(receiver.url) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reason) == (Verdict.REFUSED, f"HTTP {status}")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(receiver, status):
    receiver.default = Reply(status, headers=(("location", receiver.url + "/elsewhere"),))
    async with sending_to(receiver.url, headers={"authorization": "Bearer s3cret"}) as sender:
        assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.REFUSED
    assert [one.path for one in receiver.received] == ["/v1/traces"]


async def test_the_reason_a_backend_gives_is_quoted_without_secrets(receiver):
    status = Status(code=3, message="token s3cret\nis bad")
    receiver.default = Reply(400, headers=PROTOBUF, body=status.SerializeToString())
    async with sending_to(receiver.url, headers={"authorization": "Bearer s3cret"}) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert answer.reason == r"HTTP 400: 'token …\nis bad'"


async def test_a_partial_success_is_counted_by_signal(receiver):
    traces = ExportTraceServiceResponse(partial_success={"rejected_spans": 3, "error_message": "late"})
    logs = ExportLogsServiceResponse(partial_success={"rejected_log_records": 2})
    receiver.script = [
        Reply(headers=PROTOBUF, body=traces.SerializeToString()),
        Reply(headers=PROTOBUF, body=logs.SerializeToString()),
        Reply(headers=PROTOBUF, body=b"\xff\xff"),
        Reply(body=b'{"ok": true}'),
    ]
    async with sending_to(receiver.url) as sender:
        first = await sender.send("traces", b"x", "protobuf")
        second = await sender.send("logs", b"x", "protobuf")
        assert (first.verdict, first.rejected, first.reason) == (
            Verdict.DELIVERED,
            3,
            "partial success: 'late'",
        )
        assert (second.verdict, second.rejected) == (Verdict.DELIVERED, 2)
        assert await sender.send("traces", b"x", "protobuf") == DELIVERED
        assert await sender.send("traces", b"x", "protobuf") == DELIVERED


# --- what goes wrong -------------------------------------------------------------------------------------------


async def test_nobody_there_is_tried_again_and_said_so():
    async with sending_to(dead_url()) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reached) == (Verdict.RETRY, False)
    assert answer.reason == "ClientConnectorError: Connection refused"


async def test_a_name_that_does_not_resolve_is_tried_again():
    async with sending_to("http://nowhere.invalid:4318") as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reached) == (Verdict.RETRY, False)
    assert answer.reason.startswith("ClientConnectorDNSError: ")


async def test_an_answer_that_does_not_come_is_tried_again(receiver):
    receiver.default = Reply(hang=True)
    async with sending_to(receiver.url, timeout_s=0.2) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert answer.verdict is Verdict.RETRY


async def test_a_connection_that_breaks_is_tried_again(receiver):
    receiver.default = Reply(reset=True)
    async with sending_to(receiver.url) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reached) == (Verdict.RETRY, True)


async def test_an_endless_answer_is_cut_off_and_was_a_success(receiver):
    receiver.script = [Reply(endless=True)]
    async with sending_to(receiver.url) as sender:
        assert await sender.send("traces", b"x", "protobuf") == DELIVERED
        assert await sender.send("traces", b"y", "protobuf") == DELIVERED
    assert [one.body for one in receiver.received] == [b"x", b"y"]


async def test_an_answer_that_trickles_is_cut_off_and_was_a_success(monkeypatch):
    monkeypatch.setattr("otelprogress_collector.exporters.http_sender._MAX_ANSWER_S", 0.1)
    async with raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx") as (url, _):
        async with sending_to(url) as sender:
            assert await sender.send("traces", b"x", "protobuf") == DELIVERED


async def test_a_busy_answer_that_trickles_is_still_busy(monkeypatch):
    monkeypatch.setattr("otelprogress_collector.exporters.http_sender._MAX_ANSWER_S", 0.1)
    head = b"HTTP/1.1 503 Busy\r\nretry-after: 2\r\ncontent-length: 100\r\n\r\nx"
    async with raw_server(head) as (url, _):
        async with sending_to(url) as sender:
            answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.retry_after_s) == (Verdict.RETRY, 2.0)


@pytest.mark.parametrize(
    ("pieces", "then"),
    [
        ((b"HTTP/1.1 200",), "hang"),
        ((b"HTTP/1.1 200 OK\r\nx: y\r\n",), "hang"),
        ((b"HTTP/1.1 200 OK\r\n",), "endless"),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,), "hang"),
        ((b"SSH-2.0-OpenSSH_9.9\r\n",), "close"),
        ((b"HTTP/1.1 9999 Odd\r\n\r\n",), "close"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",), "hang"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n",) * 50, "hang"),
        ((b"",), "close"),
    ],
)
async def test_what_is_no_answer_in_time_is_tried_again(pieces, then):
    async with raw_server(*pieces, then=then) as (url, _):
        async with sending_to(url, timeout_s=0.3) as sender:
            assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.RETRY


async def test_a_bomb_in_an_answer_is_never_inflated(receiver):
    bomb = gzip.compress(bytes(10_000_000))
    receiver.default = Reply(headers=(*PROTOBUF, ("content-encoding", "gzip")), body=bomb)
    async with sending_to(receiver.url) as sender:
        assert await sender.send("traces", b"x", "protobuf") == DELIVERED


async def test_being_cancelled_gives_the_connection_up(receiver):
    receiver.default = Reply(hang=True)
    async with sending_to(receiver.url) as sender:
        task = asyncio.create_task(sender.send("traces", b"x", "protobuf"))
        while not receiver.received:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- TLS -------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def served_by(pair, *, clients_of: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    if clients_of:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of)
    return context


async def test_a_backend_of_a_private_authority_is_trusted_when_told(authority):
    async with raw_server(OK, tls=served_by(authority.issue("server"))) as (url, _):
        async with sending_to(url, ca_file=authority.cert) as sender:
            assert await sender.send("traces", b"x", "protobuf") == DELIVERED


async def test_a_backend_of_an_unknown_authority_gets_nothing(authority):
    async with raw_server(OK, tls=served_by(authority.issue("server"))) as (url, _):
        async with sending_to(url) as sender:
            answer = await sender.send("traces", b"x", "protobuf")
    assert answer.verdict is Verdict.RETRY
    assert answer.reason == "ClientConnectorCertificateError: its certificate is not to be trusted"


async def test_a_backend_without_tls_is_said_to_have_none(receiver):
    async with sending_to(receiver.url.replace("http://", "https://"), timeout_s=5) as sender:
        answer = await sender.send("traces", b"x", "protobuf")
    assert (answer.verdict, answer.reached) == (Verdict.RETRY, False)
    assert answer.reason.startswith(("ClientConnectorSSLError: ", "ClientConnectorError: "))


async def test_a_backend_that_wants_a_certificate_gets_one(authority):
    client = authority.issue("client")
    context = served_by(authority.issue("server"), clients_of=authority.cert)
    async with raw_server(OK, tls=context) as (url, _):
        async with sending_to(url, ca_file=authority.cert) as sender:
            assert (await sender.send("traces", b"x", "protobuf")).verdict is Verdict.RETRY
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
        HttpSender(parse_backend({"url": "https://a:1", **files}))
