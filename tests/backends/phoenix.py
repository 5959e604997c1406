"""Arize Phoenix, a real OTLP backend, in a virtual environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.collector.collecting import free_port
from tests.foreign.parts import installed
from tests.waiting import eventually

PROGRAM = Path(__file__).parents[2] / ".venv-phoenix" / "bin" / "phoenix"


@dataclass(frozen=True)
class Phoenix:
    http_url: str
    grpc_url: str

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """What the backend holds of one trace."""
        url = f"{self.http_url}/v1/projects/default/spans?limit=1000"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]
        return [span for span in found if span["context"]["trace_id"] == trace_id]

    def span(self, trace_id: str, name: str) -> dict[str, Any] | None:
        """The span of that name in a trace, if it is there."""
        return next((span for span in self.spans(trace_id) if span["name"] == name), None)


@contextmanager
def phoenix_server(folder: Path) -> Iterator[Phoenix]:
    """Run it. The first start takes long: it makes its database."""
    http, grpc = free_port(), free_port()
    environment = os.environ | {
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(http),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "phoenix.log").open("wb") as log:
        server = subprocess.Popen([installed(PROGRAM), "serve"], env=environment, stdout=log, stderr=log)
        try:
            eventually(
                lambda: server.poll() is not None or _answers(f"http://127.0.0.1:{http}/healthz"),
                600,
                every_s=0.5,
            )
            assert server.poll() is None, (folder / "phoenix.log").read_text()
            yield Phoenix(f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}")
        finally:
            server.terminate()
            server.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
