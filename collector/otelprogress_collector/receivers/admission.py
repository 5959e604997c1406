"""Who may send: the token of a request, judged before its body is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from otelprogress_collector.auth.authority import ANONYMOUS_WRITER
from otelprogress_collector.auth.principal import WRITE, Authority, Denied, Principal

Authenticate = Callable[[Mapping[str, str]], Awaitable[Principal]]
"""The headers of an HTTP request, or the metadata of a gRPC call, with names in lower case: who sends it.

Raises `Denied`: nobody that is known; `Forbidden`: somebody who may not write.
"""


class Forbidden(Exception):
    """The token is good but does not allow writing."""


def authenticate_with(authority: Authority, unix_time_s: Callable[[], float]) -> Authenticate:
    """Judge `authorization: Bearer …` (or the token alone) by an authority.

    Args:
        authority: judges tokens.
        unix_time_s: the clock that tokens expire by.
    """

    async def authenticate(headers: Mapping[str, str]) -> Principal:
        token = bearer_of(headers)
        if token is None and not authority.required_for_ingest:
            return ANONYMOUS_WRITER
        await authority.prepare(token)
        principal = authority.judge(token, unix_time_s())
        if authority.revoked(principal):
            raise Denied("the token was revoked")
        if WRITE not in principal.scopes:
            raise Forbidden(f"the token lacks the scope {WRITE}")
        return principal

    return authenticate


def bearer_of(headers: Mapping[str, str]) -> str | None:
    """The token of a request; `None`: it has none.

    A token may stand alone, without a scheme: Logfire's exporters send theirs so.

    Raises:
        Denied: an `authorization` that is no bearer token.
    """
    said = headers.get("authorization")
    if said is None:
        return None
    scheme, _, token = said.strip().partition(" ")
    if scheme.lower() == "bearer":
        token = token.strip()
    elif not token:
        token = scheme
    else:
        token = ""
    if not token:
        raise Denied("authorization must be a bearer token")
    return token


def by_name(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers or metadata by name, in lower case; those that come twice are joined, as HTTP has it.

    So neither of two overrules the other: two tokens are no token, two hosts no host.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found
