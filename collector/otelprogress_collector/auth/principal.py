"""What a token allows, once it was judged."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from otelprogress.model.text import clean
from otelprogress.protocol.messages import Filter

READ: Final = "progress:read"
WRITE: Final = "progress:write"
CONTROL: Final = "progress:control"
RESPOND: Final = "progress:respond"
START: Final = "progress:start"
SCOPES: Final = frozenset({READ, WRITE, CONTROL, RESPOND, START})
MAX_TENANT_CHARS: Final = 128
MAX_SERVICES: Final = 64
"""That one token may name."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and what it may."""

    actor: str
    """Who that is, for audits and limits: the subject of a JWT, the name of a static token."""
    scopes: frozenset[str]
    tenant: str = ""
    services: tuple[str, ...] = ()
    """`service.name`s it may write and read; empty: all of the tenant."""
    tenant_from: str | None = None
    """A gateway's token: the resource attribute that names the tenant of what it sends."""
    expires_at_unix_s: float | None = None
    """`None`: never."""
    token_id: str = ""
    """`jti` of a JWT, the name of a static token: what a deny-list names. Empty: a JWT without one."""
    credential: str = ""
    """Which static token proved it: the public part, so that one that is taken out of its file, or made again under
    the same name, counts as revoked on open connections too. Empty: no static token."""

    @property
    def predicate(self) -> Filter | None:
        """What may be seen at all, as `protocol.Grant` wants it."""
        if not self.services:
            return None
        # In one order: a renewed token that lists the same services otherwise has the same rights, and its cursors count.
        return Filter(service=tuple(sorted(set(self.services))), roots=False)


class Denied(Exception):
    """The token is missing, wrong, expired or revoked; the message says which, and never quotes the token."""


class Authority(Protocol):
    """Judges tokens."""

    required_for_ingest: bool
    """Whether OTLP without a token is refused."""

    def judge(self, token: str | None, now_unix_s: float) -> Principal:
        """Who that is. Compares in constant time; does no I/O.

        Raises:
            Denied: nobody that is known.
        """

    async def prepare(self, token: str | None) -> None:
        """Fetch what `judge` will need for this token (a key by URL), within a deadline; never raises."""

    def revoked(self, principal: Principal) -> bool:
        """Whether the deny-list names it by now. Cheap enough to be asked before each subscription and command."""


def is_tenant(text: str) -> bool:
    """Whether a tenant can be called that: 1 to 128 printable characters, none of them white space at an end."""
    return bool(text) and clean(text, MAX_TENANT_CHARS) == text
