"""A parent with a real feed, and children that report to it: what the tests of the worker link share."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from otelprogress.feed import runtime_file
from otelprogress.feed.host import Host
from otelprogress.feed.link import LinkClient
from otelprogress.feed.link_route import ParentRoute
from otelprogress.feed.server import WebSocketServer
from otelprogress.feed.worker_handler import WorkerLinks
from otelprogress.model.events import FeedEvent, OperationView, State
from tests.feed.fakes import run_id
from tests.feed.serving import TOKEN, real_host
from tests.waiting import eventually

T = TypeVar("T")

REPORTING_CHILD = """
import sys, time
from tests.feed.fakes import started
from tests.feed.serving import real_host
from otelprogress.feed.link import LinkClient
from otelprogress.feed.link_route import ParentRoute
host = real_host()
link = LinkClient(host, ParentRoute(sys.argv[1]), writer_id="child")
link.attach()
host.submit(started(writer_id="child"))
assert link.flush(10, acknowledged=True)
print("ready", flush=True)
time.sleep(600)
"""


class Parent:
    """A process with a feed, as its children see it."""

    def __init__(self, folder: Path, *, grace_s: float = 1.0, host: Host | None = None) -> None:
        self.host = host or real_host()
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


@contextlib.contextmanager
def serving_parent(folder: Path) -> Iterator[Parent]:
    folder.chmod(0o700)
    parent = Parent(folder)
    try:
        yield parent
    finally:
        parent.server.close(2.0)


@contextlib.contextmanager
def reporting(parent: Parent, **options: Any) -> Iterator[tuple[Host, LinkClient]]:
    host = real_host()
    link = LinkClient(host, ParentRoute(parent.path), writer_id="writer-1", **options)
    link.attach()
    try:
        yield host, link
    finally:
        link.close(2.0)


@contextlib.contextmanager
def reporting_process(parent: Parent) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", REPORTING_CHILD, str(parent.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert eventually(lambda: parent.state() is State.RUNNING)
            yield process
        finally:
            process.kill()
