"""What answers on `/mcp`: the SDK's streamable HTTP server for both eras of the protocol. Loading it takes a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.types import Receive, Scope, Send

from otelprogress.mcp.calls import Calls
from otelprogress.mcp.server import build_server
from otelprogress_collector.auth.principal import READ
from otelprogress_collector.mcp.tokens import Tokens

if TYPE_CHECKING:
    from otelprogress.mcp.starting import Starter
    from otelprogress.mcp.waits import Places
    from otelprogress_collector.auth.principal import Authority
    from otelprogress_collector.mcp.source import HubSource

MAX_REQUEST_BYTES: Final = 256 * 1024
MAX_SESSIONS: Final = 1_000
"""Of the older era, which has some."""
SESSION_IDLE_S: Final = 900.0


class Endpoint:
    """An ASGI application; see the module.

    Args:
        source: of operations.
        authority: judges tokens.
        places: of waits.
        path: where it is served.
        address: of this collector, `http://HOST:PORT`.
        no_auth: nobody needs a token.
        starter: of the commands that the operator listed; `None`: none were.
        version: told to clients.
    """

    def __init__(
        self,
        source: HubSource,
        authority: Authority,
        places: Places,
        *,
        path: str,
        address: str,
        no_auth: bool,
        starter: Starter | None,
        version: str,
    ) -> None:
        tokens = Tokens(authority, source.host.clock)
        calls = Calls(source, starter=starter, places=places)
        server = build_server(calls, tokens.viewer_of, version=version)
        self._app = server.streamable_http_app(
            streamable_http_path=path,
            max_request_body_size=MAX_REQUEST_BYTES,
            max_sessions=MAX_SESSIONS,
            session_idle_timeout=SESSION_IDLE_S,
            # The lists of this port were asked before (`mount.Mcp`).
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

    async def start(self) -> None:
        """Before the first request, on the running loop."""
        started = asyncio.Event()
        self._task = asyncio.create_task(self._run(started), name="otelprogress-mcp")
        await started.wait()

    async def _run(self, started: asyncio.Event) -> None:
        # A task group has to be left by the task that entered it, whoever calls `stop`.
        async with self._sessions.run():
            started.set()
            await self._ended.wait()

    async def stop(self) -> None:
        """End what is left."""
        self._ended.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._app(scope, receive, send)
