"""From whoever a token makes of its bearer to what `ServerSession` asks: may this connection go on, what may it see?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from otelprogress.feed.clock import Clock
from otelprogress.protocol.messages import Limits
from otelprogress.protocol.session import Grant
from otelprogress_collector.auth.principal import Authority, Denied, Principal

_MAX_FRAME_BYTES: Final = Limits().client_frame_bytes


class PrincipalGrant(Grant, frozen=True, kw_only=True):
    """A grant that knows whose it is: `session.grant.principal` is what `Authority.revoked` wants.

    A renewal that the session accepts brings a new grant, one that it refuses leaves the old one.
    """

    principal: Principal


def grant_of(principal: Principal, *, now_unix_s: float, now_monotonic_s: float) -> PrincipalGrant:
    """What a principal may do on a connection.

    Args:
        principal: as it was judged at `now_unix_s`.
        now_unix_s: the wall clock, which the token's expiry is told in.
        now_monotonic_s: the session's clock at the same moment. The deadline is kept by it, so that a wall clock which
            is set meanwhile neither prolongs nor cuts a connection.
    """
    expires_at = principal.expires_at_unix_s
    return PrincipalGrant(
        tenant=principal.tenant,
        scopes=principal.scopes,
        predicate=principal.predicate,
        expires_at_s=None if expires_at is None else now_monotonic_s + (expires_at - now_unix_s),
        actor=principal.actor,
        principal=principal,
    )


def authorizer(
    authority: Authority,
    clock: Clock,
    *,
    on_denied: Callable[[str], None] | None = None,
) -> Callable[[str | None], PrincipalGrant | None]:
    """What `ServerSession(authorize=…)` takes: judges at the clock's time, and never raises for a token.

    Await `authority.prepare(token_in_frame(frame))` before a frame is given to the session.

    Args:
        authority: judges.
        clock: whose `monotonic_s` is the session's `now_s`.
        on_denied: gets the reason, which quotes nothing of the token.
    """

    def authorize(token: str | None) -> PrincipalGrant | None:
        now_unix_s = clock.time_unix_ns() / 1e9
        try:
            principal = authority.judge(token, now_unix_s)
        except Denied as denied:
            if on_denied is not None:
                on_denied(str(denied))
            return None
        return grant_of(principal, now_unix_s=now_unix_s, now_monotonic_s=clock.monotonic_s())

    return authorize


class _MayCarryToken(msgspec.Struct):
    type: str = ""
    token: str | None = None


_DECODER: Final = msgspec.json.Decoder(_MayCarryToken)


def token_in_frame(frame: str | bytes) -> str | None:
    """The token in a client's `hello` or `auth`; `None`: another frame, or one that the session will refuse.

    For `Authority.prepare` only: nothing is judged here.
    """
    if len(frame) > _MAX_FRAME_BYTES:
        return None
    try:
        message = _DECODER.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return message.token if message.type in {"hello", "auth"} else None
