from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
import threading
from http import HTTPStatus

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from otelprogress.exceptions import FeedUnavailable, InvalidValue
from otelprogress.feed.admission import bearer_item
from otelprogress.feed.connection import ServerLimits
from otelprogress.feed.server import ThreadRefused, WebSocketServer
from otelprogress.protocol.messages import SUBPROTOCOL
from tests.feed.fakes import ended, noted, progressed, run_id, started
from tests.feed.serving import TOKEN, dial, hear, hear_until, hello, real_host, say, serving, subscribe
from tests.waiting import eventually


def refused_status(server: WebSocketServer, path: str = "/v1/feed", **options) -> int:
    with pytest.raises(InvalidStatus) as refusal:
        dial(server, path, **options).close()
    return refusal.value.response.status_code


def close_code(connection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            connection.recv(timeout=10)
    assert closed.value.rcvd is not None, "closed without a code"
    return closed.value.rcvd.code


# --- what a client sees ----------------------------------------------------------------------------------


def test_an_event_reaches_a_subscriber_with_the_state_after_it():
    host = real_host()
    with serving(host) as server, dial(server) as client:
        subscribe(client)
        host.submit(started())
        host.submit(noted(2, message="half way"))
        kinds = []
        while len(kinds) < 2:
            events = hear_until(client, "events")[-1]["events"]
            kinds += [(event["kind"], event["operation"]["name"]) for event in events]
        assert kinds == [("operation.started", "nightly load"), ("operation.noted", "nightly load")]


def test_what_another_thread_drained_is_delivered_as_well():
    host = real_host()
    with serving(host) as server, dial(server) as client:
        subscribe(client)
        host.set_wake(None)  # nobody wakes the server: only the drain below does
        host.submit(started())
        assert host.drain() == 1
        assert hear_until(client, "events")[-1]["events"][0]["kind"] == "operation.started"


def test_a_snapshot_holds_what_was_there_before():
    host = real_host()
    host.submit(started())
    host.drain()
    with serving(host) as server, dial(server) as client:
        heard = subscribe(client)
        operations = [
            each for message in heard if message["type"] == "snapshot" for each in message["operations"]
        ]
        assert [each["id"] for each in operations] == [run_id(1)]


def test_ticks_arrive_at_the_level_ticks_without_a_durable_event():
    host = real_host()
    with serving(host) as server, dial(server) as client:
        host.submit(started())
        subscribe(client, level="ticks", max_rate_hz=50)
        host.submit(progressed(7, total=10))

        def completed() -> float | None:
            events = hear_until(client, "events")[-1]["events"]
            return events[-1]["operation"].get("step", {}).get("completed")

        eventually(lambda: completed() == 7)


def test_time_alone_makes_the_hub_speak():
    host = real_host()
    with serving(host) as server, dial(server) as client:
        subscribe(client)
        host.submit(started(stall_after_s=0.2))
        host.submit(progressed(1, total=10))
        # Nothing is submitted any more: the stall is the work of the server's own timer.
        for _ in range(20):
            events = hear_until(client, "events")[-1]["events"]
            if any(event["operation"].get("stalled") for event in events):
                return
        pytest.fail("never stalled")


# --- who gets in -----------------------------------------------------------------------------------------


def test_the_token_in_the_header_the_hello_or_the_subprotocol_opens_the_feed():
    with serving() as server:
        with dial(server) as client:
            assert hello(client)["type"] == "welcome"
        with dial(server, token=None) as client:
            assert hello(client, token=TOKEN)["type"] == "welcome"
        with dial(server, token=None, subprotocols=[SUBPROTOCOL, bearer_item(TOKEN)]) as client:
            assert client.subprotocol == SUBPROTOCOL
            assert hello(client)["type"] == "welcome"


def test_the_subprotocol_token_is_never_echoed():
    with (
        serving() as server,
        dial(server, token=None, subprotocols=[SUBPROTOCOL, bearer_item(TOKEN)]) as client,
    ):
        assert client.response is not None
        assert "bearer" not in str(client.response.headers)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_no_or_a_wrong_token_is_answered_4401(token: str | None):
    with serving() as server, dial(server, token=token) as client:
        say(client, "hello", version=1)
        assert close_code(client) == 4401


def test_a_forged_host_and_a_foreign_origin_are_refused_before_the_upgrade():
    with serving() as server:
        # websockets' client writes its own Host; a request by hand says what it likes.
        answer = _by_hand(server, b"Host: evil.example:80\r\n")
        assert answer.startswith(b"HTTP/1.1 403")
        assert refused_status(server, headers={"Origin": "https://evil.example"}) == HTTPStatus.FORBIDDEN
        assert refused_status(server, headers={"Origin": "null"}) == HTTPStatus.FORBIDDEN
        assert server.stats.refused == 3


def test_without_the_common_subprotocol_the_upgrade_is_refused_with_400():
    with serving() as server:
        assert refused_status(server, subprotocols=None) == HTTPStatus.BAD_REQUEST
        assert refused_status(server, subprotocols=["otelprogress.v9"]) == HTTPStatus.BAD_REQUEST


def test_other_paths_are_not_found_and_the_worker_link_only_where_it_is_served():
    with serving() as server:
        assert refused_status(server, "/") == HTTPStatus.NOT_FOUND
        assert refused_status(server, "/v1/worker") == HTTPStatus.NOT_FOUND


def test_a_worker_connection_is_handed_to_its_handler_with_its_token():
    seen = []

    async def handler(connection) -> None:
        seen.append((connection.token, connection.path))
        connection.authenticate(1000)
        async for message in connection:
            await connection.send(message)

    with serving(worker_handler=handler) as server, dial(server, "/v1/worker") as worker:
        worker.send("ping")
        assert worker.recv(timeout=10) == "ping"
        assert seen == [(TOKEN, "/v1/worker")]


def test_small_frames_do_not_wait_for_the_peers_delayed_acknowledgement():
    options = []

    async def handler(connection) -> None:
        sock = connection.transport.get_extra_info("socket")
        options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with serving(worker_handler=handler) as server, dial(server, "/v1/worker"):
        assert eventually(lambda: options)[0] != 0


def test_the_clients_beyond_the_limit_are_answered_503_and_later_ones_get_in_again():
    with serving(limits=ServerLimits(max_feed_clients=1)) as server:
        with dial(server) as first:
            hello(first)
            eventually(lambda: server.client_count == 1)
            assert refused_status(server) == HTTPStatus.SERVICE_UNAVAILABLE
        eventually(lambda: server.client_count == 0)
        with dial(server) as second:
            assert hello(second)["type"] == "welcome"


def test_the_token_in_the_hello_does_not_get_around_the_limit():
    with serving(limits=ServerLimits(max_feed_clients=1)) as server:
        with dial(server, token=None) as first, dial(server, token=None) as second:
            assert hello(first, token=TOKEN)["type"] == "welcome"
            say(second, "hello", version=1, token=TOKEN)
            assert close_code(second) == 4503


def test_connections_that_show_no_token_cannot_pile_up():
    with serving(limits=ServerLimits(max_unauthenticated=3)) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(server.address))
        eventually(lambda: len(server._connections) == 3)
        with socket.create_connection(server.address, timeout=10) as fourth:
            with contextlib.suppress(ConnectionResetError):
                assert fourth.recv(1) == b""
        eventually(lambda: server.stats.dropped == 1)


# --- hostile peers ---------------------------------------------------------------------------------------


def _by_hand(server: WebSocketServer, headers: bytes, *, size: int = 4096) -> bytes:
    request = (
        b"GET /v1/feed HTTP/1.1\r\n" + headers + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n"
    )
    with socket.create_connection(server.address, timeout=10) as sock:
        sock.sendall(request)
        return sock.recv(size)


def still_serves(server: WebSocketServer) -> bool:
    with dial(server) as client:
        return hello(client)["type"] == "welcome"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("", 4400),
        ("not json", 4400),
        ("[]", 4400),
        ('{"type":"hello"}', 4400),
        ('{"type":"subscribe","id":"s1"}', 4400),
        (json.dumps({"type": "hello", "version": 1, "client": "x" * 5000}), 1009),
        ("[" * 2000, 4400),
        (b"\x00\xff\xfe", 4400),
    ],
)
def test_a_hostile_first_frame_ends_only_its_own_connection(frame: str | bytes, code: int):
    with serving() as server:
        with dial(server, token=None) as client:
            client.send(frame)
            assert close_code(client) == code
        assert still_serves(server)
        assert server.stats.failures == 0


def test_a_frame_over_the_limit_after_the_hello_is_answered_1009():
    with serving() as server, dial(server) as client:
        hello(client)
        client.send("x" * 70_000)
        assert close_code(client) == 1009


def test_raw_garbage_and_wrong_frames_do_not_end_the_server():
    garbage = [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"POST /v1/feed HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"\r\n\r\n" * 100,
        os.urandom(2000),
    ]
    with serving() as server:
        for data in garbage:
            with socket.create_connection(server.address, timeout=10) as sock, contextlib.suppress(OSError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        assert still_serves(server)


def test_invalid_utf8_in_a_text_frame_is_answered_1007():
    with serving() as server, dial(server) as client:
        client.send(b"\xff\xfe", text=True)
        assert close_code(client) in (1007, 4400)


def test_no_hello_in_time_is_answered_4408():
    from otelprogress.protocol.messages import Limits

    host = real_host()
    host.hub.limits = Limits(hello_timeout_s=0.1)
    with serving(host) as server, dial(server) as client:
        assert close_code(client) == 4408


def test_a_request_that_never_ends_is_dropped():
    with serving(limits=ServerLimits(handshake_timeout_s=0.1)) as server:
        with socket.create_connection(server.address, timeout=10) as sock:
            sock.sendall(b"GET /v1/feed HTTP/1.1\r\nHost:")
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""


def test_a_reader_that_accepts_nothing_is_closed_4508_and_the_others_go_on():
    host = real_host()
    limits = ServerLimits(write_stall_timeout_s=0.3, close_timeout_s=0.2)
    with serving(host, limits=limits) as server:
        with dial(server) as good, dial(server, max_queue=1) as stalled:
            subscribe(good)
            subscribe(stalled)
            host.submit(started())
            # The client library stops reading once its queue is full; the kernel's buffers fill, then ours.
            stop = threading.Event()

            def publish() -> None:
                number = 1
                while not stop.is_set():
                    for _ in range(200):
                        number += 1
                        host.submit(noted(number, message="x" * 1000))
                    stop.wait(0.01)

            def read() -> None:
                with contextlib.suppress(TimeoutError, ConnectionClosed):
                    while not stop.is_set():
                        good.recv(timeout=1)

            threads = [threading.Thread(target=publish), threading.Thread(target=read)]
            for thread in threads:
                thread.start()
            try:
                eventually(lambda: server.client_count == 1, 30)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            assert good.protocol.state.name == "OPEN"
            stalled.close_socket()


def test_a_peer_that_does_not_answer_a_ping_is_closed_4510():
    limits = ServerLimits(ping_interval_s=0.1, pong_timeout_s=0.2, close_timeout_s=0.2)
    with serving(limits=limits) as server:
        request = (
            f"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n"
        )
        with socket.create_connection(server.address, timeout=10) as sock:
            sock.sendall(request.encode())
            data = b""
            while piece := sock.recv(4096):
                data += piece
        assert b"\x89\x00" in data  # the ping
        assert (4510).to_bytes(2, "big") in data


def test_a_client_that_answers_pings_stays():
    limits = ServerLimits(ping_interval_s=0.05, pong_timeout_s=5)
    with serving(limits=limits) as server, dial(server, ping_interval=None) as client:
        hello(client)
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.4)
        assert server.client_count == 1


# --- starting and ending ---------------------------------------------------------------------------------


def test_a_taken_port_makes_it_the_next_one_and_says_so(caplog: pytest.LogCaptureFixture):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        server = WebSocketServer(real_host(), token=TOKEN, port=wanted)
        with caplog.at_level(logging.INFO, "otelprogress.feed"):
            server.start()
        try:
            assert server.address[1] != wanted
            assert f"port {wanted} is taken: the feed listens on port {server.address[1]}" in caplog.text
        finally:
            server.close()


def test_closing_sends_what_waits_says_drain_and_closes_1012():
    host = real_host()
    with serving(host) as server, dial(server) as client:
        subscribe(client)
        host.submit(started())
        host.submit(ended(2))
        server.close()
        heard = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                heard.append(hear(client))
        kinds = [event["kind"] for message in heard for event in message.get("events", ())]
        assert kinds == ["operation.started", "operation.ended"]
        assert heard[-1]["type"] == "drain"
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


def test_an_upgrade_while_the_feed_ends_is_refused_with_503():
    limits = ServerLimits(close_timeout_s=20)
    with serving(limits=limits) as server, socket.create_connection(server.address, timeout=20) as late:
        eventually(lambda: server._connections)
        closing = threading.Thread(target=server.close, args=(20,))
        closing.start()
        eventually(lambda: not server._server.is_serving())
        late.sendall(
            f"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n".encode()
        )
        assert late.recv(4096).startswith(b"HTTP/1.1 503")
        closing.join()


def test_nothing_is_compressed_even_where_a_client_offers_it():
    with (
        serving() as server,
        connect(
            server.url + "/v1/feed",
            additional_headers={"Authorization": f"Bearer {TOKEN}"},
            subprotocols=[SUBPROTOCOL],
            compression="deflate",
            proxy=None,
        ) as client,
    ):
        assert hello(client)["type"] == "welcome"
        assert client.protocol.extensions == []


def test_closing_twice_or_before_starting_does_nothing():
    server = WebSocketServer(real_host(), token=TOKEN, port=0)
    server.close()
    server.start()
    server.close()
    server.close()
    with pytest.raises(OSError):
        socket.create_connection(server.address, timeout=1)


def test_closing_does_not_wait_for_a_client_that_never_answers():
    with serving(limits=ServerLimits(close_timeout_s=60)) as server:
        with socket.create_connection(server.address):
            eventually(lambda: len(server._connections) == 1)
            server.close(0.2)
            assert not server._thread.is_alive()


def test_closing_under_load_leaves_no_task_behind(caplog: pytest.LogCaptureFixture):
    host = real_host()
    host.submit(started())
    with caplog.at_level(logging.DEBUG, "asyncio"), serving(host) as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            subscribe(stack.enter_context(dial(server)))
        stack.enter_context(socket.create_connection(server.address))
        server.close(0.0)
        gc.collect()
    assert "pending" not in caplog.text


def test_an_empty_token_and_a_reachable_address_are_refused():
    with pytest.raises(InvalidValue, match="token"):
        WebSocketServer(real_host(), token="")
    with pytest.raises(InvalidValue, match="TLS"):
        WebSocketServer(real_host(), token=TOKEN, bind="0.0.0.0")


def test_an_address_that_is_not_ours_says_why():
    server = WebSocketServer(real_host(), token=TOKEN, bind="192.0.2.1", allow_remote=True, port=0)
    with pytest.raises(FeedUnavailable, match=r"192\.0\.2\.1"):
        server.start()


def test_tokens_are_not_written_to_any_log(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG, "otelprogress"):
        with serving() as server:
            with dial(server, token=None, subprotocols=[SUBPROTOCOL, bearer_item(TOKEN)]) as client:
                hello(client)
    ours = [
        record.getMessage() for record in caplog.records if not record.name.startswith("websockets.client")
    ]
    assert not any(TOKEN in text or bearer_item(TOKEN) in text for text in ours)


def test_no_header_of_the_handshake_stays_in_memory():
    with serving() as server, dial(server) as client:
        hello(client)
        (connection,) = server._connections
        assert connection.request is not None
        assert list(connection.request.headers) == []
        assert connection.token is None


def test_a_server_can_be_started_beside_a_running_loop():
    async def main() -> str:
        with serving() as server:
            return await asyncio.to_thread(lambda: "ok" if still_serves(server) else "no")

    assert asyncio.run(main()) == "ok"


def test_without_a_thread_left_it_says_so_and_leaves_nothing_open(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = WebSocketServer(real_host(), token=TOKEN, port=port)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ThreadRefused, match="can't start new thread"):
            server.start()
    server.close()
    with socket.create_server(("127.0.0.1", port)):  # nobody listens there
        pass
