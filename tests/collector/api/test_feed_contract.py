"""What every host of the feed does with clients, well-meaning and hostile: the process and the collector."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from otelprogress.feed.admission import bearer_item
from otelprogress.feed.connection import ServerLimits
from otelprogress.protocol.messages import SUBPROTOCOL, Limits
from tests.collector.api import kit
from tests.feed import serving as process
from tests.feed.fakes import noted, progressed, run_id, started
from tests.feed.serving import TOKEN, dial, hear_until, hello, say, subscribe
from tests.model import digest_grammar
from tests.waiting import eventually

Serve = Callable[..., contextlib.AbstractContextManager[Any]]


class InProcess:
    """The in-process server under the names that the collector's has in these tests."""

    def __init__(self, server: Any, host: Any) -> None:
        self._server = server
        self.submit = host.submit
        self.url, self.address = server.url, server.address

    @property
    def client_count(self) -> int:
        return self._server.client_count

    @property
    def failures(self) -> int:
        return self._server.stats.failures


@contextlib.contextmanager
def served_in_process(
    *, feed_limits: Limits | None = None, limits: ServerLimits | None = None
) -> Iterator[InProcess]:
    host = process.real_host()
    if feed_limits is not None:
        host.hub.limits = feed_limits
    with process.serving(host, limits=limits) as server:
        yield InProcess(server, host)


@pytest.fixture(params=["process", "collector"])
def serve(request: pytest.FixtureRequest) -> Serve:
    return served_in_process if request.param == "process" else kit.serving


def refused_status(server: Any, path: str = "/v1/feed", **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refusal:
        dial(server, path, **options).close()
    return refusal.value.response.status_code


def close_code(connection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            connection.recv(timeout=10)
    assert closed.value.rcvd is not None, "closed without a code"
    return closed.value.rcvd.code


def still_serves(server: Any) -> bool:
    with dial(server) as client:
        return hello(client)["type"] == "welcome"


# --- what a client sees ----------------------------------------------------------------------------------


def test_an_event_reaches_a_subscriber_with_the_state_after_it(serve: Serve):
    with serve() as server, dial(server) as client:
        subscribe(client)
        server.submit(started())
        server.submit(noted(2, message="half way"))
        kinds = []
        while len(kinds) < 2:
            events = hear_until(client, "events")[-1]["events"]
            kinds += [(event["kind"], event["operation"]["name"]) for event in events]
        assert kinds == [("operation.started", "nightly load"), ("operation.noted", "nightly load")]


def test_a_snapshot_holds_what_was_there_before(serve: Serve):
    with serve() as server:
        server.submit(started())
        with dial(server) as client:
            heard = subscribe(client)
        shown = [
            each["id"] for message in heard if message["type"] == "snapshot" for each in message["operations"]
        ]
        assert shown == [run_id(1)]


def test_ticks_arrive_at_the_level_ticks_without_a_durable_event(serve: Serve):
    with serve() as server, dial(server) as client:
        server.submit(started())
        subscribe(client, level="ticks", max_rate_hz=50)
        server.submit(progressed(7, total=10))

        def completed() -> float | None:
            events = hear_until(client, "events")[-1]["events"]
            return events[-1]["operation"].get("step", {}).get("completed")

        eventually(lambda: completed() == 7)


def test_a_client_that_comes_back_with_its_cursor_gets_what_it_missed(serve: Serve):
    with serve() as server:
        server.submit(started())
        with dial(server) as client:
            cursor = subscribe(client)[-1]["cursor"]
        server.submit(noted(2, message="missed"))
        with dial(server) as client:
            hello(client)
            say(client, "subscribe", id="s1", cursor=cursor)
            heard = hear_until(client, "events")
        assert [message["type"] for message in heard] == ["subscribed", "events"]
        assert [event["message"] for event in heard[-1]["events"]] == ["missed"]


# --- who gets in -----------------------------------------------------------------------------------------


def test_digests_come_at_once_or_in_their_time_and_go_on_from_their_position(serve: Serve):
    with serve() as server:
        server.submit(started())
        with dial(server) as client:
            hello(client)
            # Once a second what can wait: the timer of the host has to fire for it.
            say(client, "subscribe", id="s1", render="digest", max_rate_hz=1.0)
            first = digest_grammar.parse(hear_until(client, "digest")[-1]["text"])
            assert first.full
            server.submit(noted(2, message="can wait"))
            later = digest_grammar.parse(hear_until(client, "digest")[-1]["text"])
            assert (later.full, later.operations[0].texts) == (False, ["can wait"])
            server.submit(noted(3, message="watch out", level="warning"))
            last = digest_grammar.parse(hear_until(client, "digest")[-1]["text"])
            assert (last.why, last.operations[0].texts) == ("warning", ["watch out"])
        with dial(server) as client:
            hello(client)
            say(client, "subscribe", id="s1", render="digest", cursor=f"@{first.position}")
            again = digest_grammar.parse(hear_until(client, "digest")[-1]["text"])
            assert (again.full, again.operations[0].texts) == (False, ["can wait", "watch out"])


def test_the_token_in_the_header_the_hello_or_the_subprotocol_opens_the_feed(serve: Serve):
    with serve() as server:
        with dial(server) as client:
            assert hello(client)["type"] == "welcome"
        with dial(server, token=None) as client:
            assert hello(client, token=TOKEN)["type"] == "welcome"
        with dial(server, token=None, subprotocols=[SUBPROTOCOL, bearer_item(TOKEN)]) as client:
            assert client.subprotocol == SUBPROTOCOL
            assert hello(client)["type"] == "welcome"


def test_the_subprotocol_token_is_never_echoed(serve: Serve):
    with (
        serve() as server,
        dial(server, token=None, subprotocols=[SUBPROTOCOL, bearer_item(TOKEN)]) as client,
    ):
        assert client.response is not None
        assert "bearer" not in str(client.response.headers)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_no_or_a_wrong_token_is_answered_4401(serve: Serve, token: str | None):
    with serve() as server, dial(server, token=token) as client:
        say(client, "hello", version=1)
        assert close_code(client) == 4401


def test_a_token_said_twice_or_unreadably_is_refused_before_the_upgrade(serve: Serve):
    with serve() as server:
        twice = [SUBPROTOCOL, bearer_item(TOKEN)]
        assert refused_status(server, subprotocols=twice) == HTTPStatus.BAD_REQUEST
        basic = {"Authorization": "Basic QTpC"}
        assert refused_status(server, token=None, headers=basic) == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://127.0.0.1.evil.example", "http://127.0.0.1", "file://"],
)
def test_a_foreign_origin_is_refused_before_the_upgrade(serve: Serve, origin: str):
    with serve() as server:
        assert refused_status(server, headers={"Origin": origin}) == HTTPStatus.FORBIDDEN
        suffix = f"http://127.0.0.1:{server.address[1]}.evil.example"
        assert refused_status(server, headers={"Origin": suffix}) == HTTPStatus.FORBIDDEN


def test_a_page_of_this_very_port_may_connect(serve: Serve):
    with (
        serve() as server,
        dial(server, headers={"Origin": f"http://127.0.0.1:{server.address[1]}"}) as client,
    ):
        assert hello(client)["type"] == "welcome"


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}"]
)
def test_a_forged_host_is_refused_before_the_upgrade(serve: Serve, host: str):
    with serve() as server:
        forged = host.format(port=server.address[1]).encode()
        assert by_hand(server, b"Host: " + forged + b"\r\n").startswith(b"HTTP/1.1 403")


def test_without_the_common_subprotocol_the_upgrade_is_refused_with_400(serve: Serve):
    with serve() as server:
        assert refused_status(server, subprotocols=None) == HTTPStatus.BAD_REQUEST
        assert refused_status(server, subprotocols=["otelprogress.v9"]) == HTTPStatus.BAD_REQUEST


def test_the_clients_beyond_the_limit_are_answered_503_and_later_ones_get_in_again(serve: Serve):
    with serve(limits=ServerLimits(max_feed_clients=1)) as server:
        with dial(server) as first:
            hello(first)
            eventually(lambda: server.client_count == 1)
            assert refused_status(server) == HTTPStatus.SERVICE_UNAVAILABLE
        eventually(lambda: server.client_count == 0)
        with dial(server) as second:
            assert hello(second)["type"] == "welcome"


def test_the_token_in_the_hello_does_not_get_around_the_limit(serve: Serve):
    with serve(limits=ServerLimits(max_feed_clients=1)) as server:
        with dial(server, token=None) as first, dial(server, token=None) as second:
            assert hello(first, token=TOKEN)["type"] == "welcome"
            say(second, "hello", version=1, token=TOKEN)
            assert close_code(second) == 4503


# --- hostile peers ---------------------------------------------------------------------------------------


def by_hand(server: Any, headers: bytes, *, frames: bytes = b"", size: int = 4096) -> bytes:
    """What comes back for an upgrade with these headers, up to the end or `size` bytes."""
    request = (
        b"GET /v1/feed HTTP/1.1\r\n" + headers + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n"
    )
    with socket.create_connection(server.address, timeout=10) as sock:
        sock.sendall(request)
        return sock.recv(size)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("", 4400),
        ("not json", 4400),
        ("[]", 4400),
        ('{"type":"hello"}', 4400),
        ('{"type":"subscribe","id":"s1"}', 4400),
        ('{"type":"hello","version":1,"token":5}', 4400),
        (json.dumps({"type": "hello", "version": 1, "client": "x" * 5000}), 1009),
        ("[" * 2000, 4400),
        ('{"a":' * 700, 4400),
        (b"\x00\xff\xfe", 4400),
    ],
)
def test_a_hostile_first_frame_ends_only_its_own_connection(serve: Serve, frame: str | bytes, code: int):
    with serve() as server:
        with dial(server, token=None) as client:
            client.send(frame)
            assert close_code(client) == code
        assert still_serves(server)
        assert server.failures == 0


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{}", 4400),
        ('{"type":"hello","version":1}', 4400),
        ('{"type":"ack","id":"s1","frames":-1}', 4400),
        ("x" * 70_000, 1009),
        ('{"type":"auth","token":"' + "x" * 9_000 + '"}', 4400),
        ('{"type":"command","command_id":"c","operation":"o","action":"a","arguments":' + "[" * 40, 4400),
    ],
)
def test_a_hostile_later_frame_ends_only_its_own_connection(serve: Serve, frame: str, code: int):
    with serve() as server:
        with dial(server) as client:
            hello(client)
            client.send(frame)
            assert close_code(client) == code
        assert still_serves(server)
        assert server.failures == 0


@pytest.mark.parametrize(
    "cursor", ["", "x", "A" * 512, "\u0000", "AcH_bmgQ2KUksC8dTwAAAAAAAAABukkhtQPrxRUiFFtuN2sGlw"]
)
def test_a_foreign_cursor_is_a_gap_and_a_snapshot(serve: Serve, cursor: str):
    with serve() as server, dial(server) as client:
        hello(client)
        say(client, "subscribe", id="s1", cursor=cursor)
        kinds = [message["type"] for message in hear_until(client, "snapshot_end")]
        assert kinds == ["subscribed", "gap", "snapshot_end"]


def test_raw_garbage_and_wrong_frames_do_not_end_the_server(serve: Serve):
    garbage = [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"POST /v1/feed HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"\r\n\r\n" * 100,
        os.urandom(2000),
    ]
    with serve() as server:
        for data in garbage:
            with socket.create_connection(server.address, timeout=10) as sock, contextlib.suppress(OSError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        assert still_serves(server)


def test_invalid_utf8_in_a_text_frame_is_answered_1007(serve: Serve):
    with serve() as server, dial(server) as client:
        client.send(b"\xff\xfe", text=True)
        assert close_code(client) in (1007, 4400)


def test_no_hello_in_time_is_answered_4408(serve: Serve):
    with serve(feed_limits=Limits(hello_timeout_s=0.1)) as server, dial(server) as client:
        assert close_code(client) == 4408


def test_a_client_that_asks_without_end_is_answered_4429(serve: Serve):
    with serve(feed_limits=Limits(frames_burst=50, frames_per_s=1.0)) as server, dial(server) as client:
        hello(client)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(200):
                say(client, "unsubscribe", id="nothing")
        assert close_code(client) == 4429


def test_a_peer_that_does_not_answer_a_ping_is_closed_4510(serve: Serve):
    limits = ServerLimits(ping_interval_s=0.1, pong_timeout_s=0.2, close_timeout_s=0.2)
    with serve(limits=limits) as server:
        request = (
            f"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n"
        )
        with socket.create_connection(server.address, timeout=10) as sock:
            sock.sendall(request.encode())
            data = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := sock.recv(4096):
                    data += piece
        assert b"\x89\x00" in data  # the ping
        assert (4510).to_bytes(2, "big") in data


def test_a_client_that_answers_pings_stays(serve: Serve):
    limits = ServerLimits(ping_interval_s=0.05, pong_timeout_s=5)
    with serve(limits=limits) as server, dial(server, ping_interval=None) as client:
        hello(client)
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.4)
        assert server.client_count == 1


# --- ending ----------------------------------------------------------------------------------------------


def test_at_the_end_clients_get_what_is_owed_then_drain_then_1012(serve: Serve):
    with contextlib.ExitStack() as stack:
        with serve() as server:
            client = stack.enter_context(dial(server))
            subscribe(client)
            server.submit(started())
            hear_until(client, "events")
        assert [message["type"] for message in hear_until(client, "drain")] == ["drain"]
        assert close_code(client) == 1012
