"""OTLP over HTTP: the bytes as they were received, protobuf or JSON.

Retryable are 429, 502, 503 and 504 only, and a connection that cannot be made, breaks, or takes too long (OTLP
specification, "OTLP/HTTP Response"). 404 and 405 mean that nobody takes this signal there.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import ssl
import time
from typing import Final

import aiohttp
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types

from otelprogress.exceptions import InvalidValue
from otelprogress.otel.target import Signal
from otelprogress.otel.transport import DELIVERED, Answer, Verdict, rejected_of
from otelprogress.otel.transport_http import retry_after_s
from otelprogress_collector.exporters.backend import BackendConfig
from otelprogress_collector.exporters.framing import Encoding

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_UNSUPPORTED: Final = frozenset({404, 405})
_CONTENT_TYPES: Final[dict[Encoding, str]] = {
    "protobuf": "application/x-protobuf",
    "json": "application/json",
}
_MAX_ANSWER_BYTES: Final = 64 * 1024
"""An answer is a small message. A backend that goes on is cut off."""
_MAX_ANSWER_S: Final = 2.0
"""So long after its first line an answer has to end: with that line the fate of the request is known."""
_LARGE_BYTES: Final = 256 * 1024
"""From here on compressing takes so long that it goes to a thread."""
_MAX_WHOLE_BYTES: Final = 1024 * 1024
"""Larger bodies are written in pieces, or writing them would hold the event loop."""


class HttpSender:
    """One session, kept alive. Redirects are not followed, cookies not kept, answers not inflated.

    Raises:
        InvalidValue: TLS files that are not what they should be.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._urls = {signal: config.url_of(signal) for signal in config.signals}
        headers = {
            "user-agent": "otelprogress-collector",
            "accept-encoding": "identity",
            **dict(config.headers),
        }
        if config.gzip:
            headers["content-encoding"] = "gzip"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the couriers bound what is in flight
                ssl=_tls(config) if config.secure else True,
            ),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=config.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=config.proxy_from_env,
            read_bufsize=_MAX_ANSWER_BYTES,
        )

    async def send(self, signal: Signal, body: bytes, encoding: Encoding) -> Answer:
        """See `Sender.send`."""
        try:
            async with self._session.post(
                self._urls[signal],
                data=await self._payload(body),
                headers={"content-type": _CONTENT_TYPES[encoding]},
                allow_redirects=False,
            ) as response:
                answered = await _read_capped(response)
                return self._answer(signal, response, answered)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _failure(error)

    async def _payload(self, body: bytes) -> bytes | io.BytesIO:
        if self._config.gzip:
            # Without a time in it, so that the same body is the same bytes again.
            if len(body) < _LARGE_BYTES:
                body = gzip.compress(body, 1, mtime=0)
            else:
                body = await asyncio.to_thread(gzip.compress, body, 1, mtime=0)
        return body if len(body) <= _MAX_WHOLE_BYTES else io.BytesIO(body)

    def _answer(self, signal: Signal, response: aiohttp.ClientResponse, answered: bytes) -> Answer:
        status = response.status
        protobuf = response.headers.get("content-type", "").startswith("application/x-protobuf")
        if 200 <= status < 300:
            rejected, why = rejected_of(signal, answered) if protobuf else (0, "")
            if rejected > 0:
                reason = f"partial success: {self._config.quoted(why)}"
                return Answer(Verdict.DELIVERED, reason, rejected=rejected)
            return DELIVERED
        reason = f"HTTP {status}"
        if protobuf and (message := _message_of(answered)):
            reason += f": {self._config.quoted(message)}"
        if status in _UNSUPPORTED:
            return Answer(Verdict.UNSUPPORTED, reason)
        if status in _RETRYABLE:
            asked_s = retry_after_s(response.headers.get("retry-after"), time.time())
            return Answer(Verdict.RETRY, reason, asked_s)
        return Answer(Verdict.REFUSED, reason)

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._session.close()


def _failure(error: Exception) -> Answer:
    """What a connection came to that brought no answer; what the error itself says may quote the URL."""
    reason = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        return Answer(Verdict.RETRY, f"{reason}: {_cause(error)}", reached=False)
    # A connection that broke was one: the backend restarts, or closed an idle connection just now.
    return Answer(Verdict.RETRY, reason, reached=not isinstance(error, TimeoutError))


def _cause(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not to be trusted"
    cause = error.os_error
    if isinstance(cause, ssl.SSLError):
        return cause.reason or "TLS"
    if cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return cause.strerror or type(cause).__name__


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer to its end, the cap or the deadline; only a whole one counts, whatever its first line says."""
    read = bytearray()
    try:
        async with asyncio.timeout(_MAX_ANSWER_S):
            async for piece in response.content.iter_any():
                read += piece
                if len(read) > _MAX_ANSWER_BYTES:
                    response.close()
                    return b""
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()
        return b""
    return bytes(read)


def _message_of(answered: bytes) -> str:
    """What a `Status`, the body of errors in OTLP, says."""
    try:
        message: str = Status.FromString(answered).message
    except DecodeError:
        return ""
    return message


def _tls(config: BackendConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file, password="")
    except (OSError, ssl.SSLError) as error:
        raise InvalidValue(
            f"backend {config.name!r}: its TLS files are not to be used: {type(error).__name__}"
            f"{f', {error.strerror}' if error.strerror else ''}"
        ) from error
    return context
