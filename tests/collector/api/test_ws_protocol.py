"""A WebSocket connection of the collector's port, as an application under it sees it."""

from __future__ import annotations

import contextlib
import errno
import queue
import socket
import struct
from typing import Any

import pytest
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from otelprogress.protocol.messages import SUBPROTOCOL
from otelprogress_collector.api import ws_protocol
from otelprogress_collector.api.ws_protocol import EXTENSION, CollectorWebSocket, End, end_of
from tests.collector.api.kit import Served, serving
from tests.feed.serving import dial
from tests.waiting import eventually


class Link:
    """What a worker link does with its connection: accept, listen to the end, and ask how it ended."""

    def __init__(self) -> None:
        self.connections: queue.Queue[CollectorWebSocket] = queue.Queue()
        self.messages: queue.Queue[Any] = queue.Queue()
        self.ends: queue.Queue[End] = queue.Queue()
        self.close_with: tuple[int, str] | None = None

    async def __call__(self, scope, receive, send) -> None:
        connection: CollectorWebSocket = scope["extensions"][EXTENSION]
        await receive()
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        connection.forget_handshake()
        self.connections.put(connection)
        if self.close_with is not None:
            connection.shut(*self.close_with)
        while (message := await receive())["type"] != "websocket.disconnect":
            self.messages.put(message.get("text") or message.get("bytes"))
        self.messages.put(message)
        self.ends.put(await connection.ended())


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def served(link: Link):
    with serving(routes=[WebSocketRoute("/link", link)]) as server:
        yield server


@pytest.fixture
def raw(served: Served):
    """Opens connections of bytes, past the handshake."""
    with contextlib.ExitStack() as stack:
        yield lambda *frames: stack.enter_context(opened(served, *frames))


def opened(served: Served, *frames: Frame) -> socket.socket:
    sock = socket.create_connection(served.address, timeout=10)
    sock.sendall(
        b"GET /link HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(4096)
    for frame in frames:
        sock.sendall(frame.serialize(mask=True))
    return sock


def until_the_end(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(65_536):
            data += piece
    except ConnectionResetError:
        pass
    return data


# --- how it ended ----------------------------------------------------------------------------------------


def test_a_peer_that_hangs_up_ends_it_with_fin(served: Served, link: Link, raw):
    raw().close()
    assert link.ends.get(timeout=10).kind == "fin"


def test_a_peer_that_is_killed_with_unread_data_ends_it_with_reset(served: Served, link: Link, raw):
    sock = raw()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    end = link.ends.get(timeout=10)
    assert end.kind == "reset"
    assert isinstance(end.error, ConnectionResetError)


def test_a_peer_that_says_goodbye_ends_it_closed_and_its_words_come_first(served: Served, link: Link):
    with dial(served, "/link") as client:
        client.send("last words")
        client.close(4000, "bye")
    assert link.messages.get(timeout=10) == "last words"
    assert link.messages.get(timeout=10) == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
    assert link.ends.get(timeout=10).kind == "closed"


def test_an_application_that_closes_ends_it_closed(served: Served, link: Link):
    link.close_with = (4503, "full")
    with dial(served, "/link") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=10)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4503, "full")
    assert link.ends.get(timeout=10).kind == "closed"


def test_the_keepalive_of_the_kernel_says_timeout():
    for number in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        error = OSError(number, "silent")
        assert end_of(error, peer_hung_up=False) == End("timeout", error)
    assert end_of(BrokenPipeError(errno.EPIPE, "gone"), peer_hung_up=False).kind == "reset"
    assert end_of(OSError(errno.EBADF, "odd"), peer_hung_up=False).kind == "error"


def test_the_socket_is_there_for_keepalive_and_small_frames_go_at_once(served: Served, link: Link):
    with dial(served, "/link"):
        connection = link.connections.get(timeout=10)
        sock = connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


# --- writing ---------------------------------------------------------------------------------------------


def test_many_frames_are_one_write_and_arrive_in_order(served: Served, link: Link):
    with dial(served, "/link") as client:
        connection = link.connections.get(timeout=10)
        writes = []

        def write_frames() -> None:
            write = connection.transport.write
            connection.transport.write = lambda data: (writes.append(data), write(data))
            connection.write_frames([b"one", b"two", b"three"])
            del connection.transport.write

        served.call(write_frames)
        assert [client.recv(timeout=10) for _ in range(3)] == ["one", "two", "three"]
        assert len(writes) == 1


def test_a_peer_that_does_not_read_pauses_it_and_going_on_is_told(served: Served, link: Link, raw):
    sock = raw()
    connection = link.connections.get(timeout=10)
    told = []

    def fill() -> bool:
        connection.on_writable = lambda: told.append(1)
        connection.write_frames([b"x" * 100_000])
        return connection.paused

    eventually(lambda: served.call(fill))
    # What the kernel holds for it is bounded, so the pause comes early.
    assert connection.written_bytes < 16_000_000
    assert not told
    sock.settimeout(0.05)

    def read_on() -> bool:
        with contextlib.suppress(TimeoutError):
            assert sock.recv(1 << 20)
        return bool(told)

    eventually(read_on)
    assert not connection.paused


def test_a_peer_that_does_not_read_is_cut_when_it_is_shut(
    served: Served, link: Link, raw, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ws_protocol, "CLOSE_TIMEOUT_S", 0.1)
    raw()
    connection = link.connections.get(timeout=10)
    eventually(lambda: served.call(lambda: (connection.write_frames([b"x" * 100_000]), connection.paused)[1]))
    served.call(connection.shut, 4508, "slow")
    assert link.messages.get(timeout=10)["code"] == 4508
    assert link.ends.get(timeout=10).kind == "closed"


# --- hostile peers ---------------------------------------------------------------------------------------


def test_a_message_of_many_fragments_is_one_message(served: Served, link: Link, raw):
    pieces = [Frame(Opcode.TEXT, b"a", fin=False)]
    pieces += [Frame(Opcode.CONT, b"" if number % 3 else b"b", fin=False) for number in range(600)]
    raw(*pieces, Frame(Opcode.CONT, b"c"), Frame(Opcode.TEXT, b"next"))
    assert link.messages.get(timeout=10) == "a" + "b" * 200 + "c"
    assert link.messages.get(timeout=10) == "next"


def test_fragments_count_together_against_the_limit_before_authentication(served: Served, link: Link, raw):
    sock = raw(Frame(Opcode.TEXT, b"x" * 4_000, fin=False), Frame(Opcode.CONT, b"y" * 97))
    assert (1009).to_bytes(2, "big") in until_the_end(sock)


def test_a_known_peer_may_say_more(served: Served, link: Link):
    with dial(served, "/link") as client:
        served.call(link.connections.get(timeout=10).authenticate, 10_000)
        client.send("x" * 10_000)
        assert len(link.messages.get(timeout=10)) == 10_000
        client.send("x" * 10_001)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.CONT])
def test_a_text_that_is_no_utf8_is_closed_1007_without_a_line_in_the_log(
    served: Served, link: Link, raw, opcode: Opcode, caplog: pytest.LogCaptureFixture
):
    if opcode is Opcode.TEXT:
        sock = raw(Frame(opcode, b"\xff\xfe"))
    else:
        sock = raw(Frame(Opcode.TEXT, b"\xc3", fin=False), Frame(opcode, b"\xc3"))
    assert (1007).to_bytes(2, "big") in until_the_end(sock)
    assert not caplog.records


def test_a_peer_that_pings_and_does_not_read_is_cut(
    served: Served, link: Link, raw, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ws_protocol, "_MAX_HOARD_BYTES", 10_000)
    sock = raw()
    sock.settimeout(10)
    pings = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 1_000
    with pytest.raises(OSError):
        while True:
            sock.sendall(pings)
    assert link.ends.get(timeout=10).kind == "closed"


def test_more_headers_than_the_parser_takes_are_refused_without_a_traceback(
    served: Served, caplog: pytest.LogCaptureFixture
):
    with socket.create_connection(served.address, timeout=10) as sock:
        sock.sendall(
            b"GET /link HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + b"A: b\r\n" * 300
            + b"\r\n"
        )
        assert until_the_end(sock).startswith(b"HTTP/1.1 431")
    assert not caplog.records


def test_nobody_is_pinged_but_by_who_serves_it(served: Served, link: Link):
    with dial(served, "/link", ping_interval=None):
        connection = link.connections.get(timeout=10)
        assert (connection.ping_interval, connection.ping_timer) == (None, None)
        heard_s = connection.last_heard_s
        served.call(connection.ping_now)
        eventually(lambda: connection.last_heard_s > heard_s)  # its pong is a sign of life


def test_the_handshake_is_forgotten(served: Served, link: Link):
    with dial(served, "/link", token="a-secret"):
        connection = link.connections.get(timeout=10)
        kept = f"{connection.scope} {list(connection.request.headers.raw_items())}"
        assert "a-secret" not in kept
