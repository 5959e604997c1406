"""What becomes of real programs that die, stand still or go on, as a watcher and a backend see it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from otelprogress.model import semconv
from tests.collector.collecting import CollectorProcess
from tests.e2e.pty_screen import PtyProgram
from tests.otel.otlp_server import HttpReceiver
from tests.waiting import eventually

PROGRAM = str(Path(__file__).with_name("long_program.py"))
CLI = [sys.executable, "-m", "otelprogress.cli.main"]


@pytest.fixture(autouse=True)
def nobody_elses_feeds(tmp_path, monkeypatch):
    monkeypatch.setenv("OTELPROGRESS_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    for name in ("OTELPROGRESS_LINK", "OTELPROGRESS_COLLECTOR", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


class Program:
    """A running one, and the id of its operation."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        said, self.run_id = process.stdout.readline().split()
        assert said == "ready"


@contextlib.contextmanager
def program(behaviour: str = "go on", **environment: str) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, PROGRAM, behaviour],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield Program(process)
    finally:
        family = [psutil.Process(process.pid)] if process.poll() is None else []
        family += [one for each in family for one in each.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        process.stdout.close()


def seen(collector: CollectorProcess, run_id: str) -> dict:
    found = json.loads(collector.get("/v1/operations"))["operations"]
    return next((one for one in found if one["id"] == run_id), {"state": "unknown"})


def closing_spans(backend: HttpReceiver) -> list:
    return [
        span for span in backend.spans() if any(one.key == semconv.LOST_DETECTOR for one in span.attributes)
    ]


def test_an_app_shows_up_in_watch_is_killed_and_is_lost_with_its_cause_and_its_span_at_the_backend(tmp_path):
    with HttpReceiver() as backend:
        with CollectorProcess(tmp_path / "data", "--export-otlp", backend.url) as collector:
            with PtyProgram([*CLI, "watch"]) as watch, program(OTELPROGRESS_COLLECTOR=collector.url) as app:
                watch.wait_for(lambda screen: "load" in screen.text and "nightly" in screen.text)
                linked(collector, app)
                app.process.kill()
                app.process.wait()
                watch.wait_for(lambda screen: "lost" in screen.text.lower())
                lost = eventually(lambda: (one := seen(collector, app.run_id))["state"] == "lost" and one)
                assert lost["lost_detector"] == "link"
                assert f"process {app.process.pid} is gone" in lost["lost_cause"]
                [span] = eventually(lambda: closing_spans(backend), 30)
                assert f"{span.trace_id.hex()}-{span.span_id.hex()}" == app.run_id
                assert span.status.code == 2
                assert [one.name for one in span.events] == [
                    semconv.STEP_STARTED,
                    semconv.STEP_ENDED,
                    semconv.STEP_STARTED,
                ]


def test_a_forked_child_that_outlives_it_changes_nothing_of_that(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        with program("fork", OTELPROGRESS_COLLECTOR=collector.url) as app:
            linked(collector, app)
            [child] = psutil.Process(app.process.pid).children()
            app.process.kill()
            app.process.wait()
            try:
                eventually(lambda: seen(collector, app.run_id)["state"] == "lost")
                assert child.is_running()
            finally:
                child.kill()


def test_an_app_with_an_endpoint_and_a_lease_only_is_lost_once_that_ran_out(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        with program(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTELPROGRESS_LEASE_S="2") as app:
            eventually(lambda: seen(collector, app.run_id)["state"] == "running")
            assert b"collector_workers 0" in collector.get("/metrics")
            app.process.kill()
            app.process.wait()
            lost = eventually(lambda: (one := seen(collector, app.run_id))["state"] == "lost" and one, 30)
            assert (lost["lost_detector"], lost["lost_cause"]) == (
                "lease",
                "not heard within its lease of 2 s",
            )


def counted(collector: CollectorProcess, app: Program) -> float:
    step = seen(collector, app.run_id).get("step", {})
    return step.get("completed", 0.0) if step.get("name") == "load" else 0.0


def linked(collector: CollectorProcess, app: Program) -> None:
    """It was heard, and its link stands: from here on its death is seen by its end."""
    eventually(lambda: counted(collector, app), 30)
    eventually(lambda: b"collector_workers 1" in collector.get("/metrics"), 30)


def stands_still(collector: CollectorProcess, app: Program) -> None:
    eventually(lambda: seen(collector, app.run_id).get("stalled"), 30)


def goes_on(collector: CollectorProcess, app: Program, timeout_s: float = 30) -> None:
    eventually(lambda: not seen(collector, app.run_id).get("stalled"), timeout_s)
    assert seen(collector, app.run_id)["state"] == "running"
    assert b"lost_operations_total 0" in collector.get("/metrics")


def stop_for(collector: CollectorProcess, app: Program, seconds: float) -> None:
    """Stopped as by a debugger, and looked at all the time."""
    linked(collector, app)
    os.kill(app.process.pid, signal.SIGSTOP)
    stands_still(collector, app)
    with pytest.raises(AssertionError):
        eventually(lambda: seen(collector, app.run_id)["state"] != "running", seconds, every_s=0.2)
    os.kill(app.process.pid, signal.SIGCONT)
    goes_on(collector, app)


def test_a_worker_that_is_stopped_is_stalled_and_not_lost_although_its_lease_runs_out(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        with program(OTELPROGRESS_COLLECTOR=collector.url, OTELPROGRESS_LEASE_S="1") as app:
            stop_for(collector, app, 4)


def test_a_worker_whose_interpreter_is_held_is_stalled_and_not_lost(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        with program("hold8", OTELPROGRESS_COLLECTOR=collector.url, OTELPROGRESS_LEASE_S="1") as app:
            stands_still(collector, app)
            goes_on(collector, app)


def test_a_worker_goes_on_through_a_restart_of_the_collector(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        with program(OTELPROGRESS_COLLECTOR=collector.url, OTELPROGRESS_LEASE_S="1") as app:
            before = eventually(lambda: counted(collector, app), 30)
            collector.kill()
            collector.start()
            eventually(lambda: counted(collector, app) > before, 30)
            linked(collector, app)
            goes_on(collector, app)
            app.process.kill()
            eventually(lambda: seen(collector, app.run_id)["state"] == "lost")


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [5, 30, 60])
def test_a_worker_may_be_stopped_for_a_minute(tmp_path, seconds):
    with CollectorProcess(tmp_path / "data") as collector:
        with program(OTELPROGRESS_COLLECTOR=collector.url) as app:
            stop_for(collector, app, seconds)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_c_call_may_hold_the_interpreter_for_a_minute(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        with program("hold60", OTELPROGRESS_COLLECTOR=collector.url) as app:
            stands_still(collector, app)
            with pytest.raises(AssertionError):
                eventually(lambda: seen(collector, app.run_id)["state"] != "running", 50, every_s=0.2)
            goes_on(collector, app, 60)
