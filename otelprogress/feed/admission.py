"""Who may open a connection: Host and Origin lists, and the token in its three places.

The lists are exact strings on purpose: suffix and prefix rules are how cross-site hijacking and DNS rebinding
get in. Everything here is decided before the upgrade, from the request alone.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final

import msgspec

FEED_PATH: Final = "/v1/feed"
WORKER_PATH: Final = "/v1/worker"
BEARER_ITEM_PREFIX: Final = "otelprogress.bearer."
"""A browser cannot set headers; it offers its token as a second subprotocol, base64url without padding."""
MAX_TOKEN_CHARS: Final = 4_096
_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, never bound


class Refusal(msgspec.Struct, frozen=True):
    """An answer instead of the upgrade."""

    status: HTTPStatus
    text: str


def token_matches(expected: str, offered: str | None) -> bool:
    """Compare in constant time; `None` never matches, nor does an empty expectation."""
    if not expected or offered is None:
        return False
    return hmac.compare_digest(
        expected.encode("utf-8", "surrogatepass"), offered.encode("utf-8", "surrogatepass")
    )


def bearer_item(token: str) -> str:
    """The subprotocol item that carries `token`."""
    return BEARER_ITEM_PREFIX + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def token_of(authorization: Sequence[str], protocols: Sequence[str]) -> tuple[str | None, Refusal | None]:
    """The token of a request; `(None, None)` when it carries none (the `hello` has to).

    Args:
        authorization: the values of all `Authorization` headers.
        protocols: the values of all `Sec-WebSocket-Protocol` headers.

    Returns:
        The token, or the refusal of a request that says it twice or in a way that cannot be read.
    """
    found: list[str] = []
    for value in authorization:
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None, Refusal(
                HTTPStatus.UNAUTHORIZED, "Authorization: Bearer <token> is what this feed reads.\n"
            )
        found.append(token.strip())
    for value in protocols:
        for item in value.split(","):
            name = item.strip()
            if name.startswith(BEARER_ITEM_PREFIX):
                encoded = name[len(BEARER_ITEM_PREFIX) :]
                try:
                    found.append(
                        base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode()
                    )
                except (binascii.Error, UnicodeDecodeError, ValueError):
                    return None, Refusal(
                        HTTPStatus.BAD_REQUEST, "The bearer subprotocol item is not base64url.\n"
                    )
    if len(found) > 1:
        return None, Refusal(HTTPStatus.BAD_REQUEST, "One token, in one place.\n")
    if found and len(found[0]) > MAX_TOKEN_CHARS:
        return None, Refusal(HTTPStatus.UNAUTHORIZED, "No token is that long.\n")
    return (found[0] if found else None), None


class Admission:
    """The exact allow-lists of one listening address.

    Args:
        bind: the address that is listened on.
        port: the port that is listened on.
        hosts: further values of the `Host` header, each `name` or `name:port`.
        origins: further values of the `Origin` header, each `scheme://name[:port]`. Requests without an
            `Origin` (programs) always pass; `null` never does.
        scheme: of the pages that are served here: `http` or `https`.
    """

    def __init__(
        self,
        bind: str,
        port: int,
        *,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        scheme: str = "http",
    ) -> None:
        names = {"localhost", "127.0.0.1", "[::1]"}
        if bind not in _ANY_ADDRESS:
            names.add(f"[{bind}]" if ":" in bind else bind.lower())
        self.hosts = frozenset({f"{name}:{port}" for name in names} | {host.lower() for host in hosts})
        self.origins = frozenset(
            {f"{scheme}://{name}:{port}" for name in names}
            | {origin.lower() for origin in origins} - {"null", ""},
        )

    def refusal(self, path: str, hosts: Sequence[str], origins: Sequence[str]) -> Refusal | None:
        """Why this request is not let in; `None`: it may go on to the upgrade.

        Args:
            path: the request target, as it was sent.
            hosts: the values of all `Host` headers.
            origins: the values of all `Origin` headers.
        """
        refusal = self.refusal_of_headers(hosts, origins)
        if refusal is None and path.partition("?")[0] not in (FEED_PATH, WORKER_PATH):
            refusal = Refusal(HTTPStatus.NOT_FOUND, f"The feed is at {FEED_PATH}.\n")
        return refusal

    def refusal_of_headers(self, hosts: Sequence[str], origins: Sequence[str]) -> Refusal | None:
        """`refusal` for whoever serves other paths too."""
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return Refusal(HTTPStatus.FORBIDDEN, "This feed does not answer to that Host.\n")
        if len(origins) > 1 or (origins and origins[0].lower() not in self.origins):
            return Refusal(HTTPStatus.FORBIDDEN, "This feed does not answer pages of that Origin.\n")
        return None
