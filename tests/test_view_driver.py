from __future__ import annotations

import threading

from otelprogress.feed.host import Host
from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from otelprogress.view_driver import ViewDriver
from tests.waiting import eventually

RUN = "a" * 32 + "-" + "b" * 16


def event(kind: str, sequence: int, **said) -> Event:
    return Event(kind=kind, run_id=RUN, time_unix_ns=sequence, writer_id="w", sequence=sequence, **said)


class Screen:
    def __init__(self) -> None:
        self.drawn: list[list[str]] = []
        self.published: list[str] = []
        self.stopped = 0
        self.stuck = threading.Event()
        self.stuck.set()
        self.broken = False

    def start(self) -> None: ...

    def update(self, views, now_unix_ns) -> None:
        self.stuck.wait(30)
        if self.broken:
            raise OSError
        self.drawn.append([str(view.state) for view in views])

    def publish(self, events) -> None:
        self.published += [event.kind for event in events]

    def stop(self) -> None:
        self.stopped += 1


def made() -> tuple[Screen, Host, ViewDriver]:
    host = Host(Hub(OperationTree(), epoch="e", cursor_key=CursorKey(bytes(32))), inline=True)
    screen = Screen()
    driver = ViewDriver(screen, host)
    driver.start()
    return screen, host, driver


def test_what_happens_is_drawn_and_the_end_stays():
    screen, host, driver = made()
    host.submit(event(semconv.OPERATION_STARTED, 1, name="load"))
    eventually(lambda: screen.drawn and screen.drawn[-1] == ["running"])
    host.submit(event(semconv.OPERATION_ENDED, 2, state=State.SUCCEEDED))
    driver.close()
    driver.close()
    assert screen.drawn[-1] == ["succeeded"]
    assert screen.published == ["operation.started", "operation.ended"]
    assert screen.stopped == 1


def test_nothing_that_happens_needs_no_thread():
    screen, _, driver = made()
    assert driver._thread is None
    driver.close()
    assert screen.stopped == 1


def test_a_terminal_that_stands_still_holds_nobody_up():
    screen, host, driver = made()
    screen.stuck.clear()
    host.submit(event(semconv.OPERATION_STARTED, 1, name="load"))
    driver.close(timeout_s=0.05)
    screen.stuck.set()
    assert screen.stopped == 0, "it is left as it is"


def test_a_view_that_fails_is_counted_and_drawn_again():
    screen, host, driver = made()
    screen.broken = True
    host.submit(event(semconv.OPERATION_STARTED, 1, name="load"))
    eventually(lambda: driver.errors)
    screen.broken = False
    host.submit(event(semconv.OPERATION_NOTED, 2, message="x"))
    eventually(lambda: screen.drawn)
    driver.close()


def test_without_a_thread_left_the_end_is_drawn_when_it_closes(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    screen, host, driver = made()
    host.submit(event(semconv.OPERATION_STARTED, 1, name="load"))
    host.submit(event(semconv.OPERATION_ENDED, 2, state=State.SUCCEEDED))
    assert host.stats.listener_failures == 0
    driver.close()
    assert screen.drawn == [["succeeded"]]
    assert screen.stopped == 1
