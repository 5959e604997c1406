"""What delivers one request to one backend, whatever the protocol."""

from __future__ import annotations

from typing import Protocol

from otelprogress.otel.target import Signal
from otelprogress.otel.transport import Answer
from otelprogress_collector.exporters.backend import BackendConfig
from otelprogress_collector.exporters.framing import Encoding


class Sender(Protocol):
    """One backend's connections, shared by its signals."""

    async def send(self, signal: Signal, body: bytes, encoding: Encoding) -> Answer:
        """Try once; within the backend's `timeout_s`. Never raises for what a network or a backend can do."""

    async def close(self) -> None:
        """Free the connections."""


def open_sender(config: BackendConfig) -> Sender:
    """The sender for a backend; on the event loop that will use it. aiohttp or grpc are imported when needed.

    Raises:
        InvalidValue: its TLS files are not what they should be.
    """
    if config.protocol == "grpc":
        from otelprogress_collector.exporters.grpc_sender import GrpcSender

        return GrpcSender(config)
    from otelprogress_collector.exporters.http_sender import HttpSender

    return HttpSender(config)
