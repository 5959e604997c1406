"""Servers under load: each a process of its own, pinned to the first core, stopped by its pid.

The process that measures pins itself to the last core (`take_load_core`), so that it is never what is measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

START_S = 60.0
_ROOT = Path(__file__).parent.parent


def cores() -> list[int]:
    """The cores of this process at its start; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


_CORES = cores()


def take_load_core() -> None:
    """Pin this process, and what it starts without a pin of its own, to the last core."""
    if len(_CORES) > 1:
        os.sched_setaffinity(0, {_CORES[-1]})


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Served:
    """A server in a process of its own.

    Args:
        command: starts it.
        port: that it listens on.
        log: takes what it prints.
        core: `None`: the first one; where there are two, this process has another.
        environment: beside this process's own.
    """

    def __init__(
        self,
        command: list[str],
        port: int,
        log: Path,
        *,
        core: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = port
        self._log = log
        first = _CORES[0] if _CORES else 0
        pin = ["taskset", "-c", str(first if core is None else core)] if len(_CORES) > 1 else []
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*pin, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(_ROOT)} | (environment or {}),
            )

    def wait_listening(self) -> None:
        """Until its port takes connections.

        Raises:
            RuntimeError: it ended, or took more than a minute; with what it printed.
        """
        self._wait(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close())

    def wait_ready(self) -> None:
        """Until `/readyz` says 200.

        Raises:
            RuntimeError: as for `wait_listening`.
        """
        self._wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close())

    def _wait(self, ask: Any) -> None:  # a call that raises OSError until it is so
        until_s = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                ask()
                return
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{self.process.args!r} does not serve: {self._log.read_text()[-2000:]}")
            time.sleep(0.01)

    @property
    def private_bytes(self) -> int:
        """Memory that is this process's alone."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))

    def cpu_s(self) -> float:
        """Processor time taken so far, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not go within ten seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def served(
    command: list[str],
    port: int,
    folder: Path,
    *,
    core: int | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[Served]:
    """A server that listens, to the end of the block."""
    server = Served(command, port, folder / f"{port}.log", core=core, environment=environment)
    try:
        server.wait_listening()
        yield server
    finally:
        server.stop()


def collector_command(data_dir: Path, port: int, *arguments: str) -> list[str]:
    """`otelprogress-collector serve` on this HTTP port, without tokens."""
    return [
        *(sys.executable, "-m", "otelprogress_collector", "serve", "--no-auth"),
        *("--data-dir", str(data_dir), "--http-port", str(port), "--grpc-port", str(free_port())),
        *arguments,
    ]


COLLECTOR_ENVIRONMENT = {
    "OTELPROGRESS_COLLECTOR_RUNTIME_FILE": "false",
    "OTELPROGRESS_COLLECTOR_LOG_LEVEL": "warning",
}


@contextmanager
def collector(folder: Path, *arguments: str, **settings: str) -> Iterator[Served]:
    """A collector with an empty store of its own.

    Args:
        folder: for its data.
        arguments: of `serve`.
        settings: as its environment names them, without the prefix.
    """
    port = free_port()
    said = {f"OTELPROGRESS_COLLECTOR_{name.upper()}": value for name, value in settings.items()}
    server = Served(
        collector_command(folder / f"data-{port}", port, *arguments),
        port,
        folder / f"{port}.log",
        environment=COLLECTOR_ENVIRONMENT | said,
    )
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@contextmanager
def peer(folder: Path, kind: str, *more_ports: int, on_load_core: bool = False) -> Iterator[Served]:
    """One of `bench.peers`."""
    port = free_port()
    command = [sys.executable, "-m", "bench.peers", kind, str(port), *map(str, more_ports)]
    core = _CORES[-1] if on_load_core and _CORES else None
    with served(command, port, folder, core=core) as server:
        yield server


@contextmanager
def rotel(folder: Path, *, forward_to: int | None = None) -> Iterator[Served]:
    """rotel, taking OTLP over HTTP.

    Args:
        folder: for its log.
        forward_to: the port of a sink; `None`: it discards.
    """
    package = find_spec("rotel")
    assert package is not None
    assert package.origin is not None
    port = free_port()
    exporter = (
        ["--exporter", "blackhole"]
        if forward_to is None
        else [
            *("--exporter", "otlp", "--otlp-exporter-protocol", "http"),
            *("--otlp-exporter-endpoint", f"http://127.0.0.1:{forward_to}"),
            *("--otlp-exporter-compression", "none"),
        ]
    )
    command = [
        *(str(Path(package.origin).parent / "rotel-agent"), "start"),
        *("--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"),
        *exporter,
    ]
    with served(command, port, folder) as server:
        yield server


@contextmanager
def nats(folder: Path) -> Iterator[tuple[Served, int]]:
    """nats-server; its WebSocket port is the second of the two."""
    port, websocket_port = free_port(), free_port()
    settings = folder / f"nats-{port}.conf"
    settings.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'websocket {{ listen: "127.0.0.1:{websocket_port}", no_tls: true, compression: false }}\n'
    )
    program = Path(sys.executable).with_name("nats-server")
    with served([str(program), "-c", str(settings)], port, folder) as server:
        yield server, websocket_port
