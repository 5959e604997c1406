"""To a collector, spans follow the events that their operations said: it takes a span for all that was said."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from otelprogress.otel.sender import Sender
from otelprogress.otel.target import otlp_target
from tests.otel.events import ended, started
from tests.otel.otlp_server import HttpReceiver, Reply
from tests.waiting import eventually


@pytest.fixture
def receiver():
    with HttpReceiver() as one:
        yield one


def a_span() -> ReadableSpan:
    provider = TracerProvider(shutdown_on_exit=False)
    span = provider.get_tracer("test").start_span("import flights")
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


def paths(receiver: HttpReceiver) -> list[str]:
    return [one.path for one in receiver.received]


def test_what_still_waits_in_the_host_goes_before_the_span(receiver):
    said = [started(), ended()]
    sender = Sender(
        otlp_target({}, collector=receiver.url),
        resource={},
        version="1",
        drain=lambda: [sender.submit(said.pop(0)) for _ in range(len(said))],
    )
    sender.submit_span(a_span())
    assert sender.flush(20)
    assert paths(receiver) == ["/v1/logs", "/v1/traces"]
    assert len(receiver.log_records()) == 2
    assert sender.shutdown(10)


def test_spans_wait_while_the_events_cannot_be_delivered(receiver):
    receiver.script = [Reply(503), Reply(503)]
    sender = Sender(otlp_target({}, collector=receiver.url), resource={}, version="1")
    sender.submit(started())
    sender.submit_span(a_span())
    assert sender.flush(20)
    assert paths(receiver) == ["/v1/logs"] * 3 + ["/v1/traces"]
    assert sender.shutdown(10)


def test_at_a_plain_endpoint_one_signal_does_not_wait_for_the_other(receiver):
    receiver.script = [Reply(503, headers=(("retry-after", "30"),))]
    sender = Sender(otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}), resource={}, version="1")
    sender.submit(started())
    eventually(lambda: receiver.received)
    sender.submit_span(a_span())
    eventually(lambda: "/v1/traces" in paths(receiver))
    sender.shutdown(1)


def test_a_collector_that_takes_no_events_gets_the_spans(receiver):
    receiver.script = [Reply(404)]
    sender = Sender(otlp_target({}, collector=receiver.url), resource={}, version="1")
    sender.submit(started())
    sender.submit_span(a_span())
    assert sender.flush(20)
    assert paths(receiver) == ["/v1/logs", "/v1/traces"]
    sender.shutdown(1)
