"""OTLP over HTTP with protobuf bodies.

Retryable are 429, 502, 503 and 504 only, and a connection that cannot be made or breaks (OTLP specification,
"OTLP/HTTP Response"). 404 and 405 mean that nobody takes this signal there.
"""

from __future__ import annotations

import contextlib
import gzip
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import requests
from urllib3.exceptions import ProtocolError

from otelprogress.otel.target import OtlpEndpoint, Signal
from otelprogress.otel.transport import DELIVERED, Answer, Verdict, bearer, rejected_of

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_UNSUPPORTED: Final = frozenset({404, 405})
_MAX_ANSWER_BYTES: Final = 64 * 1024
"""An answer is a small protobuf message. A receiver that goes on is cut off."""


class HttpTransport:
    """One keep-alive session to one signal's URL. Redirects are not followed, proxies are the environment's."""

    def __init__(self, endpoint: OtlpEndpoint, signal: Signal = "logs") -> None:
        self._endpoint = endpoint
        self._signal: Signal = signal
        self._session = requests.Session()
        if endpoint.client_certificate:
            self._session.cert = (
                (endpoint.client_certificate, endpoint.client_key)
                if endpoint.client_key
                else endpoint.client_certificate
            )
        self._headers = {
            "content-type": "application/x-protobuf",
            "user-agent": "otelprogress",
            # The answer is read with a cap on its bytes as they come: none that inflates.
            "accept-encoding": "identity",
            **dict(endpoint.headers),
        }
        if endpoint.gzip:
            self._headers["content-encoding"] = "gzip"

    def send(self, body: bytes, timeout_s: float) -> Answer:
        """See `Transport.send`."""
        deadline_s = time.monotonic() + timeout_s
        try:
            with self._session.post(
                self._endpoint.url,
                data=gzip.compress(body, 1) if self._endpoint.gzip else body,
                headers=self._headers | bearer(self._endpoint),
                # Said with each request: what a session says the environment's REQUESTS_CA_BUNDLE overrides.
                verify=self._endpoint.certificate,
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response:
                return self._answer(response, deadline_s)
        except requests.RequestException as error:
            # A connection that broke was one: the receiver restarts, or closed an idle connection just now.
            broke = bool(error.args) and isinstance(error.args[0], ProtocolError)
            return Answer(Verdict.RETRY, type(error).__name__, reached=broke)

    def _answer(self, response: requests.Response, deadline_s: float) -> Answer:
        status = response.status_code
        if 200 <= status < 300:
            with contextlib.suppress(Exception):
                # Delivered, whatever becomes of the rest of the answer.
                rejected, why = rejected_of(self._signal, _read_capped(response, deadline_s))
                if rejected:
                    return Answer(Verdict.DELIVERED, f"partial success: {why[:200]!r}", rejected=rejected)
            return DELIVERED
        reason = f"HTTP {status}"
        if status == HTTPStatus.UNAUTHORIZED and self._endpoint.token is not None:
            # The token has expired, and whoever renews its file is late: that costs time and no event.
            return Answer(Verdict.RETRY, reason)
        if status in _UNSUPPORTED:
            return Answer(Verdict.UNSUPPORTED, reason)
        if status in _RETRYABLE:
            return Answer(
                Verdict.RETRY, reason, retry_after_s(response.headers.get("retry-after"), time.time())
            )
        return Answer(Verdict.REFUSED, reason)

    def cancel(self) -> None:
        """Nothing: `requests` cannot be interrupted; its time-out ends it, and the sender's thread is a daemon."""

    def close(self) -> None:
        """See `Transport.close`."""
        self._session.close()


def _read_capped(response: requests.Response, deadline_s: float) -> bytes:
    """Read an answer to its end, to the cap or to the deadline, whichever comes first; only whole answers count."""
    read = bytearray()
    # read1 (urllib3 2) gives what is there, others wait for a full chunk that may never come.
    read_some = getattr(response.raw, "read1", response.raw.read)
    while len(read) <= _MAX_ANSWER_BYTES and time.monotonic() < deadline_s:
        piece: bytes = read_some(4096)
        if not piece:
            return bytes(read)
        read += piece
    return b""


def retry_after_s(text: str | None, now_unix_s: float) -> float | None:
    """Seconds that a `Retry-After` header asks for (seconds or a date); `None`: none, or not to be understood."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(text)
        return seconds if 0 <= seconds < float("inf") else None
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_unix_s)
    return None
