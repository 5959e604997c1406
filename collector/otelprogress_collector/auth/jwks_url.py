"""Keys that an issuer publishes by URL: fetched within a deadline, kept while the URL is down.

An unknown key id makes for one fetch at most each `retry_every_s`, however many tokens come with however many ids; all
who wait share it. Nothing here raises: without keys, tokens are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.jwt_keys import VerificationKey, candidates, key_set

_LOG = logging.getLogger("otelprogress_collector.auth")

MAX_BYTES: Final = 256 * 1024
DEADLINE_S: Final = 5.0
RETRY_EVERY_S: Final = 10.0
REFRESH_EVERY_S: Final = 600.0
_CHUNK_BYTES: Final = 16 * 1024
_HTTP_OK: Final = 200


class JwksUrl:
    """The keys behind one URL.

    Args:
        url: `https://…`; `http://` only for loopback.
        ca_file: a PEM file of authorities to trust instead of the system's.
        deadline_s: for one fetch, from the name's resolution to the last byte.
        retry_every_s: the least time between two fetches.
        refresh_every_s: keys that are older are fetched anew in the background, so that withdrawn ones go.
        max_bytes: of the answer.
        monotonic_s: the clock that intervals are measured by.

    Raises:
        InvalidValue: a URL that cannot be meant, or a CA file that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str | None = None,
        deadline_s: float = DEADLINE_S,
        retry_every_s: float = RETRY_EVERY_S,
        refresh_every_s: float = REFRESH_EVERY_S,
        max_bytes: int = MAX_BYTES,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        check_jwks_url(url)
        self.url = url
        self.keys: tuple[VerificationKey, ...] = ()
        self.fetches = 0
        """How many were begun."""
        self.failures = 0
        """How many came to nothing."""
        self._tls = _trusting(ca_file)
        self._shown_url = url.partition("?")[0]
        self._deadline_s = deadline_s
        self._retry_every_s = retry_every_s
        self._refresh_every_s = refresh_every_s
        self._max_bytes = max_bytes
        self._monotonic_s = monotonic_s
        self._tried_at_s: float | None = None
        self._fetched_at_s: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._down = False

    @property
    def down(self) -> bool:
        """Whether the last fetch failed, so that older keys, or none, stand."""
        return self._down

    async def prepare(self, algorithm: str, kid: str | None) -> None:
        """Have the key that a token names, if it can be had within the deadline. Never raises."""
        now_s = self._monotonic_s()
        known = bool(candidates(self.keys, algorithm, kid))
        stale = self._fetched_at_s is None or now_s - self._fetched_at_s >= self._refresh_every_s
        if known and not stale:
            return
        if self._fetching is None and self._may_try(now_s):
            self._tried_at_s = now_s
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        if self._fetching is not None and not known:
            # Shielded: that one client hangs up must not end what others wait for.
            await asyncio.wait({self._fetching}, timeout=self._deadline_s)

    async def close(self) -> None:
        """End a fetch that is under way. A second call does nothing."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _may_try(self, now_s: float) -> bool:
        return self._tried_at_s is None or now_s - self._tried_at_s >= self._retry_every_s

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            content = await _get(self.url, self._tls, self._deadline_s, self._max_bytes)
            self.keys = key_set(content, secrets_allowed=False, origin=self._shown_url)
        except Exception as error:  # whatever the other side does: without new keys the old ones stand
            self.failures += 1
            if not self._down:
                kept = f"the {len(self.keys)} keys known stand" if self.keys else "its tokens are refused"
                _LOG.warning("no keys from %s (%s): %s", self._shown_url, _reason(error), kept)
            self._down = True
        else:
            self._fetched_at_s = self._monotonic_s()
            if self._down:
                _LOG.info("%s gives keys again", self._shown_url)
            self._down = False
        finally:
            self._fetching = None


def check_jwks_url(url: str) -> None:
    """Refuse what cannot be fetched safely.

    Raises:
        InvalidValue: no http(s) URL with a host, plain http beyond loopback, or a password in it.
    """
    try:
        parts = urlsplit(url)
        port_is_one = parts.port != 0
    except ValueError:
        port_is_one = False
    if not port_is_one or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidValue("a JWKS URL looks like https://issuer.example/.well-known/jwks.json")
    if parts.username is not None or parts.password is not None:
        raise InvalidValue("a JWKS URL holds no user or password: the keys are public")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise InvalidValue("a JWKS URL begins with https://: whoever changes the keys on their way is let in")


async def _get(url: str, tls: ssl.SSLContext | None, deadline_s: float, max_bytes: int) -> bytes:
    import aiohttp  # 0.2 s, for those only who have such a URL

    timeout = aiohttp.ClientTimeout(total=deadline_s)
    # The body is taken as it comes: one that inflates is refused below, since it is no JSON.
    async with (
        aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        session.get(
            url,
            allow_redirects=False,
            ssl=True if tls is None else tls,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        ) as answer,
    ):
        if answer.status != _HTTP_OK:
            raise InvalidValue(f"answered with {answer.status}")
        content = bytearray()
        async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
            content += chunk
            if len(content) > max_bytes:
                raise InvalidValue(f"the answer is longer than {max_bytes} bytes")
        return bytes(content)


def _trusting(ca_file: str | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidValue(f"{ca_file} is no PEM file of certificates: {error.strerror or error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidValue):
        return str(error)
    return "not within the deadline" if isinstance(error, TimeoutError) else type(error).__name__
