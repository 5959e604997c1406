"""`/mcp`: the MCP server on the collector's port, streamable HTTP, both eras of the protocol.

In front of the SDK stand the collector's own lists of hosts and origins and its rule about where a token may stand, so
that they are the same for everything on the port. The SDK asks for the token, and the collector's authority judges it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from otelprogress.mcp.calls import Calls
from otelprogress.mcp.server import build_server
from otelprogress.mcp.starting import Starter
from otelprogress.mcp.waits import Places
from otelprogress_collector.auth.admission import CollectorAdmission, Refusal, token_of
from otelprogress_collector.auth.principal import READ, Authority
from otelprogress_collector.mcp.source import HubSource, Submit
from otelprogress_collector.mcp.tokens import Tokens

if TYPE_CHECKING:
    from otelprogress_collector.host import CollectorHost

PATH: Final = "/mcp"
MAX_REQUEST_BYTES: Final = 256 * 1024
MAX_SESSIONS: Final = 1_000
"""Of the older era, which has some."""
SESSION_IDLE_S: Final = 900.0


class Mcp:
    """The MCP endpoint.

    Args:
        host: what is served.
        authority: judges tokens.
        admission: judges the `Host` and `Origin` headers.
        submit: takes commands.
        address: of this collector, `http://HOST:PORT`.
        no_auth: nobody needs a token.
        waits: at a time, of one principal.
        starter: of the commands that the operator listed; `None`: none were.
        version: told to clients.
    """

    def __init__(
        self,
        host: CollectorHost,
        authority: Authority,
        *,
        admission: CollectorAdmission,
        submit: Submit,
        address: str,
        no_auth: bool,
        waits: int,
        starter: Starter | None = None,
        version: str = "",
    ) -> None:
        tokens = Tokens(authority, host.clock)
        self._admission = admission
        self._source = HubSource(host, authority, submit)
        self._places = Places(per_viewer=waits)
        server = build_server(
            Calls(self._source, starter=starter, places=self._places), tokens.viewer_of, version=version
        )
        self._app = server.streamable_http_app(
            streamable_http_path=PATH,
            max_request_body_size=MAX_REQUEST_BYTES,
            max_sessions=MAX_SESSIONS,
            session_idle_timeout=SESSION_IDLE_S,
            # The lists of this port were asked before.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            auth=None
            if no_auth
            else AuthSettings(
                issuer_url=AnyHttpUrl(address), resource_server_url=None, required_scopes=[READ]
            ),
            token_verifier=None if no_auth else tokens,
        )
        self._sessions = server.session_manager
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._draining = False

    @property
    def waits(self) -> int:
        """How many waits stand open."""
        return len(self._places)

    def routes(self) -> list[BaseRoute]:
        """For the application that serves the port."""
        return [Route(PATH, self)]

    async def start(self) -> None:
        """Before the first request, on the running loop."""
        self._source.start()
        started = asyncio.Event()
        self._task = asyncio.create_task(self._run(started), name="otelprogress-mcp")
        await started.wait()

    async def _run(self, started: asyncio.Event) -> None:
        # A task group has to be left by the task that entered it, whoever calls `stop`.
        async with self._sessions.run():
            started.set()
            await self._ended.wait()

    def drain(self) -> None:
        """Have those who wait answer, and take no more requests."""
        self._draining = True
        self._source.stop()

    async def stop(self) -> None:
        """End what is left."""
        self._ended.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = self._refusal(scope)
        if refusal is not None:
            answer = PlainTextResponse(refusal.text, refusal.status, headers={"Cache-Control": "no-store"})
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        server = scope.get("server")
        refusal = self._admission.refusal(
            _values(scope, b"host"), _values(scope, b"origin"), arrived_at=server[0] if server else None
        )
        if refusal is None:
            _, refusal = token_of(_values(scope, b"authorization"), ())
            if refusal is not None and refusal.status is HTTPStatus.UNAUTHORIZED:
                refusal = None  # the SDK says how to log in
        if refusal is None and self._draining:
            refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The collector ends or restarts.\n")
        return refusal


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
