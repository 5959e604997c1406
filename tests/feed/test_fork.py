from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from otelprogress.feed import fork


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        yield sock
        fork.release_listener(*address)


def forked_child(then_wait: bool = True) -> int:
    """A child that has run the fork hooks and then sleeps until it is killed; its pid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"!")
        signal.pause()
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


def test_a_forked_child_holds_no_connection_that_the_parent_accepted(listener: socket.socket):
    fork.guard_listener(*listener.getsockname())
    with socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        pid = forked_child()
        try:
            accepted.close()
            client.settimeout(10)
            assert client.recv(1) == b""
        finally:
            end(pid)


def test_a_forked_child_holds_no_listening_socket(listener: socket.socket):
    fork.guard_listener(*listener.getsockname())
    pid = forked_child()
    try:
        address = listener.getsockname()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
    finally:
        end(pid)


def test_a_forked_child_holds_no_guarded_connection_and_every_other_one_to_the_same_place(
    listener: socket.socket,
):
    client, theirs = (socket.create_connection(listener.getsockname()) for _ in range(2))
    (accepted, _), (accepted_from_them, _) = listener.accept(), listener.accept()
    fork.guard_connection(*client.getsockname())
    pid = forked_child()
    try:
        client.close()
        accepted.settimeout(10)
        assert accepted.recv(1) == b""
        theirs.close()
        accepted_from_them.settimeout(0.2)
        with pytest.raises(TimeoutError):
            accepted_from_them.recv(1)
    finally:
        accepted.close()
        accepted_from_them.close()
        end(pid)


def test_a_socket_that_is_just_being_connected_is_given_up_by_its_number(listener: socket.socket):
    client = socket.socket()
    fork.guard_connecting(client.fileno())
    pid = forked_child()
    try:
        client.connect(listener.getsockname())
        fork.release_connecting(client.fileno())
        accepted, _ = listener.accept()
        client.close()
        accepted.settimeout(10)
        assert accepted.recv(1) == b""
        accepted.close()
    finally:
        end(pid)


def test_the_parents_own_connections_go_on(listener: socket.socket):
    fork.guard_listener(*listener.getsockname())
    with socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        pid = forked_child()
        end(pid)
        accepted.sendall(b"still here")
        client.settimeout(10)
        assert client.recv(100) == b"still here"
        accepted.close()


def test_sockets_of_the_application_are_left_alone():
    script = """
import os, socket
from otelprogress.feed import fork
ours = socket.create_server(("127.0.0.1", 0))
theirs = socket.create_server(("127.0.0.1", 0))
fork.guard_listener(*ours.getsockname())
client = socket.create_connection(theirs.getsockname())
pid = os.fork()
if pid == 0:
    assert theirs.getsockname()[1] and client.getpeername() == theirs.getsockname()
    try:
        ours.getsockname()
    except OSError:
        ours.close()
        theirs.close()
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "7"


def test_a_released_connection_is_a_strangers_again(listener: socket.socket):
    with socket.create_connection(listener.getsockname()) as client:
        fork.guard_connection(*client.getsockname())
        fork.release_connection(*client.getsockname())
        accepted, _ = listener.accept()
        pid = forked_child()
        try:
            client.close()
            accepted.settimeout(0.2)
            with pytest.raises(TimeoutError):
                accepted.recv(1)
        finally:
            accepted.close()
            end(pid)


def test_nothing_is_left_for_a_network_thread_to_import_while_another_forks():
    script = (
        "import sys, otelprogress.feed.link_wire, otelprogress.feed.server; before = set(sys.modules); import socket;"
        "socket.getaddrinfo('127.0.0.1', 1); print(sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert loaded.stdout.strip() == "[]"
