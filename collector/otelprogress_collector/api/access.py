"""Who asks, and what that one may see: one door for WebSocket, SSE and REST."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from starlette.types import Scope

from otelprogress.feed.admission import token_of
from otelprogress.feed.clock import Clock
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import Filter
from otelprogress.protocol.session import Grant
from otelprogress_collector.api.problem import Problem
from otelprogress_collector.auth.principal import READ, Authority, Denied, Principal

Admits = Callable[[Sequence[str], Sequence[str]], str | None]
"""Given the values of all `Host` and all `Origin` headers: why such a request is not let in; `None`: it is."""

_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class Access:
    """Judges requests.

    Args:
        authority: judges tokens.
        clock: by which they expire.
        admits: judges `Host` and `Origin`.
    """

    def __init__(self, authority: Authority, clock: Clock, admits: Admits) -> None:
        self.authority = authority
        self.clock = clock
        self._admits = admits

    def admit(self, scope: Scope) -> None:
        """Let a request in by where it was sent to and by which page.

        Raises:
            Problem: 403.
        """
        refusal = self._admits(header_values(scope, b"host"), header_values(scope, b"origin"))
        if refusal is not None:
            raise Problem(HTTPStatus.FORBIDDEN, refusal)

    def token(self, scope: Scope) -> str | None:
        """What a request shows, unjudged; `None`: nothing.

        Raises:
            Problem: it shows two, or one that cannot be read.
        """
        protocols = header_values(scope, b"sec-websocket-protocol") if scope["type"] == "websocket" else ()
        token, refusal = token_of(header_values(scope, b"authorization"), protocols)
        if refusal is not None:
            headers = _CHALLENGE if refusal.status is HTTPStatus.UNAUTHORIZED else None
            raise Problem(refusal.status, refusal.text.strip(), headers=headers)
        return token

    async def reader(self, scope: Scope) -> Principal:
        """Who sends this HTTP request, which wants to read.

        Raises:
            Problem: 401 or 403.
        """
        self.admit(scope)
        token = self.token(scope)
        await self.authority.prepare(token)
        try:
            principal = self.authority.judge(token, self.clock.time_unix_ns() / 1e9)
        except Denied as denied:
            raise Problem(HTTPStatus.UNAUTHORIZED, str(denied), headers=_CHALLENGE) from None
        if READ not in principal.scopes:
            raise Problem(HTTPStatus.FORBIDDEN, f"the token lacks the scope {READ}")
        self.still(principal)
        return principal

    def still(self, principal: Principal) -> None:
        """Look again at one that was let in before.

        Raises:
            Problem: 401, the token has expired or was revoked meanwhile.
        """
        expires_at_s = principal.expires_at_unix_s
        if expires_at_s is not None and self.clock.time_unix_ns() / 1e9 >= expires_at_s:
            raise Problem(HTTPStatus.UNAUTHORIZED, "the token expired", headers=_CHALLENGE)
        if self.authority.revoked(principal):
            raise Problem(HTTPStatus.UNAUTHORIZED, "the token was revoked", headers=_CHALLENGE)

    def expires_at_s(self, principal: Principal) -> float | None:
        """When that is, by the monotonic clock; `None`: never."""
        if principal.expires_at_unix_s is None:
            return None
        left_s = principal.expires_at_unix_s - self.clock.time_unix_ns() / 1e9
        return self.clock.monotonic_s() + left_s

    def grant(self, principal: Principal) -> Grant:
        """What a feed session may show it."""
        return Grant(
            tenant=principal.tenant,
            scopes=principal.scopes,
            predicate=principal.predicate,
            expires_at_s=self.expires_at_s(principal),
            actor=principal.actor,
        )

    def visitor(self) -> Visitor:
        """For one feed connection."""
        return Visitor(self)


class Visitor:
    """Who is at the other end of one connection, once it has shown a token."""

    __slots__ = ("_access", "principal")

    def __init__(self, access: Access) -> None:
        self._access = access
        self.principal: Principal | None = None
        """The last one whose token was accepted."""

    def authorize(self, token: str | None) -> Grant | None:
        """What `ServerSession` asks; the authority was prepared for the token before."""
        access = self._access
        try:
            principal = access.authority.judge(token, access.clock.time_unix_ns() / 1e9)
        except Denied:
            return None
        if access.authority.revoked(principal):
            return None
        self.principal = principal
        return access.grant(principal)

    @property
    def revoked(self) -> bool:
        """Whether the deny-list names it by now."""
        return self.principal is not None and self._access.authority.revoked(self.principal)


def header_values(scope: Scope, name: bytes) -> list[str]:
    """All values of a header, as they were sent."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def matcher_of(principal: Principal, wanted: Filter) -> Matcher:
    """A filter under what may be seen at all.

    Raises:
        InvalidValue: a clause that cannot be meant.
    """
    return Matcher(wanted, tenant=principal.tenant, predicate=principal.predicate)
