"""The demo's trace, read back from a real OTLP backend (Arize Phoenix, in a virtual environment of its own)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otelprogress.model import semconv
from tests.waiting import eventually

pytestmark = [pytest.mark.backend, pytest.mark.timeout(1200)]

PROGRAM = Path(__file__).parents[2] / ".venv-phoenix" / "bin" / "phoenix"
STEPS = ["extract", "clean", "join", "aggregate", "load"]


@dataclass(frozen=True)
class Phoenix:
    http_url: str
    grpc_url: str

    def spans(self) -> list[dict[str, Any]]:
        """All spans that the backend holds."""
        with urllib.request.urlopen(
            f"{self.http_url}/v1/projects/default/spans?limit=1000", timeout=10
        ) as answer:
            return json.load(answer)["data"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[Phoenix]:
    if not PROGRAM.exists():
        message = f"{PROGRAM.parent.parent.name} is missing: run `make test-backends`, which installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    http, grpc = free_port(), free_port()
    environment = os.environ | {
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(http),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (tmp_path / "phoenix.log").open("wb") as log:
        server = subprocess.Popen([PROGRAM, "serve"], env=environment, stdout=log, stderr=log)
        try:
            eventually(
                lambda: server.poll() is not None or answers(f"http://127.0.0.1:{http}/healthz"),
                600,
                every_s=0.5,
            )
            assert server.poll() is None, (tmp_path / "phoenix.log").read_text()
            yield Phoenix(f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}")
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_demos_trace_stands_in_the_backend_with_steps_as_span_events_and_its_outcome(
    phoenix: Phoenix, tmp_path: Path, protocol: str
) -> None:
    endpoint = phoenix.grpc_url if protocol == "grpc" else phoenix.http_url
    demo = subprocess.run(
        [sys.executable, "-m", "otelprogress.cli.main", "demo", "--database", tmp_path / "flights.sqlite3"],
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert demo.returncode == 0, demo.stderr
    assert endpoint in demo.stdout

    def the_run() -> dict[str, Any] | None:
        return next((span for span in phoenix.spans() if span["name"] == "nyc flights"), None)

    run = eventually(the_run, 60, every_s=0.5)
    assert run["context"]["trace_id"] in demo.stdout
    assert run["status_code"] != "ERROR"
    assert run["attributes"][semconv.OPERATION_STATE] == "succeeded"
    started = [event for event in run["events"] if event["name"] == semconv.STEP_STARTED]
    ended = [event for event in run["events"] if event["name"] == semconv.STEP_ENDED]
    assert [event["attributes"][semconv.STEP_NAME] for event in started] == STEPS
    assert [event["attributes"][semconv.STEP_NAME] for event in ended] == STEPS
    assert {event["attributes"][semconv.STEP_STATE] for event in ended} == {"succeeded"}
    clean = ended[STEPS.index("clean")]["attributes"]
    assert clean[semconv.ITEMS_COMPLETED] == 336_776
    assert clean[semconv.COUNTER_PREFIX + "rejected"] == 8_255

    def children() -> list[str] | None:
        names = sorted(
            span["name"] for span in phoenix.spans() if span["parent_id"] == run["context"]["span_id"]
        )
        return names if len(names) == 5 else None

    assert eventually(children, 30, every_s=0.5) == ["load table"] * 2 + ["read table"] * 3
