"""The HTTP connections of the collector's port: uvicorn's, with what slow peers need.

`CollectorHttp` goes to uvicorn as `http=`. A request head has to be complete within `HEAD_TIMEOUT_S`, else the
connection is cut. An ASGI application that streams finds its connection as
`scope["extensions"]["otelprogress.connection"]`, with `paused` (the peer does not read), `on_writable` (called when it
does again), `buffered_bytes` and `transport`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from otelprogress_collector.api.ws_protocol import EXTENSION, tune

_LOG: Final = logging.getLogger("otelprogress_collector.http")
HEAD_TIMEOUT_S: Final = 5.0
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0"
"""How every HTTP/2 connection begins (RFC 9113, 3.4)."""
COMPLAIN_EVERY_S: Final = 60.0
_complained_at_s = -COMPLAIN_EVERY_S


class CollectorHttp(H11Protocol):
    """See the module."""

    head_timeout_s: float = HEAD_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_writable: Callable[[], None] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        app = self.app

        async def with_connection(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[EXTENSION] = self
            await app(scope, receive, send)

        self.app = with_connection

    @property
    def paused(self) -> bool:
        """Whether the peer does not keep up with what was sent."""
        return self.flow.write_paused

    @property
    def buffered_bytes(self) -> int:
        """What the kernel has not accepted yet."""
        return self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """The first request has to come."""
        super().connection_made(transport)
        tune(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        self._head_came()
        super().connection_lost(exc)
        if self.on_writable is not None:
            self.on_writable()
            self.on_writable = None

    def data_received(self, data: bytes) -> None:
        """A request that has begun has to come whole."""
        if data.startswith(HTTP2_PREFACE):
            self._refuse_http2()
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await_head()
        else:
            self._head_came()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From here on the connection is another protocol's."""
        self._head_came()
        super().handle_websocket_upgrade(event)

    def resume_writing(self) -> None:
        """There is room again."""
        super().resume_writing()
        if self.on_writable is not None:
            self.on_writable()

    def _refuse_http2(self) -> None:
        """Most likely a gRPC exporter that was given the wrong port: its user finds the way in the log."""
        global _complained_at_s
        now_s = self.loop.time()
        if now_s - _complained_at_s >= COMPLAIN_EVERY_S:
            _complained_at_s = now_s
            _LOG.warning(
                "a client speaks HTTP/2 (gRPC) to port %s, which speaks HTTP/1.1: OTLP/gRPC has a port of its own, 4317 "
                "unless grpc_port says otherwise; or let the client use OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
                self.server[1] if self.server else "?",
            )
        self.transport.abort()

    def _await_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
