"""`/mcp` on the collector's port: the door, which is there from the start, and behind it what is loaded when it is first used.

In front of the SDK stand the collector's own lists of hosts and origins and its rule about where a token may stand, so
that they are the same for everything on the port. The SDK asks for the token, and the collector's authority judges it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from otelprogress.mcp.waits import Places
from otelprogress_collector.auth.admission import CollectorAdmission, Refusal, token_of
from otelprogress_collector.mcp.source import Commanding, HubSource

if TYPE_CHECKING:
    from otelprogress.mcp.starting import Starter
    from otelprogress_collector.auth.principal import Authority
    from otelprogress_collector.host import CollectorHost
    from otelprogress_collector.mcp.endpoint import Endpoint

PATH: Final = "/mcp"
_ENDPOINT: Final = "otelprogress_collector.mcp.endpoint"


class Mcp:
    """The MCP server of a collector.

    Args:
        host: what is served.
        authority: judges tokens.
        admission: judges the `Host` and `Origin` headers.
        commanding: takes commands.
        waits: at a time, of one principal.
        address: of this collector, `http://HOST:PORT`.
        no_auth: nobody needs a token.
        starter: of the commands that the operator listed; `None`: none were.
        version: told to clients.
    """

    def __init__(
        self,
        host: CollectorHost,
        authority: Authority,
        *,
        admission: CollectorAdmission,
        commanding: Commanding,
        waits: int,
        address: str,
        no_auth: bool,
        starter: Starter | None = None,
        version: str = "",
    ) -> None:
        self._authority = authority
        self._admission = admission
        self._settings: dict[str, Any] = {
            "address": address,
            "no_auth": no_auth,
            "starter": starter,
            "version": version,
        }
        self._source = HubSource(host, authority, commanding)
        self._places = Places(per_viewer=waits)
        self._opening = asyncio.Lock()
        self._endpoint: Endpoint | None = None
        self._draining = False

    @property
    def waits(self) -> int:
        """How many waits stand open."""
        return len(self._places)

    def routes(self) -> list[BaseRoute]:
        """For the application that serves the port."""
        return [Route(PATH, self)]

    def start(self) -> None:
        """Before the first request, on the running loop."""
        self._source.start()

    def drain(self) -> None:
        """Have those who wait answer, and take no more requests."""
        self._draining = True
        self._source.stop()

    async def stop(self) -> None:
        """End what is left."""
        if self._endpoint is not None:
            await self._endpoint.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = self._refusal(scope)
        if refusal is not None:
            answer = PlainTextResponse(refusal.text, refusal.status, headers={"Cache-Control": "no-store"})
            await answer(scope, receive, send)
            return
        await (await self._opened())(scope, receive, send)

    async def _opened(self) -> Endpoint:
        async with self._opening:
            if self._endpoint is None:
                # On a thread: everybody else is served meanwhile.
                module = await asyncio.to_thread(import_module, _ENDPOINT)
                endpoint: Endpoint = module.Endpoint(
                    self._source, self._authority, self._places, path=PATH, **self._settings
                )
                await endpoint.start()
                self._endpoint = endpoint
            return self._endpoint

    def _refusal(self, scope: Scope) -> Refusal | None:
        server = scope.get("server")
        refusal = self._admission.refusal(
            _values(scope, b"host"), _values(scope, b"origin"), arrived_at=server[0] if server else None
        )
        if refusal is None:
            _, refusal = token_of(_values(scope, b"authorization"), ())
            if refusal is not None and refusal.status is HTTPStatus.UNAUTHORIZED:
                refusal = None  # the SDK says what is asked for
        if refusal is None and self._draining:
            refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The collector ends or restarts.\n")
        return refusal


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
