"""One writer of progress as a stranger sees it: events of now, encoded as OTLP, and sent by plain HTTP."""

from __future__ import annotations

import http.client
import secrets
import time
from dataclasses import dataclass
from typing import Any

from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.otel.otlp_encode import LogEncoder

PROTOBUF = "application/x-protobuf"


class Writer:
    """One run of one writer; numbers its durable events."""

    def __init__(self, name: str = "nightly load", *, run_id: str | None = None, **resource: Any) -> None:
        self.name = name
        self.trace_id = run_id[:32] if run_id else secrets.token_hex(16)
        self.run_id = run_id or f"{self.trace_id}-{secrets.token_hex(8)}"
        self.writer_id = secrets.token_hex(8)
        self.sequence = 0
        self._encoder = LogEncoder({"service.name": "etl"} | resource, "1")

    def event(self, kind: str, **said: Any) -> Event:
        self.sequence += 1
        said.setdefault("writer_id", self.writer_id)
        return Event(
            kind=kind, run_id=self.run_id, time_unix_ns=time.time_ns(), sequence=self.sequence, **said
        )

    def started(self, **said: Any) -> bytes:
        return self.encoded(
            self.event(
                semconv.OPERATION_STARTED,
                **{
                    "name": self.name,
                    "title": self.name,
                    "parent_span_id": "",
                    "start_unix_ns": time.time_ns(),
                }
                | said,
            )
        )

    def noted(self, message: str, **said: Any) -> bytes:
        return self.encoded(self.event(semconv.OPERATION_NOTED, message=message, **said))

    def ended(self, state: State = State.SUCCEEDED, **said: Any) -> bytes:
        return self.encoded(self.event(semconv.OPERATION_ENDED, state=state, **said))

    def encoded(self, *events: Event) -> bytes:
        body, count = self._encoder.encode(events)
        assert count == len(events)
        return body


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(
    port: int,
    path: str,
    body: bytes | None = None,
    *,
    token: str | None = None,
    timeout_s: float = 30.0,
    **headers: str,
) -> Answer:
    """One request on a connection of its own: POST when there is a body. `host_="…"` says another Host."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    said = {name.rstrip("_").replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        said["authorization"] = f"Bearer {token}"
    if body is not None:
        said = {"content-type": PROTOBUF} | said
    try:
        connection.request("GET" if body is None else "POST", path, body=body, headers=said)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def send(port: int, body: bytes, **options: Any) -> Answer:
    """One OTLP request of log records."""
    return ask(port, "/v1/logs", body, **options)
