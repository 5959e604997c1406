"""The collector's tokens as the MCP SDK judges them, and the caller that a request of it comes from."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final

from mcp.server import ServerRequestContext
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.trace_context import traceparent_of
from otelprogress_collector.auth.principal import READ, Authority, Denied, Principal
from otelprogress_collector.mcp.source import CollectorViewer

if TYPE_CHECKING:
    from otelprogress.feed.clock import Clock

_CONNECTION: Final = "otelprogress.connection"
"""Where an ASGI application finds its connection among the extensions of a scope (`api.http_protocol`)."""


class CollectorToken(AccessToken):
    """A token that was judged."""

    principal: Any


class Tokens:
    """The SDK's `TokenVerifier` over the collector's authority.

    Args:
        authority: judges.
        clock: by which tokens expire.
    """

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose it is; `None`: nobody's who is known."""
        await self._authority.prepare(token)
        try:
            principal = self._authority.judge(token, self._clock.time_unix_ns() / 1e9)
        except Denied:
            return None
        if self._authority.revoked(principal):
            return None
        expires_at_s = principal.expires_at_unix_s
        return CollectorToken(
            # The SDK binds sessions of the older era to this, and may log it: not the token itself.
            token="",
            client_id=key_of(principal),
            scopes=sorted(principal.scopes),
            expires_at=None if expires_at_s is None else math.ceil(expires_at_s),
            subject=principal.actor,
            principal=principal,
        )

    def viewer_of(self, context: ServerRequestContext[Any, Any]) -> CollectorViewer:
        """Who sends a request.

        Raises:
            Refusal: nobody who may read.
        """
        request = context.request
        scope = {} if request is None else request.scope
        user = scope.get("user")
        if isinstance(user, AuthenticatedUser) and isinstance(user.access_token, CollectorToken):
            principal: Principal = user.access_token.principal
        else:
            try:
                # Without tokens everybody is somebody.
                principal = self._authority.judge(None, self._clock.time_unix_ns() / 1e9)
            except Denied as denied:
                raise Refusal(f"forbidden: {denied}") from None
        if READ not in principal.scopes:
            raise Refusal(f"forbidden: the token lacks the scope {READ}")
        connection = scope.get("extensions", {}).get(_CONNECTION)
        return CollectorViewer(
            actor=principal.actor,
            key=key_of(principal),
            scopes=principal.scopes,
            traceparent=traceparent_of(context.meta),
            principal=principal,
            gone=bool if connection is None else connection.transport.is_closing,
        )


def key_of(principal: Principal) -> str:
    """What tells one principal from another: who it is, and what it may see."""
    said = (
        principal.tenant,
        principal.actor,
        principal.token_id,
        principal.credential,
        sorted(principal.services),
        sorted(principal.scopes),
    )
    return hashlib.blake2b(repr(said).encode(), digest_size=12).hexdigest()
