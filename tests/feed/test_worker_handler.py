from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from otelprogress.feed import worker_handler
from otelprogress.feed.cause_of_death import ChildRecord
from otelprogress.model.events import Event, State
from tests.feed import fakes
from tests.feed.fakes import ended, noted, run_id, started
from tests.feed.family import Parent, reporting, reporting_process, serving_parent
from tests.feed.serving import TOKEN, dial, hear, real_host, say
from tests.waiting import eventually


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    with serving_parent(tmp_path) as parent:
        yield parent


def test_a_killed_child_is_lost_with_its_signal_and_without_waiting_for_the_grace(parent: Parent):
    parent.links._grace_s = 600
    with reporting_process(parent) as process:
        process.send_signal(signal.SIGKILL)
        assert eventually(lambda: parent.state() is State.LOST)
    view = parent.view()
    assert view is not None
    assert view.lost_detector == "link"
    assert view.lost_cause == "killed by SIGKILL"
    assert view.lost_evidence_unix_ns is not None
    assert view.lost_evidence_unix_ns >= view.started_at_unix_ns


def test_a_parent_that_leaves_calls_a_dead_grandchild_lost_at_once(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
):
    parent.links._grace_s = 600
    # The kernel tells an exit status to the parent alone.
    monkeypatch.setattr(ChildRecord, "cause", lambda _: None)
    with reporting_process(parent) as process:
        process.kill()
        process.wait()
        # Its last words and the end of its connection may not even have been read.
        parent.links.conclude(5.0)
        assert parent.state() is State.LOST
    view = parent.view()
    assert view is not None
    assert view.lost_detector == "link"
    assert view.lost_cause == "the connection was closed without a farewell; the process is gone"


def test_a_parent_that_leaves_calls_no_child_lost_that_lives_on(parent: Parent):
    parent.links._grace_s = 600
    with reporting_process(parent) as process:
        parent.links.conclude(5.0)
        parent.cut()
        eventually(lambda: not parent.links.connected_writers)
        parent.links.conclude(5.0)
        assert process.poll() is None
        assert parent.state() is State.RUNNING


def test_a_parent_whose_children_said_farewell_has_nothing_to_conclude(parent: Parent):
    parent.links.conclude(5.0)  # nobody ever came
    with reporting(parent) as (host, _):
        host.submit(started())
        host.submit(ended(2))
    parent.links.conclude(5.0)
    parent.server.close()
    parent.links.conclude(5.0)
    assert parent.state() is State.SUCCEEDED


def test_a_verdict_says_whose_run_it_is_for_those_who_never_heard_the_run_itself(parent: Parent):
    verdicts: list[Event] = []
    parent.host.add_listener(
        lambda applied: verdicts.extend(each.source for each in applied if each.source.state is State.LOST)
    )
    with reporting(parent) as (host, _):
        host.submit(started(run=1, process_id=4711, service="etl", label="tuesday"))
        host.submit(started(run=2, name="child", parent_span_id=run_id(1)[33:]))
    (of_parent, of_child) = eventually(lambda: len(verdicts) == 2 and verdicts)
    said = (
        of_parent.name,
        of_parent.service,
        of_parent.process_id,
        of_parent.label,
        of_parent.parent_span_id,
    )
    assert said == ("nightly load", "etl", 4711, "tuesday", None)
    assert (of_child.name, of_child.parent_span_id) == ("child", run_id(1)[33:])
    assert of_child.start_unix_ns == fakes.START_UNIX_NS


def test_a_stopped_child_is_not_lost(parent: Parent):
    with reporting_process(parent) as process:
        process.send_signal(signal.SIGSTOP)
        # Longer than the grace: had anything been concluded from silence, it would have been said by now.
        with pytest.raises(AssertionError):
            eventually(lambda: parent.state() is not State.RUNNING, timeout_s=1.5)
        process.send_signal(signal.SIGCONT)
        process.kill()
        assert eventually(lambda: parent.state() is State.LOST)


def test_a_run_that_a_leaving_child_left_open_is_lost(parent: Parent):
    with reporting(parent) as (host, _):
        host.submit(started())
    assert eventually(lambda: parent.state() is State.LOST)
    view = parent.view()
    assert view is not None
    assert view.lost_detector == "atexit"


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


def test_a_worker_that_does_not_register_in_time_is_closed_4408(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
):
    assert worker_handler._REGISTER_TIMEOUT_S == 5.0
    monkeypatch.setattr(worker_handler, "_REGISTER_TIMEOUT_S", 0.1)
    with dial(parent.server, "/v1/worker") as connection:
        with pytest.raises(Exception, match="4408"):
            connection.recv(timeout=10)


def test_hostile_and_secret_text_of_a_worker_is_cleaned_before_it_is_kept(parent: Parent):
    with reporting(parent) as (host, link):
        host.submit(started(name="load \x1b]52;c;aGk=\x07" + "a" * 100_000))
        host.submit(noted(2, message="connect with password=hunter2hunter2"))
        assert link.flush(30, acknowledged=True)
        view = eventually(lambda: (found := parent.view()) and found.message and found)
    assert "\x1b" not in view.title
    assert len(view.name) <= 256
    assert "hunter2" not in view.message


def test_a_flood_of_a_worker_finds_room_in_the_host(tmp_path: Path):
    tmp_path.chmod(0o700)
    parent = Parent(tmp_path, host=real_host(max_pending=2000))
    try:
        with reporting(parent) as (host, link):
            host.submit(started())
            for n in range(2, 8000):
                host.submit(noted(n))
            host.submit(ended(8000))
            assert link.flush(30, acknowledged=True)
        assert eventually(lambda: parent.state() is State.SUCCEEDED)
        assert parent.host.stats.dropped_durable == 0
        assert sum(event.kind == "operation.noted" for event in parent.told) == 7998
    finally:
        parent.server.close(2.0)
