"""A real fork, in a process of its own: what the child inherits, it neither sends nor disturbs."""

from __future__ import annotations

import subprocess
import sys

from tests.otel.otlp_server import GrpcReceiver, HttpReceiver

PROGRAM = """
import os, sys
from otelprogress.otel.emitter import ProgressEmitter, SpanLedger
from otelprogress.otel.provider import ProviderBinding
from otelprogress.otel.registry import REGISTRY
from otelprogress.otel.sender import Sender
from otelprogress.otel.span_processor import ProgressSpanProcessor
from otelprogress.otel.target import otlp_target
from tests.otel.events import ended, started

sender = Sender(otlp_target(os.environ), resource={"service.name": "forks"}, version="1")
binding = ProviderBinding(span_processor=ProgressSpanProcessor(), sender=sender)
emitter = ProgressEmitter(sender.submit, user_logs=binding.user_logger)

def operation(name):
    opened = binding.open_span(name)
    return opened, SpanLedger()

def end(opened, ledger):
    emitter.emit(ended(), opened.span, ledger)
    emitter.finish(opened.span, ledger)
    opened.span.end()

first = operation("sent before the fork")
end(*first)
assert sender.flush(20)
outer = operation("open at the fork")
child = os.fork()
if child == 0:
    sender.reset_after_fork()
    binding.reset_after_fork()
    assert not REGISTRY.by_span_id
    end(*operation("in the child"))
    os._exit(0 if sender.flush(20) else 1)
_, status = os.waitpid(child, 0)
end(*outer)
delivered = sender.shutdown(20)
sys.exit(0 if delivered and os.waitstatus_to_exitcode(status) == 0 else 1)
"""


def run(receiver, protocol: str) -> list[str]:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": ".", **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len({span.span_id for span in receiver.spans()}) == 3
    return [span.name for span in receiver.spans()]


EXPECTED = ["sent before the fork", "in the child", "open at the fork"]


def test_parent_and_child_each_send_their_own_once_over_http():
    with HttpReceiver() as receiver:
        assert run(receiver, "http/protobuf") == EXPECTED


def test_parent_and_child_each_send_their_own_once_over_grpc():
    with GrpcReceiver() as receiver:
        assert run(receiver, "grpc") == EXPECTED
