"""The sender with its spool on disk: what waits while the receiver is away outlives the process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from otelprogress.feed.process_identity import is_gone, process_identity
from otelprogress.model import semconv
from otelprogress.otel.disk_spool import DiskSpool
from otelprogress.otel.sender import Sender
from otelprogress.otel.spool_folder import SpoolFolder, SpoolOwner
from otelprogress.otel.spool_segment import SUFFIX
from otelprogress.otel.target import otlp_target
from tests.forking import exit_code, forked
from tests.otel.events import ended, started, step_started, ticked
from tests.otel.otlp_server import HttpReceiver, Reply
from tests.waiting import eventually


@pytest.fixture
def receiver():
    with HttpReceiver() as one:
        yield one


def spooling(url: str, root: Path, *, resource=None, **options) -> Sender:
    def open_spool(endpoint, encode, limit) -> DiskSpool:
        owner = SpoolOwner("etl", process_identity, is_gone)
        return DiskSpool(SpoolFolder(root, owner, endpoint.url), encode, limit=limit, **options)

    target = otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": url})
    return Sender(target, resource=resource or {"host.name": "first"}, version="1", open_spool=open_spool)


def names(receiver: HttpReceiver) -> list[str]:
    return [record.event_name for record in receiver.log_records(distinct=True)]


def indexes(receiver: HttpReceiver) -> list[int]:
    return [
        each.value.int_value
        for record in receiver.log_records(distinct=True)
        for each in record.attributes
        if each.key == semconv.STEP_INDEX
    ]


def files(root: Path) -> list[Path]:
    return sorted(root.rglob(f"*{SUFFIX}"))


def test_what_a_killed_application_could_not_deliver_its_next_start_delivers_in_order(receiver, tmp_path):
    receiver.default = Reply(503)

    def work() -> bool:
        sender = spooling(receiver.url, tmp_path)
        sender.submit(started())
        for index in range(300):
            sender.submit(step_started(index))
        eventually(lambda: files(tmp_path) and len(sender._lanes["logs"].spool._queue) == 0)
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    assert exit_code(forked(work)) == -signal.SIGKILL
    receiver.received.clear()
    receiver.default = Reply()
    sender = spooling(receiver.url, tmp_path, resource={"host.name": "second"})
    sender.deliver_leftovers()
    sender.submit(ended())
    assert sender.flush(20)
    assert names(receiver) == [
        semconv.OPERATION_STARTED,
        *[semconv.STEP_STARTED] * 300,
        semconv.OPERATION_ENDED,
    ]
    assert indexes(receiver) == list(range(300))
    assert sender.stats()["logs"].delivered == 302
    assert sender.shutdown(10)
    assert list(tmp_path.iterdir()) == []


def test_what_is_delivered_for_another_process_keeps_that_processs_resource(receiver, tmp_path):
    receiver.default = Reply(503)
    first = spooling(receiver.url, tmp_path)
    first.submit(started())
    assert not first.shutdown(1)
    receiver.received.clear()
    receiver.default = Reply()
    second = spooling(receiver.url, tmp_path, resource={"host.name": "second"})
    second.deliver_leftovers()
    eventually(lambda: receiver.received)
    assert b"first" in receiver.received[0].body
    assert b"second" not in receiver.received[0].body
    assert second.shutdown(10)


def test_an_exit_that_delivers_nothing_says_that_it_is_kept_and_where(receiver, tmp_path, caplog):
    receiver.default = Reply(503, headers=(("retry-after", "60"),))
    sender = spooling(receiver.url, tmp_path)
    sender.submit(started())
    sender.submit(ended())
    assert not sender.shutdown(1)
    [line] = caplog.messages
    assert (
        f"2 of logs to 127.0.0.1:{receiver.url.rpartition(':')[2]} (HTTP 503), kept for the next start in {tmp_path}"
        in line
    )
    assert sender.stats()["logs"].dropped == 0


def test_order_is_kept_through_an_outage(receiver, tmp_path):
    sender = spooling(receiver.url, tmp_path)
    for index in range(40):
        if index == 10:
            receiver.default = Reply(503)
        if index == 30:
            receiver.default = Reply()
        sender.submit(step_started(index))
        sender._lanes["logs"].spool.tend(float(index) + 1e9)
    assert sender.flush(20)
    assert indexes(receiver) == list(range(40))
    assert sender.shutdown(10)


def test_while_the_receiver_hangs_what_is_said_reaches_the_disk_all_the_same(receiver, tmp_path):
    receiver.default = Reply(hang=True)
    sender = spooling(receiver.url, tmp_path)
    sender.submit(started())
    eventually(lambda: receiver.received)
    for index in range(20):
        sender.submit(step_started(index))
    spool = sender._lanes["logs"].spool
    eventually(lambda: len(spool._queue) == 0)
    assert len(spool) == 21
    assert not sender.shutdown(0.3)


def test_ticks_are_never_spooled(receiver, tmp_path):
    sender = spooling(receiver.url, tmp_path)
    sender.submit(started())
    assert sender.flush(20)
    before = sum(path.stat().st_size for path in files(tmp_path))
    sender.submit(ticked(1.0))
    eventually(lambda: semconv.OPERATION_PROGRESSED in names(receiver))
    assert sum(path.stat().st_size for path in files(tmp_path)) == before
    assert sender.shutdown(10)


def test_what_a_receiver_takes_nothing_of_is_kept_for_a_start_that_is_set_up_better(receiver, tmp_path):
    receiver.default = Reply(404)
    sender = spooling(receiver.url, tmp_path)
    sender.submit(started())
    assert sender.flush(20)
    assert not sender.sends("logs")
    assert sender.stats()["logs"].dropped == 0
    assert "in " + str(tmp_path) in "; ".join(sender.report())
    sender.shutdown(1)
    receiver.received.clear()
    receiver.default = Reply()
    again = spooling(receiver.url, tmp_path)
    again.deliver_leftovers()
    eventually(lambda: names(receiver) == [semconv.OPERATION_STARTED])
    assert again.shutdown(10)


def test_a_forked_childs_spool_is_its_own(receiver, tmp_path):
    receiver.default = Reply(503)
    sender = spooling(receiver.url, tmp_path)
    sender.submit(started())
    eventually(lambda: len(files(tmp_path)) == 1)

    def speak() -> bool:
        sender.reset_after_fork()
        sender.submit(ended())
        return eventually(lambda: len(files(tmp_path)) == 2)

    assert exit_code(forked(speak)) == 0
    assert len(sender._lanes["logs"].spool) == 1
    receiver.default = Reply()
    assert sender.flush(20)
    assert sender.shutdown(10)


def test_what_the_bound_costs_is_said_in_the_log(receiver, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("otelprogress.otel.sender._PATIENCE_S", 0.0)
    receiver.default = Reply(503)
    sender = spooling(receiver.url, tmp_path, max_bytes=32 * 1024)
    for index in range(200):
        sender.submit(step_started(index, message="x" * 800))
        sender._lanes["logs"].spool.tend(1e9 + index)
    lane = sender._lanes["logs"]
    assert lane.lost() > 50
    eventually(lambda: any("not getting through" in line and " lost" in line for line in caplog.messages))
    assert f"{lane.lost()} lost" in "; ".join(sender.report())
    receiver.default = Reply()
    assert sender.flush(20)
    assert indexes(receiver)[-1] == 199
    sender.shutdown(10)
