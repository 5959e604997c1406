"""The sender against each answer that a receiver can give: what is tried again, what is counted, what is said."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from otelprogress.model import semconv
from otelprogress.otel.sender import Sender
from otelprogress.otel.target import otlp_target
from tests.otel.events import ended, started, step_ended, step_started, ticked
from tests.otel.otlp_server import GrpcReceiver, HttpReceiver, Receiver, Reply
from tests.waiting import eventually

STORY = [started(), step_started(0), step_ended(0), ended()]
NAMES = [semconv.OPERATION_STARTED, semconv.STEP_STARTED, semconv.STEP_ENDED, semconv.OPERATION_ENDED]
SOON = (("retry-after", "0"),)
PARTIAL = ExportLogsServiceResponse(
    partial_success=ExportLogsPartialSuccess(rejected_log_records=99, error_message="too old"),
).SerializeToString()


def retry_info(seconds: int) -> tuple[tuple[str, bytes], ...]:
    info = RetryInfo()
    info.retry_delay.seconds = seconds
    return (("google.rpc.retryinfo-bin", info.SerializeToString()),)


@pytest.fixture
def http():
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture
def over_grpc():
    with GrpcReceiver() as receiver:
        yield receiver


@pytest.fixture
def senders():
    made: list[Sender] = []

    def make(receiver: Receiver, **settings) -> Sender:
        protocol = "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        made.append(Sender(otlp_target(environ), version="1", resource={}, **settings))
        return made[-1]

    yield make
    for sender in made:
        sender.shutdown(0.5)


def tell(sender: Sender) -> None:
    """The story, one request an event, as it happens where the receiver keeps up."""
    for event in STORY:
        sender.submit(event)
        assert sender.flush(20)


def names(receiver: Receiver, **how) -> list[str]:
    return [record.event_name for record in receiver.log_records(**how)]


PASSING_OVER_HTTP = [
    *(Reply(status) for status in (429, 502, 503, 504)),
    *(Reply(status, headers=SOON) for status in (429, 502, 503, 504)),
    Reply(503, headers=(("retry-after", "soon"),)),
    Reply(reset=True),
    Reply(reset=True, body=b"HTTP/1.1 2"),
    Reply(reset=True, body=b"no answer at all\r\n\r\n"),
]
PASSING_OVER_GRPC = [
    Reply(grpc.StatusCode.UNAVAILABLE),
    Reply(grpc.StatusCode.UNAVAILABLE, headers=retry_info(0)),
    Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, headers=retry_info(0)),
]


def check_same_bytes_in_order(receiver: Receiver, sender: Sender, reply: Reply) -> None:
    receiver.script = [Reply(), reply, reply]
    tell(sender)
    bodies = [one.body for one in receiver.received]
    assert len(bodies) == 6
    assert bodies[1] == bodies[2] == bodies[3]
    assert names(receiver, distinct=True) == NAMES
    stats = sender.stats()["logs"]
    assert (stats.delivered, stats.retries, stats.refused, stats.dropped) == (4, 2, 0, 0)


@pytest.mark.parametrize("reply", PASSING_OVER_HTTP, ids=str)
def test_what_passes_over_http_is_answered_with_the_same_bytes_in_order(http, senders, reply):
    check_same_bytes_in_order(http, senders(http), reply)


@pytest.mark.parametrize("reply", PASSING_OVER_GRPC, ids=str)
def test_what_passes_over_grpc_is_answered_with_the_same_bytes_in_order(over_grpc, senders, reply):
    check_same_bytes_in_order(over_grpc, senders(over_grpc), reply)


REFUSED_OVER_HTTP = [
    Reply(400),
    Reply(413),
    Reply(500),
    *(Reply(status, headers=(("location", "/elsewhere"),)) for status in (301, 302, 307, 308)),
    Reply(304),
]
REFUSED_OVER_GRPC = [
    Reply(grpc.StatusCode.INVALID_ARGUMENT),
    Reply(grpc.StatusCode.RESOURCE_EXHAUSTED),
    Reply(grpc.StatusCode.PERMISSION_DENIED),
]


def check_one_is_lost_and_the_rest_arrives(receiver: Receiver, sender: Sender, reply: Reply, caplog) -> None:
    receiver.script = [Reply(), reply]
    tell(sender)
    assert len(receiver.received) == 4
    assert {one.path for one in receiver.received} == {receiver.received[0].path}
    stats = sender.stats()["logs"]
    assert (stats.delivered, stats.retries, stats.refused, stats.dropped) == (3, 0, 1, 0)
    assert sender.shutdown(20)
    [line] = caplog.messages
    assert "1 lost earlier (logs to 127.0.0.1:" in line


@pytest.mark.parametrize("reply", REFUSED_OVER_HTTP, ids=str)
def test_what_http_will_never_take_is_counted_and_said_at_the_exit_at_the_latest(
    http, senders, caplog, reply
):
    check_one_is_lost_and_the_rest_arrives(http, senders(http), reply, caplog)


@pytest.mark.parametrize("reply", REFUSED_OVER_GRPC, ids=str)
def test_what_grpc_will_never_take_is_counted_and_said_at_the_exit_at_the_latest(
    over_grpc, senders, caplog, reply
):
    check_one_is_lost_and_the_rest_arrives(over_grpc, senders(over_grpc), reply, caplog)


@pytest.mark.parametrize("status", [404, 405])
def test_a_signal_that_http_does_not_know_is_off_and_said_once(http, senders, caplog, status):
    http.default = Reply(status)
    sender = senders(http)
    tell(sender)
    assert len(http.received) == 1
    assert sender.shutdown(20)
    [line] = caplog.messages
    assert f"does not take logs (HTTP {status})" in line


def test_a_signal_that_grpc_does_not_know_is_off_and_said_once(over_grpc, senders, caplog):
    over_grpc.default = Reply(grpc.StatusCode.UNIMPLEMENTED)
    sender = senders(over_grpc)
    tell(sender)
    assert len(over_grpc.received) == 1
    assert sender.shutdown(20)
    [line] = caplog.messages
    assert "does not take logs (gRPC UNIMPLEMENTED)" in line


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"\xff\xff garbage"),
        Reply(body=b"{}", headers=(("content-encoding", "gzip"),)),
        Reply(reset=True, body=b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nxx"),
    ],
    ids=str,
)
def test_a_success_counts_whatever_becomes_of_its_body(http, senders, reply):
    http.script = [Reply(), reply]
    sender = senders(http)
    tell(sender)
    assert names(http) == NAMES
    assert sender.stats()["logs"].delivered == 4


@pytest.mark.parametrize("kind", [HttpReceiver, GrpcReceiver])
def test_what_a_partial_success_rejects_is_counted_within_reason_and_said_with_its_reason(
    kind, senders, caplog
):
    with kind() as receiver:
        receiver.script = [Reply(), Reply(body=PARTIAL)]
        sender = senders(receiver)
        tell(sender)
        stats = sender.stats()["logs"]
        assert (stats.delivered, stats.rejected) == (3, 1)
        assert sender.shutdown(20)
        [line] = caplog.messages
        assert "1 lost earlier" in line
        assert "too old" in line


@pytest.mark.parametrize("kind", [HttpReceiver, GrpcReceiver])
def test_at_the_exit_a_receiver_that_is_busy_or_broke_the_connection_is_asked_again(kind, senders):
    passing = PASSING_OVER_HTTP if kind is HttpReceiver else PASSING_OVER_GRPC
    for reply in passing:
        with kind() as receiver:
            sender = senders(receiver)
            receiver.script = [reply, reply]
            for event in STORY:
                sender.submit(event)
            assert sender.shutdown(20), reply
            assert names(receiver, distinct=True) == NAMES


@pytest.mark.parametrize(
    "reply", [Reply(503), Reply(503, headers=(("retry-after", "60"),)), Reply(reset=True)], ids=str
)
def test_an_exit_waits_no_longer_than_it_may_and_says_what_was_lost(http, senders, caplog, reply):
    http.default = reply
    sender = senders(http)
    for event in STORY[:2]:
        sender.submit(event)
    assert not sender.shutdown(0.4)  # returns at all: the receiver would go on for ever
    eventually(lambda: not sender._thread.is_alive())
    [line] = caplog.messages
    assert "2 of logs to 127.0.0.1:" in line
    assert sender.stats()["logs"].dropped == 2


@pytest.mark.parametrize("kind", [HttpReceiver, GrpcReceiver])
def test_a_receiver_that_asks_for_patience_is_not_sent_ticks_meanwhile(kind, senders):
    with kind() as receiver:
        sender = senders(receiver)
        sender.submit(started())
        assert sender.flush(20)
        receiver.default = (
            Reply(503, headers=(("retry-after", "25"),))
            if kind is HttpReceiver
            else Reply(grpc.StatusCode.UNAVAILABLE, headers=retry_info(25))
        )
        sender.submit(ticked(1.0))
        lane = sender._lanes["logs"]
        eventually(lambda: lane.last_failure)
        eventually(lambda: lane.not_before_s > 0)
        sender.submit(ticked(2.0))
        sender.submit(step_started(0))
        eventually(lambda: sender._wakes.empty())
        assert len(receiver.received) == 2
        receiver.default = Reply()
        assert sender.shutdown(20)  # the exit asks once more, whatever pause was going on
        assert names(receiver)[-1] == semconv.STEP_STARTED


def test_a_loss_in_the_first_seconds_is_said_later_although_nothing_more_is_sent(
    http, senders, caplog, monkeypatch
):
    monkeypatch.setattr("otelprogress.otel.sender._PATIENCE_S", 0.3)
    http.default = Reply(400)
    sender = senders(http)
    sender.submit(started())
    assert sender.flush(20)
    eventually(lambda: caplog.messages)
    [line] = caplog.messages
    assert "HTTP 400" in line
    assert "1 lost" in line
    assert sender.shutdown(20)
    assert len(caplog.messages) == 1  # what was said is not said again
