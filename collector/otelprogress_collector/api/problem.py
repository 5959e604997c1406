"""Refusals as RFC 9457 problem documents, for HTTP requests and for upgrades that are not made."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

MEDIA_TYPE: Final = "application/problem+json"
JSON: Final = "application/json"
_NEVER_STORED: Final = (b"cache-control", b"no-store")


class Problem(Exception):
    """A request that is not answered as it was meant.

    Args:
        status: of the answer.
        detail: for people: what is wrong and what to do; holds nothing the caller may not know.
        headers: further ones of the answer.
        **members: further members of the document.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def body(self) -> bytes:
        """The document."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
        }
        return msgspec.json.encode(document | self.members)

    async def answer(self, send: Send, *, upgrade: bool = False) -> None:
        """Send it.

        Args:
            send: of the ASGI application.
            upgrade: the request asked for a WebSocket.
        """
        await respond(
            send, self.body, status=self.status, media_type=MEDIA_TYPE, headers=self.headers, upgrade=upgrade
        )


async def respond(
    send: Send,
    body: bytes,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    media_type: str = JSON,
    headers: Mapping[str, str] | None = None,
    upgrade: bool = False,
) -> None:
    """Send a whole answer that nobody may store or take for another type."""
    raw = [
        (b"content-type", media_type.encode()),
        (b"content-length", b"%d" % len(body)),
        _NEVER_STORED,
        (b"x-content-type-options", b"nosniff"),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()),
    ]
    kind = "websocket.http" if upgrade else "http"
    await send({"type": f"{kind}.response.start", "status": int(status), "headers": raw})
    await send({"type": f"{kind}.response.body", "body": body})


def busy(detail: str, retry_after_s: int = 5) -> Problem:
    """503: come back in a moment."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(retry_after_s)})


class OnlyGet:
    """An ASGI application for `GET` (and `HEAD`, where it is no stream); other methods are a problem.

    Args:
        app: answers.
        head: whether it answers `HEAD` too.
    """

    def __init__(self, app: ASGIApp, *, head: bool = True) -> None:
        self._app = app
        self._methods = ("GET", "HEAD") if head else ("GET",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] in self._methods:
            await self._app(scope, receive, send)
        else:
            allowed = ", ".join(self._methods)
            refusal = Problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"what is here is read with {allowed}",
                headers={"Allow": allowed},
            )
            await refusal.answer(send)
