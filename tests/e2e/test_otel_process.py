"""Whole processes with OpenTelemetry around them: what leaves them, and how they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otelprogress.model import semconv
from tests.otel.otlp_server import GrpcReceiver, HttpReceiver, Reply, dead_url

PROGRAM = """
import otelprogress as progress
progress.configure(view="off", feed=False)
for row in progress.track(range(10), "import flights", unit="row"):
    pass
with progress.operation("load"), progress.step("write"):
    pass
"""


def run(program: str, *before: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": ".", **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("receiver_type", "protocol"), [(HttpReceiver, "http/protobuf"), (GrpcReceiver, "grpc")]
)
def test_logs_spans_and_metrics_of_a_short_process_arrive(receiver_type, protocol):
    with receiver_type() as receiver:
        done = run(PROGRAM, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        assert (done.returncode, done.stderr) == (0, "")
        kinds = [one.event_name for one in receiver.log_records()]
        assert kinds.count(semconv.OPERATION_STARTED) == kinds.count(semconv.OPERATION_ENDED) == 2
        assert [span.name for span in receiver.spans()] == ["import flights", "load"]
        assert any("metrics" in one.path.lower() for one in receiver.received)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_process_whose_endpoint_is_dead_says_one_line_and_leaves(protocol):
    done = run(PROGRAM, OTEL_EXPORTER_OTLP_ENDPOINT=dead_url(), OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("otelprogress: not delivered before the exit: ")


def test_a_process_whose_endpoint_hangs_says_one_line_and_leaves():
    with HttpReceiver() as receiver:
        receiver.default = Reply(hang=True)
        done = run(PROGRAM, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        assert done.returncode == 0
        [line] = done.stderr.splitlines()
        assert "of logs" in line


LEFT_OPEN = """
import sys
import otelprogress as progress
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
progress.configure(view="off", feed=False)
provider = TracerProvider()
shown = ConsoleSpanExporter(out=sys.stdout, formatter=lambda span: f"{span.name} {dict(span.attributes)}")
provider.add_span_processor(BatchSpanProcessor(shown))
trace.set_tracer_provider(provider)
left_open = progress.operation("left open")
left_open.__enter__()
"""


def test_an_operation_left_open_reaches_an_exporter_that_was_set_up_after_us():
    done = run(LEFT_OPEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "left open" in done.stdout
    assert "'otelprogress.operation.state': 'lost'" in done.stdout


INSTRUMENTED = """
import json, time
from opentelemetry import trace
tracer = trace.get_tracer("app")
import otelprogress.runtime as runtime
import otelprogress as progress
with progress.operation("outer"), tracer.start_as_current_span("request"):
    with tracer.start_as_current_span("import a") as span:
        span.add_event("half way")
        with tracer.start_as_current_span("parse"), progress.operation("own below"):
            pass
host = next(one.host for one in vars(runtime).values() if hasattr(one, "host"))
deadline = time.monotonic() + 20
while time.monotonic() < deadline and sum(view.ended_at_unix_ns is not None for view in host.views()) < 3:
    time.sleep(0.01)
ids = {view.id: view.name for view in host.views()}
print(json.dumps([[v.name, ids.get(v.parent_id), v.state, v.message, v.step and v.step.name] for v in host.views()]))
"""


def test_code_with_no_edit_at_all_is_seen_by_rules():
    script = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    done = run(
        INSTRUMENTED,
        script,
        OTEL_TRACES_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTELPROGRESS_FEED="on",
        OTELPROGRESS_VIEW="off",
        OTELPROGRESS_RULES="name=import *;children=steps",
    )
    assert done.returncode == 0, done.stderr
    views = {name: rest for name, *rest in json.loads(done.stdout.splitlines()[-1])}
    assert views["import a"] == ["outer", "succeeded", "half way", "parse"]
    assert views["outer"][:2] == [None, "succeeded"]
    assert views["own below"][0] == "import a"
