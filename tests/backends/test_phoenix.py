"""The demo's trace, read back from a real OTLP backend."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.backends.demo import check_trace, demo_command, trace_id_in
from tests.backends.phoenix import Phoenix

pytestmark = [pytest.mark.backend, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_demos_trace_stands_in_the_backend_with_steps_as_span_events_and_its_outcome(
    phoenix: Phoenix, tmp_path: Path, protocol: str
) -> None:
    endpoint = phoenix.grpc_url if protocol == "grpc" else phoenix.http_url
    demo = subprocess.run(
        demo_command(tmp_path),
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert demo.returncode == 0, demo.stderr
    assert endpoint in demo.stdout
    check_trace(phoenix, trace_id_in(demo.stdout))
