"""OTLP over HTTP: `POST /v1/traces`, `/v1/logs`, `/v1/metrics`, as Starlette routes.

Protobuf and JSON, plain or gzip, answered in the type of the request. There are no CORS headers, so that a page of
another site can send nothing: its JSON needs a preflight, which is 405 here, and its forms and plain text are 415.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from otelprogress_collector.receivers.admission import Authenticate, by_name
from otelprogress_collector.receivers.answers import (
    CONTENT_TYPES,
    HOST_NOT_ALLOWED,
    METHOD_NOT_ALLOWED,
    OUR_FAULT,
    TOO_SLOW,
    UNSUPPORTED_ENCODING,
    UNSUPPORTED_TYPE,
    Refusal,
    refusal_of,
    retry_after_header,
    status,
    success,
)
from otelprogress_collector.receivers.inflation import Inflater
from otelprogress_collector.receivers.ingest import Ingest
from otelprogress_collector.receivers.intake import Encoding, Signal, TooLarge
from otelprogress_collector.receivers.limits import DEFAULT_LIMITS, Limits
from otelprogress_collector.receivers.rate import InFlight, Reservation

_LOG: Final = logging.getLogger("otelprogress_collector.receivers.http")
SIGNALS: Final[tuple[Signal, ...]] = ("traces", "logs", "metrics")
_ENCODINGS: Final[dict[str, Encoding]] = {name: encoding for encoding, name in CONTENT_TYPES.items()} | {
    "application/protobuf": "protobuf"
}
_PLAIN: Final = frozenset({"", "identity"})
_MAX_DRAINED_BYTES: Final = 4 * 1024 * 1024
"""What is read and thrown away of a refused body, so that its sender gets to read the answer: a connection closed
on a sender who is still writing looks broken to it, and it sends all of it again. A body that was too large is
drained as far as one that is not, once more."""

HostAllowed = Callable[[str], bool]
"""Whether a Host header (`name:port`, as sent; empty: none) means this server."""


def routes(
    ingest: Ingest,
    authenticate: Authenticate,
    *,
    limits: Limits = DEFAULT_LIMITS,
    host_allowed: HostAllowed = lambda _: True,
) -> list[Route]:
    """The three routes.

    Args:
        ingest: takes what they receive.
        authenticate: judges the headers of a request before its body is read.
        limits: of a request, and of all that are under way.
        host_allowed: which Host headers are this server's: the guard against DNS rebinding.
    """
    in_flight = InFlight(limits.max_in_flight_bytes)
    return [
        Route(
            f"/v1/{signal}",
            _Endpoint(
                signal, ingest, authenticate, limits=limits, host_allowed=host_allowed, in_flight=in_flight
            ),
            name=f"otlp-{signal}",
            include_in_schema=False,
        )
        for signal in SIGNALS
    ]


class _Refused(Exception):
    def __init__(self, refusal: Refusal, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.headers = headers


class _Gone(Exception):
    """The sender closed the connection; there is nobody to answer."""


class _Body:
    """What is left of a request's body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True

    async def next(self) -> bytes:
        """The next part; empty at the end."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        self.more = message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def drain(self, most_bytes: int) -> None:
        """Throw the rest away, as far as `most_bytes`."""
        while self.more and most_bytes > 0:
            most_bytes -= len(await self.next())


class _Endpoint:
    """An ASGI application: one signal."""

    def __init__(
        self,
        signal: Signal,
        ingest: Ingest,
        authenticate: Authenticate,
        *,
        limits: Limits,
        host_allowed: HostAllowed,
        in_flight: InFlight,
    ) -> None:
        self._signal: Signal = signal
        self._ingest = ingest
        self._authenticate = authenticate
        self._limits = limits
        self._host_allowed = host_allowed
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = by_name(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        )
        encoding = _ENCODINGS.get(headers.get("content-type", "").partition(";")[0].strip().lower())
        body = _Body(receive)
        try:
            async with asyncio.timeout(self._limits.body_deadline_s) as deadline:
                try:
                    answer = await self._take(scope["method"], headers, encoding, body, deadline)
                except _Refused:
                    await body.drain(_MAX_DRAINED_BYTES)
                    raise
                except TooLarge:
                    await body.drain(self._limits.max_request_bytes)
                    raise
        except _Gone:
            return
        except _Refused as refused:
            await _refuse(send, refused.refusal, encoding, body, refused.headers)
        except TimeoutError:
            await _refuse(send, TOO_SLOW, encoding, body)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is OUR_FAULT:
                _LOG.exception("a request of %s was not taken", self._signal)
            extra = ((b"www-authenticate", b"Bearer"),) if refusal.http_status == 401 else ()
            await _refuse(send, refusal, encoding, body, extra)
        else:
            assert encoding is not None
            await _respond(send, 200, answer, encoding)

    async def _take(
        self,
        method: str,
        headers: dict[str, str],
        encoding: Encoding | None,
        body: _Body,
        deadline: asyncio.Timeout,
    ) -> bytes:
        if method != "POST":
            raise _Refused(METHOD_NOT_ALLOWED, (b"allow", b"POST"))
        if not self._host_allowed(headers.get("host", "")):
            raise _Refused(HOST_NOT_ALLOWED)
        if encoding is None:
            raise _Refused(UNSUPPORTED_TYPE)
        content_encoding = headers.get("content-encoding", "").strip().lower()
        if content_encoding != "gzip" and content_encoding not in _PLAIN:
            raise _Refused(UNSUPPORTED_ENCODING, (b"accept-encoding", b"gzip"))
        principal = await self._authenticate(headers)
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self._limits.max_request_bytes:
            raise TooLarge(f"a request may have {self._limits.max_request_bytes} bytes, not more")
        with self._in_flight.body() as room:
            whole = await self._read(body, room, inflate=content_encoding == "gzip")
            deadline.reschedule(None)  # from here on it is ours to be slow
            intake = await self._ingest.take(self._signal, whole, encoding, principal)
        return success(intake, encoding)

    async def _read(self, body: _Body, room: Reservation, *, inflate: bool) -> bytes:
        inflater = Inflater(self._limits.max_inflated_bytes) if inflate else None
        most = (
            self._limits.max_request_bytes
            if inflate
            else min(self._limits.max_request_bytes, self._limits.max_inflated_bytes)
        )
        received = 0
        parts: list[bytes] = []
        while body.more:
            part = await body.next()
            received += len(part)
            if received > most:
                raise TooLarge(f"a request may have {most} bytes, not more")
            if inflater is None:
                room.grow(len(part))
                parts.append(part)
                continue
            for piece in inflater.feed(part):
                room.grow(len(piece))
                parts.append(piece)
                await asyncio.sleep(0)
        if inflater is not None:
            if not received:
                return b""
            inflater.finish()
        return parts[0] if len(parts) == 1 else b"".join(parts)


async def _refuse(
    send: Send,
    refusal: Refusal,
    encoding: Encoding | None,
    body: _Body,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    extra = list(headers)
    if refusal.retry_after_s is not None:
        extra.append((b"retry-after", retry_after_header(refusal.retry_after_s).encode()))
    if body.more:
        extra.append((b"connection", b"close"))
    answered_in: Encoding = encoding or "json"  # whoever sends neither of the two is a person or a page
    await _respond(send, refusal.http_status, status(refusal, answered_in), answered_in, extra)


async def _respond(
    send: Send, code: int, body: bytes, encoding: Encoding, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": code,
            "headers": [
                (b"content-type", CONTENT_TYPES[encoding].encode()),
                (b"content-length", str(len(body)).encode()),
                (b"x-content-type-options", b"nosniff"),
                *(headers or ()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
