from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.faults.proxy import FaultProxy, Plan
from tests.waiting import eventually


@contextlib.contextmanager
def echo_server():
    """Sends back whatever it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65_536):
                peer.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def through(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    return data


def test_without_a_fault_everything_passes_in_slices_too():
    with echo_server() as target, FaultProxy(target, lambda _: Plan(slice_bytes=1)) as proxy:
        with through(proxy) as client:
            client.sendall(b"hello" * 100)
            assert receive(client, 500) == b"hello" * 100


def test_a_reset_comes_at_the_byte_that_was_asked_for():
    with echo_server() as target, FaultProxy(target, lambda _: Plan(reset_down_at=7)) as proxy:
        with through(proxy) as client:
            client.sendall(b"0123456789")
            with pytest.raises(ConnectionResetError):
                while client.recv(100):
                    pass
        assert proxy.down_bytes == 7
        assert proxy.resets == 1


def test_a_cut_delivers_the_bytes_before_it_and_ends():
    with echo_server() as target, FaultProxy(target, lambda _: Plan(cut_down_at=4)) as proxy:
        with through(proxy) as client:
            client.sendall(b"0123456789")
            assert receive(client, 100) == b"0123"


def test_a_stall_holds_one_way_until_it_is_released():
    with echo_server() as target, FaultProxy(target, lambda _: Plan(stall_down_at=1)) as proxy:
        with through(proxy) as client:
            client.sendall(b"ping")
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.recv(4)
            client.settimeout(10)
            proxy.release()
            assert receive(client, 4) == b"ping"


def test_a_half_open_connection_says_nothing_any_more():
    with echo_server() as target, FaultProxy(target, lambda _: Plan(half_open_at=2)) as proxy:
        with through(proxy) as client:
            client.sendall(b"ping")
            assert receive(client, 2) == b"pi"
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.recv(4)
            assert proxy.open_connections == 1


def test_each_connection_has_its_own_plan():
    with echo_server() as target, FaultProxy(target, lambda n: Plan(cut_down_at=n + 1)) as proxy:
        for expected in (b"a", b"ab"):
            with through(proxy) as client:
                client.sendall(b"abc")
                assert receive(client, 10) == expected
        eventually(lambda: proxy.connections == 2)
