"""Several processes, one tree: pools of every kind, programs, forks, and the deaths of each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from otelprogress.feed import runtime_file
from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.protocol.messages import SUBPROTOCOL
from tests.feed.family import Parent
from tests.otel.otlp_server import HttpReceiver
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


class Program:
    """One run of a program of `process_programs`, seen from outside."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, f"it ended with {self.process.wait(30)}"
        return line

    def until_ready(self) -> None:
        assert self.read() == "ready"

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def feeds(self) -> list[runtime_file.Found]:
        return runtime_file.scan(self.folder)

    def listening(self) -> list[tuple[int, int]]:
        """Process and port of every TCP listener in the tree of processes."""
        parent = psutil.Process(self.process.pid)
        found = []
        for each in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found += [
                    (each.pid, connection.laddr.port)
                    for connection in each.net_connections("tcp")
                    if connection.status == psutil.CONN_LISTEN
                ]
        return found

    def dial(self) -> ClientConnection:
        feed = self.feeds()[0].content
        return connect(
            feed.url.removesuffix("/") + "/v1/feed",
            additional_headers={"Authorization": f"Bearer {feed.token}"},
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
            proxy=None,
        )

    def operations(self) -> list[dict[str, Any]]:
        """Everything its feed knows now."""
        with self.dial() as connection:
            connection.send(json.dumps({"type": "hello", "version": 1}))
            connection.send(json.dumps({"type": "subscribe", "id": "s", "filter": {"roots": False}}))
            found: list[dict[str, Any]] = []
            while (message := json.loads(connection.recv(timeout=30)))["type"] != "snapshot_end":
                found += message.get("operations", ())
            return found

    def named(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.operations() if each["name"] == name]

    def ended(self, name: str, count: int) -> list[dict[str, Any]]:
        """Those of that name, once so many have ended.

        A child has said its last word when the kernel has it; the parent's feed reads it when it comes to it.
        """

        def all_ended() -> list[dict[str, Any]] | None:
            found = self.named(name)
            return (
                found if len(found) == count and all(each["state"] != "running" for each in found) else None
            )

        return eventually(all_ended) or []


@contextlib.contextmanager
def running(name: str, *args: str, folder: Path, **variables: str) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.process_programs", name, *args],
        cwd=ROOT,
        env=os.environ | {"OTELPROGRESS_RUNTIME_DIR": str(folder)} | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process, folder)
        finally:
            for each in (
                psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ()
            ):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_pool_of_four_is_one_tree_with_one_lost_child_and_no_second_port(
    method: str, private_runtime_folder: Path
):
    with running("pool", method, folder=private_runtime_folder) as program:
        program.until_ready()
        (album,) = program.named("album")
        children = program.ended("resize", 8)
        assert {each["parent_id"] for each in children} == {album["id"]}
        assert album["process_id"] == program.process.pid
        assert program.process.pid not in {each["process_id"] for each in children}
        lost = [each for each in children if each["state"] != "succeeded"]
        assert [(each["state"], each["title"]) for each in lost] == [("lost", "resize 3")]
        assert lost[0]["lost_detector"] == "link"
        assert lost[0]["lost_cause"] == "killed by SIGKILL"
        assert [pid for pid, _ in program.listening()] == [program.process.pid]
        assert len(program.feeds()) == 1
        program.go_on()
        assert program.process.wait(30) == 0


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_pool_executor_reports_to_its_parent(method: str, private_runtime_folder: Path):
    with running("executor", method, folder=private_runtime_folder) as program:
        program.until_ready()
        (album,) = program.named("album")
        children = program.ended("resize", 8)
        assert [(each["state"], each["parent_id"]) for each in children] == [("succeeded", album["id"])] * 8
        program.go_on()
        assert program.process.wait(30) == 0


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_that_leave_by_os_exit_have_said_everything(method: str, private_runtime_folder: Path):
    with running("process", method, folder=private_runtime_folder) as program:
        program.until_ready()
        (album,) = program.named("album")
        assert [(each["state"], each["parent_id"]) for each in program.named("resize")] == [
            ("succeeded", album["id"])
        ] * 2
        program.go_on()
        assert program.process.wait(30) == 0


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_each_process_exports_what_is_its_own_and_nobody_exports_it_twice(
    method: str, private_runtime_folder: Path
):
    with HttpReceiver() as backend:
        with running(
            "executor", method, folder=private_runtime_folder, OTEL_EXPORTER_OTLP_ENDPOINT=backend.url
        ) as program:
            program.until_ready()
            program.go_on()
            assert program.process.wait(60) == 0
        starts = [
            (record.trace_id, record.span_id)
            for record in backend.log_records(distinct=True)
            if record.event_name == semconv.OPERATION_STARTED
        ]
        assert len(starts) == len(set(starts)) == 9
        spans = backend.spans()
        assert sorted(span.name for span in spans) == ["album"] + ["resize"] * 8
        assert len({span.trace_id for span in spans}) == 1


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_child_of_a_child_reports_to_the_same_feed(method: str, private_runtime_folder: Path):
    with running("nested", method, folder=private_runtime_folder) as program:
        program.until_ready()
        (album,) = program.named("album")
        (middle,), (resize,) = program.ended("middle", 1), program.ended("resize", 1)
        assert [each["state"] for each in (album, middle, resize)] == ["running", "succeeded", "succeeded"]
        assert (resize["parent_id"], middle["parent_id"]) == (middle["id"], album["id"])
        assert len({each["process_id"] for each in (album, middle, resize)}) == 3
        assert len(program.feeds()) == 1
        program.go_on()
        assert program.process.wait(30) == 0


def test_a_started_program_reports_to_its_parent_and_opens_no_port(private_runtime_folder: Path):
    with running("program", folder=private_runtime_folder) as program:
        program.until_ready()
        (album,) = program.named("album")
        (child,) = program.ended("resize", 1)
        assert (child["state"], child["parent_id"]) == ("succeeded", album["id"])
        assert len(program.feeds()) == 1
        program.go_on()
        assert program.process.wait(30) == 0


def test_a_bare_fork_goes_on_in_the_same_tree_and_leaves_its_parents_operations_alone(
    private_runtime_folder: Path,
):
    with running("forked_reporter", folder=private_runtime_folder) as program:
        program.until_ready()
        (album,) = program.named("album")
        (child,) = program.ended("resize", 1)
        assert album["state"] == "running"
        assert (child["state"], child["parent_id"]) == ("succeeded", album["id"])
        assert child["writer_id"] != album["writer_id"]
        program.go_on()
        assert program.process.wait(30) == 0


def test_every_thread_of_a_forked_child_reports_from_its_first_operation_on(private_runtime_folder: Path):
    with running("forked_threads", folder=private_runtime_folder) as program:
        program.until_ready()
        children = program.named("resize")
        assert sorted(each["title"] for each in children) == [f"resize {n}" for n in range(8)]
        assert {each["state"] for each in children} == {"succeeded"}
        program.go_on()
        assert program.process.wait(30) == 0


def test_a_killed_feed_is_seen_to_end_while_a_forked_child_lives(private_runtime_folder: Path):
    with running("forking", folder=private_runtime_folder) as program:
        forked = psutil.Process(int(program.read()))
        with program.dial() as connection:
            connection.send(json.dumps({"type": "hello", "version": 1}))
            connection.recv(timeout=30)
            program.process.kill()
            with pytest.raises(ConnectionClosed):
                connection.recv(timeout=30)
            assert forked.is_running()
            forked.kill()


def test_a_killed_worker_is_lost_while_a_forked_grandchild_lives(private_runtime_folder: Path):
    parent = Parent(private_runtime_folder)
    try:
        with running("forking", folder=private_runtime_folder, OTELPROGRESS_LINK=str(parent.path)) as program:
            grandchild = psutil.Process(int(program.read()))
            program.process.send_signal(signal.SIGKILL)
            (view,) = eventually(lambda: [each for each in parent.host.views() if each.state is State.LOST])
            assert view.lost_detector == "link"
            assert view.lost_cause == "killed by SIGKILL"
            assert grandchild.is_running()
            grandchild.kill()
    finally:
        parent.server.close(2.0)


def test_a_child_whose_parent_is_gone_goes_on_unharmed_and_leaves_in_time(private_runtime_folder: Path):
    parent = Parent(private_runtime_folder)
    with running("orphan", folder=private_runtime_folder, OTELPROGRESS_LINK=str(parent.path)) as program:
        program.until_ready()
        parent.server.close(2.0)
        program.go_on()
        done, at_s = program.read().split()
        assert done == "done"
        assert program.process.wait(30) == 0
        # Two seconds are promised; a busy machine may need a few to take a process down.
        assert time.monotonic() - float(at_s) < 6
