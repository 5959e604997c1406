"""A whole collector, in this process or in one of its own, on free ports of 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from otelprogress_collector.app import Collector
from otelprogress_collector.config import load
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def collecting(data_dir: Path, **settings: Any) -> AsyncIterator[Collector]:
    """A collector in this process."""
    said = {"data_dir": str(data_dir), "http_port": 0, "grpc_port": 0, "runtime_file": False, **settings}
    collector = Collector(load(None, said))
    await collector.start()
    try:
        yield collector
    finally:
        await collector.stop()


class CollectorProcess:
    """`otelprogress-collector serve` in a process of its own, which can be killed and started again on its ports."""

    def __init__(self, data_dir: Path, *arguments: str, **environment: str) -> None:
        self.data_dir = data_dir
        self.http_port, self.grpc_port = free_port(), free_port()
        self.log = data_dir.with_suffix(".log")
        self.module = "otelprogress_collector"
        self._arguments = arguments
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def token(self) -> str:
        return (self.data_dir / "token").read_text().strip()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    self.module,
                    "serve",
                    *("--data-dir", str(self.data_dir)),
                    *("--http-port", str(self.http_port)),
                    *("--grpc-port", str(self.grpc_port)),
                    *self._arguments,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'collector'}"} | self._environment,
            )
        if wait:
            eventually(lambda: self.process.poll() is not None or self.ready, 60)
            assert self.process.poll() is None, self.log.read_text()
        return self

    @property
    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status == 200
        return False

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
