"""HTTP connections that begin a request and do not go on."""

from __future__ import annotations

import contextlib
import socket

import pytest

from otelprogress_collector.api.http_protocol import CollectorHttp
from tests.collector.api.kit import serving
from tests.feed.serving import dial, hear, hello, say
from tests.waiting import eventually


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CollectorHttp, "head_timeout_s", 0.2)
    with serving() as server:
        yield server


def ask(sock: socket.socket) -> None:
    sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while b"alive" not in answer:
        piece = sock.recv(4096)
        assert piece, answer
        answer += piece


def is_cut(sock: socket.socket) -> bool:
    sock.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        return sock.recv(1) == b""
    return True


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost:"])
def test_a_request_that_never_ends_is_dropped(served, sent: bytes):
    with socket.create_connection(served.address) as sock:
        sock.sendall(sent)
        assert is_cut(sock)


def test_the_second_request_of_a_connection_has_to_come_whole_too(served):
    with socket.create_connection(served.address, timeout=10) as sock:
        ask(sock)
        sock.sendall(b"GET /healthz HT")
        assert is_cut(sock)


def test_a_head_that_comes_byte_by_byte_is_cut_though_something_always_comes(served):
    with socket.create_connection(served.address, timeout=10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n")

        def goes_on() -> bool:
            try:
                sock.sendall(b"a: b\r\n")
            except OSError:
                return False
            return True

        eventually(lambda: not goes_on())


def test_an_open_feed_and_an_answered_request_are_not_cut(served):
    with dial(served) as client, socket.create_connection(served.address, timeout=10) as sock:
        hello(client)
        ask(sock)
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.5)
        ask(sock)
        say(client, "unsubscribe", id="x")
        assert hear(client)["type"] == "error"


def test_what_is_no_http_is_answered_400(served):
    with socket.create_connection(served.address, timeout=10) as sock:
        sock.sendall(b"\x16\x03\x01\x00\xa5 nonsense\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 400")


def test_a_grpc_client_on_this_port_is_named_in_the_log_with_what_mends_it_once_a_minute(
    served, caplog, monkeypatch
):
    monkeypatch.setattr("otelprogress_collector.api.http_protocol._complained_at_s", -100.0)
    for _ in range(3):
        with socket.create_connection(served.address) as sock:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert is_cut(sock)
    [line] = [one for one in caplog.messages if "gRPC" in one]
    assert str(served.address[1]) in line
    assert "grpc_port" in line
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in line
