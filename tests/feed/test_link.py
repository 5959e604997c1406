from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from otelprogress.feed import runtime_file
from otelprogress.feed.host import Host
from otelprogress.feed.link import LinkClient
from otelprogress.feed.server import WebSocketServer
from otelprogress.feed.worker_handler import WorkerLinks
from otelprogress.model.events import FeedEvent, OperationView, State
from tests.feed.fakes import ended, noted, progressed, run_id, started
from tests.feed.serving import TOKEN, dial, hear, real_host, say
from tests.waiting import eventually

T = TypeVar("T")

PID_AND_SOCKET_SCRIPT = """
import sys, time
from tests.feed.fakes import started
from tests.feed.serving import real_host
from otelprogress.feed.link import LinkClient
host = real_host()
link = LinkClient(host, sys.argv[1], writer_id="child")
link.attach()
host.submit(started(writer_id="child"))
assert link.flush(10, acknowledged=True)
print("ready", flush=True)
time.sleep(600)
"""


class Parent:
    """A process with a feed, as its children see it."""

    def __init__(self, folder: Path, *, grace_s: float = 1.0) -> None:
        self.host = real_host()
        self.told: list[FeedEvent] = []
        self.host.add_listener(lambda applied: self.told.extend(each.event for each in applied))
        self.links = WorkerLinks(self.host, token=TOKEN, grace_s=grace_s)
        self.server = WebSocketServer(self.host, token=TOKEN, port=0, worker_handler=self.links)
        self.server.start()
        self.path = runtime_file.write(self.server.url, TOKEN, folder=folder)

    def view(self, number: int = 1) -> OperationView | None:
        with self.host.lock:
            return self.host.hub.tree.view(run_id(number), self.host.clock.time_unix_ns(), steps=True)

    def state(self, number: int = 1) -> State | None:
        view = self.view(number)
        return None if view is None else view.state

    def cut(self, error: OSError | None = None) -> None:
        """End the worker's connection, as a network would: by a reset, or by what the kernel found."""
        eventually(lambda: self.links.connected_writers)
        self.on_loop(lambda: [each.transport._force_close(error) for each in self.connections()])

    def connections(self) -> list[Any]:
        writers = self.links._writers.values()
        return [writer.connection for writer in writers if writer.connection is not None]

    def on_loop(self, call: Callable[[], T]) -> T:
        answer: Future[T] = Future()
        self.server._loop.call_soon_threadsafe(lambda: answer.set_result(call()))
        return answer.result(10)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    tmp_path.chmod(0o700)
    parent = Parent(tmp_path)
    yield parent
    parent.server.close(2.0)


@contextlib.contextmanager
def child(parent: Parent, **options: Any) -> Iterator[tuple[Host, LinkClient]]:
    host = real_host()
    link = LinkClient(host, parent.path, writer_id="writer-1", **options)
    link.attach()
    try:
        yield host, link
    finally:
        link.close(2.0)


def test_what_a_child_says_stands_in_the_parent(parent: Parent):
    with child(parent, service="etl") as (host, link):
        host.submit(started())
        host.submit(noted(2, message="hello"))
        host.submit(progressed(5, total=9))
        eventually(
            lambda: (view := parent.view()) is not None and view.step is not None and view.step.completed == 5
        )
        host.submit(ended(3))
        assert link.flush(10, acknowledged=True)
        assert eventually(lambda: parent.state() is State.SUCCEEDED)
    assert parent.links.stats.lost_runs == 0


def test_nothing_is_opened_before_the_first_event(parent: Parent):
    threads = threading.active_count()
    with child(parent) as (_, link):
        assert threading.active_count() == threads
        assert link.flush(10)
        link.close()
        assert parent.links.stats.connections == 0


def test_after_a_cut_everything_arrives_exactly_once(parent: Parent):
    with child(parent) as (host, link):
        host.submit(started())
        for n in range(2, 400):
            host.submit(noted(n, message=f"note {n}"))
            if n % 60 == 0:
                parent.cut()
        host.submit(ended(400))
        assert link.flush(20, acknowledged=True)
        assert link.stats.connections > 1
    assert eventually(lambda: parent.state() is State.SUCCEEDED)
    messages = [event.message for event in parent.told if event.kind == "operation.noted"]
    assert messages == [f"note {n}" for n in range(2, 400)]
    assert parent.links.stats.lost_runs == 0


def test_a_child_that_says_bye_with_nothing_open_loses_nothing(parent: Parent):
    with child(parent) as (host, link):
        host.submit(started())
        host.submit(ended(2))
    eventually(lambda: parent.links.stats.connections == 1 and parent.links.stats.workers == 0)
    assert parent.state() is State.SUCCEEDED
    assert parent.links.stats.lost_runs == 0


def test_a_run_that_a_leaving_child_left_open_is_lost(parent: Parent):
    with child(parent) as (host, _):
        host.submit(started())
    assert eventually(lambda: parent.state() is State.LOST)
    view = parent.view()
    assert view is not None
    assert view.lost_detector == "atexit"


def test_a_killed_child_is_lost_with_its_signal_and_without_waiting_for_the_grace(parent: Parent):
    parent.links._grace_s = 600
    with _script(parent) as process:
        process.send_signal(signal.SIGKILL)
        assert eventually(lambda: parent.state() is State.LOST)
    view = parent.view()
    assert view is not None
    assert view.lost_detector == "link"
    assert view.lost_cause == "killed by SIGKILL"
    assert view.lost_evidence_unix_ns is not None
    assert view.lost_evidence_unix_ns >= view.started_at_unix_ns


def test_a_stopped_child_is_not_lost(parent: Parent):
    with _script(parent) as process:
        process.send_signal(signal.SIGSTOP)
        # Longer than the grace: had anything been concluded from silence, it would have been said by now.
        with pytest.raises(AssertionError):
            eventually(lambda: parent.state() is not State.RUNNING, timeout_s=1.5)
        process.send_signal(signal.SIGCONT)
        process.kill()
        assert eventually(lambda: parent.state() is State.LOST)


@contextlib.contextmanager
def _script(parent: Parent) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PID_AND_SOCKET_SCRIPT, str(parent.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert eventually(lambda: parent.state() is State.RUNNING)
            yield process
        finally:
            process.kill()


def test_a_writer_that_stays_away_is_lost_and_its_return_revives_it(parent: Parent):
    parent.links._grace_s = 0.0
    with dial(parent.server, "/v1/worker") as first:
        say(first, "register", version=1, writer="writer-1")
        assert hear(first)["n"] == 0
        say(first, "events", n=1, events=[msgspec.to_builtins(started())])
        assert hear(first) == {"type": "ack", "n": 1}
    assert eventually(lambda: parent.state() is State.LOST)
    with dial(parent.server, "/v1/worker") as second:
        say(second, "register", version=1, writer="writer-1")
        assert hear(second)["n"] == 1
        assert eventually(lambda: parent.state() is State.RUNNING)


def test_a_host_that_vanished_is_lost_as_of_when_it_was_last_heard(parent: Parent):
    parent.links._grace_s = 0.0
    with dial(parent.server, "/v1/worker") as connection:
        say(connection, "register", version=1, writer="writer-1")
        say(connection, "events", n=1, events=[msgspec.to_builtins(started())])
        assert eventually(lambda: parent.state() is State.RUNNING)
        heard_unix_ns = parent.links._writers["writer-1"].heard_unix_ns
        parent.cut(TimeoutError(errno.ETIMEDOUT, "no answer to keepalive"))
        assert eventually(lambda: parent.state() is State.LOST)
    view = parent.view()
    assert view is not None
    assert view.lost_detector == "keepalive"
    assert view.lost_evidence_unix_ns == heard_unix_ns
    assert view.lost_cause is not None
    assert "ETIMEDOUT" in view.lost_cause


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="other names elsewhere")
def test_both_ends_let_the_kernel_look_after_five_seconds_of_silence(parent: Parent):
    with child(parent) as (host, link):
        host.submit(started())
        assert link.flush(10, acknowledged=True)
        theirs = socket.socket(
            fileno=os.dup(parent.connections()[0].transport.get_extra_info("socket").fileno())
        )
        assert link._wire is not None
        ours = socket.socket(fileno=os.dup(link._wire.fileno()))
        with theirs, ours:
            for sock in (theirs, ours):
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert [
                    sock.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                ] == [5, 5, 3]
        host.submit(ended(2))


def test_a_wrong_token_is_refused_for_good(parent: Parent):
    with dial(parent.server, "/v1/worker", token="wrong") as connection:
        with pytest.raises(Exception, match="4401"):
            connection.recv(timeout=10)


def test_a_worker_may_show_its_token_when_it_registers(parent: Parent):
    with dial(parent.server, "/v1/worker", token=None) as connection:
        say(connection, "register", version=1, writer="writer-1", token=TOKEN)
        assert hear(connection)["type"] == "welcome"


def test_a_first_frame_that_is_no_registration_is_refused(parent: Parent):
    with dial(parent.server, "/v1/worker") as connection:
        say(connection, "events", n=1)
        with pytest.raises(Exception, match="4400"):
            connection.recv(timeout=10)
    assert parent.links.stats.refused == 1


def test_a_child_whose_parent_refuses_it_gives_up_and_goes_on(parent: Parent, tmp_path: Path):
    stranger = runtime_file.write(parent.server.url, "wrong", folder=tmp_path)
    host = real_host()
    link = LinkClient(host, stranger, writer_id="w")
    link.attach()
    host.submit(started())
    assert eventually(lambda: link.given_up)
    assert link.flush(10)
    link.close(2.0)


def test_without_a_parent_memory_is_bounded_and_the_exit_is_quick(parent: Parent):
    with child(parent, max_pending=100) as (host, link):
        host.submit(started())
        assert link.flush(10, acknowledged=True)
        parent.server.close(2.0)
        for n in range(2, 5000):
            host.submit(noted(n))
        eventually(lambda: link.dropped >= 4000)
        began_s = time.monotonic()
        link.close(1.0)
        assert time.monotonic() - began_s < 10


def test_a_parent_that_is_proven_gone_is_given_up(tmp_path: Path):
    tmp_path.chmod(0o700)
    script = (
        "import sys\nfrom pathlib import Path\nfrom otelprogress.feed import runtime_file\n"
        "print(runtime_file.write('ws://127.0.0.1:9', 't', folder=Path(sys.argv[1])))"
    )
    path = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    host = real_host()
    link = LinkClient(host, path, writer_id="w")
    link.attach()
    host.submit(started())
    assert eventually(lambda: link.given_up)
    link.close()


def test_a_parent_that_accepts_and_never_answers_does_not_hold_up_the_exit(tmp_path: Path):
    tmp_path.chmod(0o700)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = runtime_file.write(f"ws://127.0.0.1:{silent.getsockname()[1]}", TOKEN, folder=tmp_path)
        host = real_host()
        link = LinkClient(host, path, writer_id="w")
        link.attach()
        host.submit(started())
        assert not link.flush(0.2)
        link.close(0.5)
        assert eventually(lambda: not any(each.name == "otelprogress-link" for each in threading.enumerate()))


def test_what_is_flushed_survives_a_kill_of_the_child(parent: Parent):
    script = PID_AND_SOCKET_SCRIPT.replace("assert link.flush(10, acknowledged=True)", "").replace(
        'print("ready", flush=True)\ntime.sleep(600)',
        "from tests.feed.fakes import ended, noted\n"
        "for n in range(2, 1000): host.submit(noted(n, writer_id='child'))\n"
        "host.submit(ended(1000, writer_id='child'))\n"
        "assert link.flush(10)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    )
    process = subprocess.run([sys.executable, "-c", script, str(parent.path)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert eventually(lambda: parent.state() is State.SUCCEEDED)


def test_a_forked_child_leaves_the_link_to_its_parent(parent: Parent):
    with child(parent) as (host, link):
        host.submit(started())
        assert link.flush(10, acknowledged=True)
        pid = os.fork()
        if pid == 0:
            link.abandon()
            host.reset_after_fork()
            link.close()
            signal.pause()
            os._exit(0)
        try:
            host.submit(ended(2))
            assert link.flush(10, acknowledged=True)
            link.close(2.0)
            # The forked child lives and holds nothing: the end of the connection is seen.
            assert eventually(lambda: parent.links.stats.workers == 0)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert parent.links.stats.lost_runs == 0


def test_a_parent_that_stands_still_costs_one_wait_and_not_one_for_each_task(tmp_path: Path):
    tmp_path.chmod(0o700)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = runtime_file.write(f"ws://127.0.0.1:{silent.getsockname()[1]}", TOKEN, folder=tmp_path)
        host = real_host()
        link = LinkClient(host, path, writer_id="w")
        link.attach()
        host.submit(started())
        assert not link.flush(0.1)
        began_s = time.monotonic()
        for n in range(2, 50):
            host.submit(noted(n))
            assert not link.flush(60)
        assert time.monotonic() - began_s < 30
        link.close(0.5)
