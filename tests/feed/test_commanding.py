from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from otelprogress.feed.commanding import Commanding
from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.protocol.command_judging import SCOPE_CONTROL, Asker
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import Command, CommandStatus, Filter, LinkCommand
from tests.feed.fakes import ended, event, run_id, started
from tests.feed.serving import real_host

ADA = Asker(actor="ada", scopes=frozenset({SCOPE_CONTROL}))
EVERYTHING = Matcher(Filter(roots=False))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_100.0

    def time_unix_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s


class Links:
    """The links to children, as far as commands go by them."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.sent: list[tuple[str, LinkCommand]] = []
        self.on_connected: Callable[[str], object] | None = None
        self.on_status: Callable[[str, CommandStatus], object] | None = None

    def connected(self, writer_id: str) -> bool:
        return writer_id in self.there

    def command(self, writer_id: str, command: LinkCommand) -> None:
        self.sent.append((writer_id, command))


class Desk:
    """A host, what it commands, and who obeys here."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.host = real_host(clock=self.clock)
        self.links = Links()
        self.obeyed: list[LinkCommand] = []
        self.answer = "accepted"
        self.commanding = Commanding(self.host, writer_id="writer-1", obey=self.obey, links=self.links)  # type: ignore[arg-type]

    def obey(self, command: LinkCommand) -> CommandStatus:
        self.obeyed.append(command)
        return CommandStatus(command_id=command.command_id, status=self.answer)  # type: ignore[arg-type]

    def tell(self, *events: Any) -> None:
        for each in events:
            self.host.submit(each)
        self.host.drain()

    def submit(self, command_id: str = "c1", operation: str = "nightly_load-1") -> str:
        command = Command(command_id=command_id, operation=operation, action="cancel", deadline_s=10.0)
        with self.host.lock:
            status = self.commanding.submit(command, ADA, EVERYTHING, self.clock.time_unix_ns())
        return status.status

    def words(self) -> list[tuple[str | None, str | None]]:
        """Of the log: command and refusal."""
        self.host.drain()
        return self.said

    said: list[tuple[str | None, str | None]]


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.said = []
    made.host.add_listener(
        lambda applied: made.said.extend(
            (each.source.control_id, each.source.control_refusal)
            for each in applied
            if each.source.kind in (semconv.CONTROL_APPLIED, semconv.CONTROL_REFUSED)
        )
    )
    made.tell(started(controls=("cancel",)))
    return made


def test_a_command_to_this_process_is_obeyed_after_its_turn_and_once(desk: Desk):
    assert desk.submit() == "accepted"
    assert desk.obeyed == []
    desk.commanding.tend()
    desk.commanding.tend()
    assert [(each.command_id, each.run) for each in desk.obeyed] == [("c1", run_id())]


def test_whoever_obeys_may_wait_for_threads_that_wait_for_the_host(desk: Desk):
    """An operation takes its own lock and then the host's; obeying with the host's held would be the other way round."""
    reached: list[bool] = []

    def obey(command: LinkCommand) -> CommandStatus:
        def needs_the_host() -> None:
            with desk.host.lock:
                reached.append(True)

        thread = threading.Thread(target=needs_the_host)
        thread.start()
        thread.join(10)
        return CommandStatus(command_id=command.command_id, status="accepted")

    desk.commanding._obey = obey
    desk.submit()
    desk.commanding.tend()
    assert reached == [True]


def test_what_obeying_says_at_once_is_taken_in_order(desk: Desk):
    def obey(command: LinkCommand) -> CommandStatus:
        desk.tell(event(semconv.CONTROL_APPLIED, sequence=2, control_id=command.command_id))
        return CommandStatus(command_id=command.command_id, status="accepted")

    desk.commanding._obey = obey
    desk.submit()
    desk.commanding.tend()
    assert desk.words() == [("c1", None)]
    assert desk.commanding.next_deadline_unix_ns() is None
    assert desk.submit() == "duplicate"


def test_a_refusal_of_this_process_is_published(desk: Desk):
    desk.answer = "unsupported"
    desk.submit()
    desk.commanding.tend()
    assert desk.words() == [("c1", "unsupported")]


def test_what_never_comes_by_expires(desk: Desk):
    desk.submit()
    desk.commanding.tend()
    due_unix_ns = desk.commanding.next_deadline_unix_ns()
    assert due_unix_ns == desk.clock.time_unix_ns() + 12_000_000_000
    desk.clock.now_s += 12.1
    desk.commanding.tend()
    assert desk.words() == [("c1", "expired")]


def test_a_child_is_told_over_its_link_and_again_when_it_comes_back(desk: Desk):
    desk.tell(started(run=2, name="resize", writer_id="child", controls=("cancel",)))
    assert desk.submit(operation="resize-1") == "no_worker"
    desk.links.there.add("child")
    assert desk.submit(operation="resize-1") == "accepted"
    desk.commanding.tend()
    assert [(writer_id, each.command_id) for writer_id, each in desk.links.sent] == [("child", "c1")]
    assert desk.links.on_connected is not None
    desk.links.on_connected("child")
    assert len(desk.links.sent) == 2
    assert desk.links.on_status is not None
    desk.links.on_status("child", CommandStatus(command_id="c1", status="accepted"))
    desk.links.on_connected("child")
    assert len(desk.links.sent) == 2
    assert desk.obeyed == []


def test_a_child_that_dies_between_accept_and_apply_is_told_as_lost(desk: Desk):
    desk.links.there.add("child")
    desk.tell(started(run=2, name="resize", writer_id="child", controls=("cancel",)))
    desk.submit(operation="resize-1")
    desk.commanding.tend()
    desk.tell(ended(2, run=2, state=State.LOST, writer_id="child"))
    desk.commanding.tend()
    assert desk.words() == [("c1", "worker_lost")]


def test_what_is_drained_by_other_threads_is_seen_too(desk: Desk):
    desk.submit()
    desk.commanding.tend()
    thread = threading.Thread(
        target=desk.tell, args=(event(semconv.CONTROL_APPLIED, sequence=2, control_id="c1"),)
    )
    thread.start()
    thread.join(10)
    assert desk.commanding.next_deadline_unix_ns() is None
