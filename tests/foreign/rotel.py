"""`rotel`, an OTLP pipeline of others: takes OTLP in, batches, retries, and sends it on, in an order of its own."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.collector.collecting import free_port
from tests.foreign.parts import packaged
from tests.otel.otlp_server import HttpReceiver, Reply
from tests.waiting import eventually


@contextmanager
def rotel(folder: Path, *, logs_to: str, traces_to: str) -> Iterator[str]:
    """Run it; gives the URL of its OTLP/HTTP receiver.

    Args:
        folder: for its log.
        logs_to: URL of an OTLP/HTTP receiver; also of metrics.
        traces_to: URL of an OTLP/gRPC receiver.
    """
    http, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [
        *(packaged("rotel", "rotel-agent"), "start"),
        *("--otlp-http-endpoint", http, "--otlp-grpc-endpoint", grpc),
        *("--exporter", "otlp", "--otlp-exporter-endpoint", logs_to, "--otlp-exporter-protocol", "http"),
        *("--otlp-exporter-traces-endpoint", traces_to, "--otlp-exporter-traces-protocol", "grpc"),
        *("--otlp-exporter-request-timeout", "1s"),
        *("--otlp-exporter-retry-initial-backoff", "200ms", "--otlp-exporter-retry-max-backoff", "1s"),
        *("--batch-timeout", "100ms"),
        *("--pid-file", folder / "rotel.pid", "--log-file", folder / "rotel.log"),
    ]
    with (folder / "rotel.out").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            eventually(lambda: process.poll() is not None or _listens(http), 30)
            assert process.poll() is None, (folder / "rotel.out").read_text()
            yield f"http://{http}"
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Relay(HttpReceiver):
    """Records what passes on its way to `target`; where it loses answers, the sender is told 503 for what arrived."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.answers_to_lose = 0
        self.answers_lost = 0

    def __enter__(self) -> Self:
        relay = super().__enter__()
        # Senders that have not the patience to wait for an answer are the point.
        self._server.handle_error = lambda *_: None
        return relay

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        super().take(path, headers, body)
        request = urllib.request.Request(self.target + path, body, {"content-type": headers["content-type"]})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                reply = Reply(
                    answer.status, (("content-type", answer.headers["content-type"]),), answer.read()
                )
        except urllib.error.HTTPError as refusal:
            return Reply(refusal.code, (), refusal.read())
        except OSError:
            return Reply(502)
        if self.answers_to_lose > 0:
            self.answers_to_lose -= 1
            self.answers_lost += 1
            return Reply(503)
        return reply


def _listens(address: str) -> bool:
    request = urllib.request.Request(
        f"http://{address}/v1/logs", b"", {"content-type": "application/x-protobuf"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
