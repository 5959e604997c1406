"""The sender against real receivers: what arrives, in which order, how often, and how long it may take to leave."""

from __future__ import annotations

import logging
import time

import grpc
import pytest

from otelprogress.model import semconv
from otelprogress.model.tree import OperationTree
from otelprogress.otel.sender import Sender
from otelprogress.otel.target import otlp_target
from tests.otel.events import ended, started, step_ended, step_started, ticked
from tests.otel.otlp_server import GrpcReceiver, HttpReceiver, Reply, dead_url
from tests.waiting import eventually


@pytest.fixture(params=["http", "grpc"])
def receiver(request):
    with (HttpReceiver if request.param == "http" else GrpcReceiver)() as one:
        yield one


@pytest.fixture
def senders():
    made = []

    def make(url: str, environ=(), **settings) -> Sender:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **dict(environ)}
        settings.setdefault("resource", {"service.name": "etl"})
        sender = Sender(otlp_target(environ), version="1", **settings)
        made.append(sender)
        return sender

    yield make
    for sender in made:
        sender.shutdown(0.5)


def for_receiver(receiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"}


def names(receiver, **how) -> list[str]:
    return [record.event_name for record in receiver.log_records(**how)]


def busy(receiver) -> Reply:
    return Reply(grpc.StatusCode.UNAVAILABLE if isinstance(receiver, GrpcReceiver) else 503)


def unsupported(receiver, status: int = 404) -> Reply:
    return Reply(grpc.StatusCode.UNIMPLEMENTED if isinstance(receiver, GrpcReceiver) else status)


def test_durable_events_arrive_in_order_with_their_span_and_resource(receiver, senders):
    sender = senders(receiver.url, for_receiver(receiver))
    tree = OperationTree()
    for one in (started(), step_started(0), step_ended(0), ended()):
        sender(tree.apply(one, one.time_unix_ns))
    assert sender.flush(15)
    assert names(receiver) == [
        semconv.OPERATION_STARTED,
        semconv.STEP_STARTED,
        semconv.STEP_ENDED,
        semconv.OPERATION_ENDED,
    ]
    first = receiver.log_records()[0]
    assert first.trace_id.hex() + "-" + first.span_id.hex() == started().run_id
    assert first.flags == 1
    assert {one.key for one in first.attributes} >= {semconv.OPERATION_NAME, semconv.WRITER_ID}
    assert sender.stats()["logs"].delivered == 4


def test_the_hosts_ratio_is_sent_with_what_the_writer_said(receiver, senders):
    sender = senders(receiver.url, for_receiver(receiver))
    tree = OperationTree()
    for one in (started(steps=("step 0", "step 1")), step_started(0), step_ended(0)):
        sender(tree.apply(one, one.time_unix_ns))
    assert sender.flush(15)
    said = {one.key: one.value for one in receiver.log_records()[-1].attributes}
    assert said[semconv.OPERATION_RATIO].double_value == 0.5
    assert said[semconv.OPERATION_RATIO_SOURCE].string_value == "measured"


def test_a_busy_receiver_gets_the_same_bytes_again(receiver, senders):
    receiver.script = [busy(receiver), busy(receiver)]
    sender = senders(receiver.url, for_receiver(receiver))
    sender.submit(started())
    assert sender.flush(15)
    bodies = [one.body for one in receiver.received]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert sender.stats()["logs"].delivered == 1


def test_events_wait_in_order_while_the_receiver_is_busy(receiver, senders):
    receiver.default = busy(receiver)
    sender = senders(receiver.url, for_receiver(receiver))
    sender.submit(started())
    eventually(lambda: receiver.received)
    for index in range(5):
        sender.submit(step_started(index))
    receiver.default = Reply()
    assert sender.flush(15)
    assert names(receiver, distinct=True) == [semconv.OPERATION_STARTED] + [semconv.STEP_STARTED] * 5


def test_a_receiver_that_does_not_take_logs_is_not_asked_again(receiver, senders, caplog):
    receiver.default = unsupported(receiver)
    sender = senders(receiver.url, for_receiver(receiver))
    sender.submit(started())
    assert sender.flush(15)
    sender.submit(ended())
    assert sender.flush(15)
    assert len(receiver.received) == 1
    assert not sender.sends("logs")
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
    assert "no more of them" in caplog.text


@pytest.mark.parametrize("lease_s", [None, 0.03])
def test_a_receiver_that_refuses_logs_when_ticks_or_signs_of_life_come_is_named_once(
    receiver, senders, caplog, lease_s
):
    receiver.script = [Reply()]
    receiver.default = unsupported(receiver)
    sender = senders(receiver.url, for_receiver(receiver), writer_id="writer", lease_s=lease_s)
    sender.submit(started())
    eventually(lambda: sender.stats()["logs"].delivered)
    if lease_s is None:
        sender.submit(ticked(1.0))
    eventually(lambda: not sender.sends("logs"))
    eventually(lambda: caplog.records)
    (said,) = caplog.messages
    assert "no more of them" in said


def test_a_live_run_and_its_ticks_wake_nobody_once_the_receiver_does_not_take_logs(receiver, senders):
    receiver.script = [unsupported(receiver)]
    sender = senders(receiver.url, for_receiver(receiver), writer_id="writer", lease_s=0.03)
    sender.submit(started())
    sender.submit(ticked(1.0))
    assert sender.flush(15)
    assert sender._board.live
    assert len(sender._board)
    assert sender._next_due_s(time.monotonic()) > time.monotonic() + 1000.0


def test_405_switches_a_signal_off_as_404_does(senders):
    with HttpReceiver() as receiver:
        receiver.default = Reply(405)
        sender = senders(receiver.url)
        sender.submit(started())
        assert sender.flush(15)
        assert not sender.sends("logs")
        assert sender.sends("traces")


def test_a_refused_request_is_counted_and_the_next_is_sent(senders):
    with HttpReceiver() as receiver:
        receiver.script = [Reply(400)]
        sender = senders(receiver.url)
        sender.submit(started())
        assert sender.flush(15)
        sender.submit(ended())
        assert sender.flush(15)
        stats = sender.stats()["logs"]
        assert (stats.refused, stats.delivered) == (1, 1)


def test_retry_after_is_waited_for(senders):
    with HttpReceiver() as receiver:
        receiver.script = [Reply(429, headers=(("retry-after", "1"),))]
        sender = senders(receiver.url)
        sent_at = time.monotonic()
        sender.submit(started())
        assert sender.flush(15)
        assert time.monotonic() - sent_at >= 1.0
        assert len(receiver.received) == 2


def test_an_endless_answer_does_not_hold_up_the_next_request(senders):
    with HttpReceiver() as receiver:
        receiver.script = [Reply(endless=True)]
        sender = senders(receiver.url)
        sender.submit(started())
        assert sender.flush(15)
        sender.submit(ended())
        assert sender.flush(15)
        assert len(names(receiver)) == 2


def test_ticks_go_in_requests_of_their_own_the_latest_of_each_run(receiver, senders):
    sender = senders(receiver.url, for_receiver(receiver))
    sender.submit(started())
    for completed in range(100):
        sender.submit(ticked(float(completed)))

    def latest() -> float | None:
        ticks = [one for one in receiver.log_records() if one.event_name == semconv.OPERATION_PROGRESSED]
        said = {one.key: one.value.double_value for one in ticks[-1].attributes} if ticks else {}
        return said.get(semconv.ITEMS_COMPLETED)

    eventually(lambda: latest() == 99.0)
    for one in receiver.received:
        alone = type(receiver)(received=[one])
        assert len(set(names(alone)) & {semconv.OPERATION_PROGRESSED, semconv.OPERATION_STARTED}) == 1
    assert names(receiver).count(semconv.OPERATION_PROGRESSED) < 10


def test_a_lost_tick_is_not_tried_again(senders):
    with HttpReceiver() as receiver:
        sender = senders(receiver.url)
        sender.submit(started())
        assert sender.flush(15)
        receiver.script = [Reply(503)]
        sender.submit(ticked(1.0))
        eventually(lambda: len(receiver.received) == 2)
        sender.submit(ended())
        assert sender.flush(15)
        assert len(receiver.received) == 3


def test_a_living_writer_says_so_each_third_of_its_lease(receiver, senders):
    sender = senders(receiver.url, for_receiver(receiver), writer_id="writer", lease_s=0.3)
    sender.submit(started())
    eventually(lambda: names(receiver).count(semconv.WRITER_ALIVE) >= 3)
    alive = next(one for one in receiver.log_records() if one.event_name == semconv.WRITER_ALIVE)
    said = {one.key: one.value for one in alive.attributes}
    assert said[semconv.WRITER_ID].string_value == "writer"
    assert said[semconv.WRITER_LEASE].double_value == pytest.approx(0.3)
    assert alive.trace_id == b""
    sender.submit(ended())
    assert sender.flush(15)


def test_a_writer_without_live_runs_is_silent(senders):
    with HttpReceiver() as receiver:
        sender = senders(receiver.url, writer_id="writer", lease_s=0.03)
        sender.submit(started())
        sender.submit(ended())
        assert sender.flush(15)
        quiet = len(receiver.received)
        assert not sender._board.live
        assert sender._next_due_s(1.0) > 1000.0
        assert len(receiver.received) == quiet


def test_events_of_others_are_theirs_to_send_when_asked_so(senders):
    with HttpReceiver() as receiver:
        sender = senders(receiver.url, writer_id="me", only_own=True)
        sender.submit(started())
        sender.submit(
            started(number=2, name="mine").__class__(**{**_said(started(number=2)), "writer_id": "me"})
        )
        assert sender.flush(15)
        assert [one.span_id.hex() for one in receiver.log_records()] == [f"{2:016x}"]


def test_somebody_who_watches_gets_a_runs_ticks_more_often_and_all_others_get_them_as_before(senders):
    with HttpReceiver() as receiver:
        sender = senders(receiver.url)
        sender.submit(started())
        sender.submit(started(number=2))
        sender.take_interest({started().run_id: 10.0})
        began_s = time.monotonic()
        for completed in range(10_000):
            for number in (1, 2):
                sender.submit(ticked(float(completed), number))
            sent = [one for one in receiver.log_records() if one.event_name == semconv.OPERATION_PROGRESSED]
            watched = sum(one.span_id.hex() == f"{1:016x}" for one in sent)
            if watched >= 8:
                break
            time.sleep(0.01)
        elapsed_s = time.monotonic() - began_s
        assert watched >= 8
        assert len(sent) - watched <= 2 + elapsed_s
        assert watched <= 2 + 10 * elapsed_s


def test_an_interest_wakes_a_sender_whose_ticks_wait_for_their_round(senders):
    with HttpReceiver() as receiver:
        sender = senders(receiver.url)
        sender.submit(started())
        sender.submit(ticked(1.0))
        eventually(lambda: semconv.OPERATION_PROGRESSED in names(receiver))
        sender._board._round_at_s = time.monotonic() + 3600.0
        sender.submit(ticked(2.0))
        sender.take_interest({"*": 5.0})
        eventually(lambda: names(receiver).count(semconv.OPERATION_PROGRESSED) == 2)


def _said(event) -> dict:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_a_full_spool_drops_the_oldest_and_counts_them(senders, monkeypatch):
    monkeypatch.setattr("otelprogress.otel.sender._MAX_DURABLE", 10)
    sender = senders(dead_url())
    for index in range(50):
        sender.submit(step_started(index))
    lane = sender._lanes["logs"]
    eventually(lambda: lane.lost() + lane.waiting == 50)
    assert lane.spool.dropped >= 30


def test_leaving_delivers_what_waits(receiver, senders):
    sender = senders(receiver.url, for_receiver(receiver))
    for index in range(2000):
        sender.submit(step_started(index))
    assert sender.shutdown(15)
    assert len(names(receiver)) == 2000


def test_leaving_asks_a_busy_receiver_again(senders):
    with HttpReceiver() as receiver:
        receiver.script = [Reply(503), Reply(503)]
        sender = senders(receiver.url)
        sender.submit(started())
        assert sender.shutdown(15)
        assert names(receiver, distinct=True) == [semconv.OPERATION_STARTED]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_leaving_with_nobody_there_is_quick_and_said_in_one_line(senders, caplog, protocol):
    sender = senders(dead_url(), {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    sender.submit(started())
    assert not sender.shutdown(2.0)
    [line] = [one.getMessage() for one in caplog.records if "before the exit" in one.getMessage()]
    assert "1 of logs" in line
    assert "\n" not in line
    assert all(one.exc_info is None for one in caplog.records)


def test_leaving_does_not_wait_for_a_hanging_receiver(receiver, senders, caplog):
    receiver.default = Reply(hang=True)
    sender = senders(receiver.url, for_receiver(receiver))
    sender.submit(started())
    eventually(lambda: receiver.received)
    assert not sender.shutdown(0.3)
    assert "1 of logs" in caplog.text


def test_a_second_shutdown_and_late_events_do_nothing(senders):
    with HttpReceiver() as receiver:
        sender = senders(receiver.url)
        sender.submit(started())
        assert sender.shutdown(15)
        assert sender.shutdown(15)
        sender.submit(ended())
        assert sender.flush(0.1)
        assert names(receiver) == [semconv.OPERATION_STARTED]


def test_a_resource_that_cannot_be_had_loses_no_event(senders):
    with HttpReceiver() as receiver:
        sender = senders(receiver.url, resource=lambda: 1 / 0)
        sender.submit(started())
        assert sender.shutdown(15)
        assert names(receiver) == [semconv.OPERATION_STARTED]


def test_a_sender_that_was_never_used_has_no_thread(senders):
    sender = senders("http://127.0.0.1:9")
    assert sender._thread is None
    assert sender.shutdown(1)


def test_nobody_is_told_more_than_once_a_minute(senders, caplog, monkeypatch):
    monkeypatch.setattr("otelprogress.otel.sender._PATIENCE_S", 0.0)
    with HttpReceiver() as receiver:
        receiver.default = Reply(503)
        sender = senders(receiver.url)
        sender.submit(started())
        eventually(lambda: len(receiver.received) >= 4)
        assert len([one for one in caplog.records if "not getting through" in one.getMessage()]) == 1
        receiver.default = Reply()


def test_a_forked_child_starts_with_nothing_of_its_parents(senders):
    with HttpReceiver() as receiver:
        receiver.default = Reply(503)
        sender = senders(receiver.url)
        sender.submit(started())
        eventually(lambda: receiver.received)
        inherited = sender._thread
        sender.reset_after_fork()
        assert sender.stats()["logs"].requests == 0
        receiver.default = Reply()
        sender.submit(ended())
        assert sender.flush(15)
        assert semconv.OPERATION_ENDED in names(receiver)
        assert sender._thread is not inherited


def test_the_report_names_the_place_but_no_secret(senders):
    sender = senders("http://user:secret@127.0.0.1:9/path", {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=hidden"})
    report = "\n".join(sender.report())
    assert "127.0.0.1:9" in report
    assert "secret" not in report
    assert "hidden" not in report
