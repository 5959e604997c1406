"""Who asks, and what that one may see: one door for WebSocket, SSE and REST."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

from starlette.types import Scope

from otelprogress.feed.clock import Clock
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import Filter
from otelprogress.protocol.server_session import Authorize
from otelprogress.protocol.session import Grant
from otelprogress_collector.api.problem import Problem
from otelprogress_collector.auth.admission import CollectorAdmission, token_of
from otelprogress_collector.auth.grants import PrincipalGrant, authorizer, grant_of
from otelprogress_collector.auth.principal import READ, Authority, Denied, Principal
from otelprogress_collector.auth.rate import RateLimits

_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class Access:
    """Judges requests.

    Args:
        authority: judges tokens.
        clock: by which they expire.
        admission: judges `Host` and `Origin`.
        rate_limits: of HTTP requests; `None`: none.
    """

    def __init__(
        self,
        authority: Authority,
        clock: Clock,
        admission: CollectorAdmission,
        rate_limits: RateLimits | None = None,
    ) -> None:
        self.authority = authority
        self.clock = clock
        self._admission = admission
        self._rate_limits = rate_limits

    def admit(self, scope: Scope) -> None:
        """Let a request in by where it was sent to and by which page.

        Raises:
            Problem: 403.
        """
        server = scope.get("server")
        refusal = self._admission.refusal(
            header_values(scope, b"host"),
            header_values(scope, b"origin"),
            arrived_at=server[0] if server else None,
        )
        if refusal is not None:
            raise Problem(refusal.status, refusal.text.strip())

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

    def is_good(self, token: str | None) -> bool:
        """Whether a token, for which the authority was prepared, is anybody's who may read."""
        if token is None:
            return False
        try:
            principal = self.authority.judge(token, self.clock.time_unix_ns() / 1e9)
        except Denied:
            return False
        return READ in principal.scopes and not self.authority.revoked(principal)

    async def reader(self, scope: Scope) -> Principal:
        """Who sends this HTTP request, which wants to read.

        Raises:
            Problem: 401, 403 or 429.
        """
        self.admit(scope)
        token = self.token(scope)
        await self.authority.prepare(token)
        try:
            principal = self.authority.judge(token, self.clock.time_unix_ns() / 1e9)
        except Denied as denied:
            self._limit(scope, "")
            raise Problem(HTTPStatus.UNAUTHORIZED, str(denied), headers=_CHALLENGE) from None
        self._limit(scope, principal.token_id or principal.actor)
        if READ not in principal.scopes:
            raise Problem(HTTPStatus.FORBIDDEN, f"the token lacks the scope {READ}")
        self.still(principal)
        return principal

    def _limit(self, scope: Scope, token_id: str) -> None:
        if self._rate_limits is None:
            return
        client = scope.get("client")
        retry_after_s = self._rate_limits.retry_after_s(
            self.clock.monotonic_s(), address=client[0] if client else "", token_id=token_id
        )
        if retry_after_s > 0:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many requests",
                headers={"Retry-After": str(math.ceil(retry_after_s))},
            )

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

    def grant(self, principal: Principal) -> PrincipalGrant:
        """What a principal that was just judged may see, and how long, by the monotonic clock."""
        return grant_of(
            principal,
            now_unix_s=self.clock.time_unix_ns() / 1e9,
            now_monotonic_s=self.clock.monotonic_s(),
        )

    def authorizer(self) -> Authorize:
        """What a `ServerSession` asks; `prepare` comes before."""
        return authorizer(self.authority, self.clock)

    def revoked(self, grant: Grant | None) -> bool:
        """Whether the deny-list names by now whom a session was opened for."""
        return isinstance(grant, PrincipalGrant) and self.authority.revoked(grant.principal)


def header_values(scope: Scope, name: bytes) -> list[str]:
    """All values of a header, as they were sent."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def matcher_of(principal: Principal, wanted: Filter) -> Matcher:
    """A filter under what may be seen at all.

    Raises:
        InvalidValue: a clause that cannot be meant.
    """
    return Matcher(wanted, tenant=principal.tenant, predicate=principal.predicate)
