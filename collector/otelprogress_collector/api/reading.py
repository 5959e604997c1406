"""The reading side of the collector: its routes, and how it starts and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import BaseRoute, Route, WebSocketRoute

from otelprogress_collector.api.access import Access
from otelprogress_collector.api.commands import Commands
from otelprogress_collector.api.delivery import Delivery
from otelprogress_collector.api.feed import FEED_LIMITS, Feed, UpgradeRequired
from otelprogress_collector.api.health import Health, Readiness, Ready
from otelprogress_collector.api.http_protocol import CollectorHttp
from otelprogress_collector.api.metrics import Collect, Metrics, Sample
from otelprogress_collector.api.openapi import OpenApi
from otelprogress_collector.api.problem import OnlyGet
from otelprogress_collector.api.rest import Operation, Operations
from otelprogress_collector.api.sse import Streams
from otelprogress_collector.api.ws_protocol import CollectorWebSocket

if TYPE_CHECKING:
    from otelprogress.feed.connection import ServerLimits
    from otelprogress_collector.auth.admission import CollectorAdmission
    from otelprogress_collector.auth.principal import Authority
    from otelprogress_collector.auth.rate import Doorstep, RateLimits
    from otelprogress_collector.commanding import Commanding
    from otelprogress_collector.host import CollectorHost

UVICORN_OPTIONS: Final[Mapping[str, Any]] = {
    "http": CollectorHttp,
    "ws": CollectorWebSocket,
    "ws_per_message_deflate": False,
    "ws_ping_interval": None,
    "ws_ping_timeout": None,
    "server_header": False,
    "access_log": False,
}
"""What the port has to be served with; `uvicorn.Config(app, **UVICORN_OPTIONS, …)`."""


class Reading:
    """Everything that is read by network.

    Args:
        host: what is served.
        authority: judges tokens.
        admission: judges the `Host` and `Origin` headers of everything but health checks.
        ready: for `/readyz`.
        collect: for `/metrics`; `None`: only what the feed says of itself.
        open_metrics: whether `/metrics` needs no token.
        limits: of the feed; streams have as many places of their own.
        doorstep: counts the feed connections that have shown no token yet; `None`: one of the feed's own.
        rate_limits: of HTTP requests; `None`: none.
        server_info: told in `welcome`, and the version in the OpenAPI document.
        commanding: takes commands; `None`: nobody does.
    """

    def __init__(
        self,
        host: CollectorHost,
        authority: Authority,
        *,
        admission: CollectorAdmission,
        ready: Ready,
        collect: Collect | None = None,
        open_metrics: bool = False,
        limits: ServerLimits = FEED_LIMITS,
        doorstep: Doorstep | None = None,
        rate_limits: RateLimits | None = None,
        server_info: Mapping[str, str] | None = None,
        commanding: Commanding | None = None,
    ) -> None:
        access = Access(authority, host.clock, admission, rate_limits)
        self.delivery = Delivery(host)
        self.feed = Feed(
            host,
            access,
            self.delivery,
            limits=limits,
            doorstep=doorstep,
            server_info=server_info,
            commands=commanding,
        )
        self._commands = None if commanding is None else Commands(host, access, commanding)
        self.streams = Streams(host, access, self.delivery, limits=limits)
        self._operations = Operations(host, access)
        self._operation = Operation(host, access, self.delivery)
        self._collect = collect
        self._metrics = Metrics(self._samples, None if open_metrics else access)
        self._readiness = Readiness(lambda: "the collector drains" if self.feed.draining else ready())
        self._openapi = OpenApi(access, (server_info or {}).get("version", ""))

    def routes(self) -> list[BaseRoute]:
        """For the application that serves the port."""
        return [
            WebSocketRoute("/v1/feed", self.feed),
            Route("/v1/feed", OnlyGet(UpgradeRequired())),
            Route("/v1/feed/sse", OnlyGet(self.streams, head=False)),
            Route("/v1/operations", OnlyGet(self._operations)),
            Route("/v1/operations/{operation}", OnlyGet(self._operation)),
            *(
                []
                if self._commands is None
                else [Route("/v1/operations/{operation}/commands", self._commands)]
            ),
            Route("/openapi.json", OnlyGet(self._openapi)),
            Route("/healthz", OnlyGet(Health())),
            Route("/readyz", OnlyGet(self._readiness)),
            Route("/metrics", OnlyGet(self._metrics)),
        ]

    def start(self) -> None:
        """Begin to deliver, on the running loop: before the first request, when the host is up."""
        self.delivery.start()

    async def drain(self, timeout_s: float = 5.0) -> None:
        """Let everybody go: upgrades and streams are refused, what is owed is sent, then 1012.

        Before uvicorn is told to end: it would cut those who wait.
        """
        self._operation.drain()
        await asyncio.gather(self.feed.drain(timeout_s), self.streams.drain(timeout_s))

    async def stop(self) -> None:
        """Deliver no more."""
        await self.delivery.stop()

    def _samples(self) -> Iterable[Sample]:
        feed, streams = self.feed, self.streams
        yield (
            "otelprogress_feed_clients",
            "Clients of the feed",
            "gauge",
            {"transport": "websocket"},
            feed.client_count,
        )
        yield "otelprogress_feed_clients", "", "gauge", {"transport": "sse"}, streams.client_count
        stats = feed.stats
        yield (
            "otelprogress_feed_connections_total",
            "Feed connections opened",
            "counter",
            {},
            stats.connections,
        )
        yield "otelprogress_feed_refused_total", "Feed upgrades refused", "counter", {}, stats.refused
        yield (
            "otelprogress_feed_failures_total",
            "Faults of the feed",
            "counter",
            {},
            stats.failures + self.delivery.failures,
        )
        yield "otelprogress_feed_passes_total", "Passes over all readers", "counter", {}, self.delivery.passes
        if self._collect is not None:
            yield from self._collect()
