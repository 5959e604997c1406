from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelprogress.feed import runtime_file
from otelprogress.feed.link import LinkClient
from otelprogress.feed.link_route import ParentRoute
from otelprogress.model.events import State
from tests.feed.fakes import ended, noted, progressed, run_id, started
from tests.feed.family import REPORTING_CHILD, Parent, reporting, serving_parent
from tests.feed.serving import TOKEN, real_host
from tests.forking import forked
from tests.waiting import eventually


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    with serving_parent(tmp_path) as parent:
        yield parent


def test_what_a_child_says_stands_in_the_parent(parent: Parent):
    with reporting(parent, service="etl") as (host, link):
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
    with reporting(parent) as (_, link):
        assert threading.active_count() == threads
        assert link.flush(10)
        link.close()
        assert parent.links.stats.connections == 0


def test_what_the_childs_host_concludes_by_itself_is_left_to_the_parents(parent: Parent):
    with reporting(parent) as (host, link):
        host.submit(started(stall_after_s=0.05))
        eventually(lambda: (view := host.view(run_id())) and view.stalled)
        host.submit(ended(2))
        assert link.flush(10, acknowledged=True)
    assert parent.links.stats.events == 2


def test_after_a_cut_everything_arrives_exactly_once(parent: Parent):
    with reporting(parent) as (host, link):
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


def test_a_child_that_has_nothing_to_say_comes_back_after_a_cut(parent: Parent):
    with reporting(parent) as (host, link):
        host.submit(started())
        assert link.flush(10, acknowledged=True)
        for connections in (2, 3):
            parent.cut()
            assert eventually(
                lambda: link.stats.connections == connections and parent.links.connected_writers
            )
        assert parent.state() is State.RUNNING
        assert parent.links.stats.lost_runs == 0
        host.submit(ended(2))


def test_a_child_that_says_bye_with_nothing_open_loses_nothing(parent: Parent):
    with reporting(parent) as (host, link):
        host.submit(started())
        host.submit(ended(2))
    eventually(lambda: parent.links.stats.connections == 1 and parent.links.stats.workers == 0)
    assert parent.state() is State.SUCCEEDED
    assert parent.links.stats.lost_runs == 0


def test_a_child_whose_parent_refuses_it_gives_up_and_goes_on(parent: Parent, tmp_path: Path):
    stranger = runtime_file.write(parent.server.url, "wrong", folder=tmp_path)
    host = real_host()
    link = LinkClient(host, ParentRoute(stranger), writer_id="w")
    link.attach()
    host.submit(started())
    assert eventually(lambda: link.given_up)
    assert link.flush(10)
    link.close(2.0)


def test_without_a_parent_memory_is_bounded_and_the_exit_is_quick(parent: Parent):
    with reporting(parent, max_pending=100) as (host, link):
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
    link = LinkClient(host, ParentRoute(path), writer_id="w")
    link.attach()
    host.submit(started())
    assert eventually(lambda: link.given_up)
    link.close()


def test_a_parent_that_accepts_and_never_answers_does_not_hold_up_the_exit(tmp_path: Path):
    tmp_path.chmod(0o700)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = runtime_file.write(f"ws://127.0.0.1:{silent.getsockname()[1]}", TOKEN, folder=tmp_path)
        host = real_host()
        link = LinkClient(host, ParentRoute(path), writer_id="w")
        link.attach()
        host.submit(started())
        assert not link.flush(0.2)
        link.close(0.5)
        assert eventually(lambda: not any(each.name == "otelprogress-link" for each in threading.enumerate()))


def test_what_is_flushed_survives_a_kill_of_the_child(parent: Parent):
    script = REPORTING_CHILD.replace("assert link.flush(10, acknowledged=True)", "").replace(
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
    with reporting(parent) as (host, link):
        host.submit(started())
        assert link.flush(10, acknowledged=True)

        def stay() -> bool:
            link.abandon()
            host.reset_after_fork()
            link.close()
            signal.pause()
            return True

        pid = forked(stay)
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
        link = LinkClient(host, ParentRoute(path), writer_id="w")
        link.attach()
        host.submit(started())
        assert not link.flush(0.1)
        began_s = time.monotonic()
        for n in range(2, 50):
            host.submit(noted(n))
            assert not link.flush(60)
        assert time.monotonic() - began_s < 30
        link.close(0.5)


def test_a_link_that_got_no_thread_begins_with_the_next_event(parent: Parent, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with reporting(parent) as (host, link):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            host.submit(started())
            assert host.stats.wake_failures == 1
            assert not link.flush(10)
        host.submit(ended(2))
        assert eventually(lambda: parent.state() is State.SUCCEEDED)
