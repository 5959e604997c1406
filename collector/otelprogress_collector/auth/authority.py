"""Who is let in: static tokens and JWTs judged together, under one deny-list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.deny_list import DenyList
from otelprogress_collector.auth.jwt_tokens import MAX_TOKEN_CHARS, JwtConfig, JwtTokens, is_jwt
from otelprogress_collector.auth.principal import SCOPES, WRITE, Denied, Principal
from otelprogress_collector.auth.tokens import StaticTokens, is_static_token

_KEEP_FRESH_S: Final = 1.0

ANONYMOUS_WRITER: Final = Principal(actor="", scopes=frozenset({WRITE}))
"""Who sends OTLP without a token where none is required: it may write, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """What decides who is let in."""

    tokens_file: Path | None = None
    """Static tokens, hashed; `None`: there are none."""
    jwt: tuple[JwtConfig, ...] = ()
    """One for each issuer of JWTs."""
    deny_list_file: Path | None = None
    """Ids of tokens that count no more; `None`: all count until they expire."""
    required_for_ingest: bool = True
    """Whether OTLP without a token is refused."""
    no_auth: bool = False
    """Whether everybody may do everything; the rest is not looked at then."""


def open_authority(
    config: AuthConfig, *, monotonic_s: Callable[[], float] = time.monotonic
) -> TokenAuthority | OpenAuthority:
    """The authority that a configuration describes.

    Raises:
        InvalidValue: nobody could ever be let in, or a file cannot be used; says which and why.
    """
    if config.no_auth:
        return OpenAuthority()
    if config.tokens_file is None and not config.jwt:
        raise InvalidValue(
            "nobody could get in: make a token with `otelprogress-collector token create NAME`, or name an issuer of "
            "JWTs; on loopback --no-auth would do"
        )
    check_issuers(config.jwt)
    now_s = monotonic_s()
    return TokenAuthority(
        static=StaticTokens(config.tokens_file, now_s=now_s) if config.tokens_file is not None else None,
        issuers=tuple(JwtTokens(one, monotonic_s=monotonic_s) for one in config.jwt),
        deny_list=DenyList(config.deny_list_file, now_s=now_s) if config.deny_list_file is not None else None,
        required_for_ingest=config.required_for_ingest,
        monotonic_s=monotonic_s,
    )


def check_issuers(issuers: Sequence[JwtConfig]) -> None:
    """Refuse an issuer that is there twice.

    Raises:
        InvalidValue: one is.
    """
    names = [one.issuer for one in issuers]
    if len(set(names)) != len(names):
        raise InvalidValue("an issuer of JWTs is configured twice: give it all its keys in one place")


class TokenAuthority:
    """Judges tokens by what stands in files and behind URLs; see `principal.Authority`.

    The files are read by `refresh` alone, on a worker thread: `keep_fresh` does so each second, and `prepare` where
    nobody runs that. What is judged meanwhile goes by what was read last. All else is for one thread: the event loop's.

    Args:
        static: `None`: no static tokens.
        issuers: of JWTs.
        deny_list: `None`: none.
        required_for_ingest: whether OTLP without a token is refused.
        monotonic_s: the clock that intervals are measured by.
    """

    def __init__(
        self,
        *,
        static: StaticTokens | None,
        issuers: tuple[JwtTokens, ...] = (),
        deny_list: DenyList | None = None,
        required_for_ingest: bool = True,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.required_for_ingest = required_for_ingest
        self._static = static
        self._issuers = issuers
        self._deny_list = deny_list
        self._monotonic_s = monotonic_s
        self._refreshing = False

    def judge(self, token: str | None, now_unix_s: float) -> Principal:
        """Who that is. No I/O.

        Raises:
            Denied: nobody that is known; says why, and quotes nothing.
        """
        if not token:
            raise Denied("a token is needed: Authorization: Bearer <token>")
        if len(token) > MAX_TOKEN_CHARS or not (token.isascii() and token.isprintable()):
            raise Denied("the token is damaged: too long, or not of printable ASCII")
        if is_static_token(token):
            if self._static is None:
                raise Denied("no static tokens are taken here")
            principal = self._static.judge(token, now_unix_s)
        elif is_jwt(token):
            principal = self._judge_jwt(token, now_unix_s)
        else:
            raise Denied("the token is neither one of this collector's nor a JWT")
        if self._denied(principal):
            raise Denied("the token was revoked")
        return principal

    async def prepare(self, token: str | None) -> None:
        """Read files that may have changed, and fetch the key that a JWT names. Never raises."""
        await self._refresh_if_due()
        if token and is_jwt(token) and not is_static_token(token):
            for issuer in self._issuers:
                await issuer.prepare(token)

    def revoked(self, principal: Principal) -> bool:
        """Whether it counts no more: denied by name, or its static token is gone or has other rights. No I/O."""
        return self._denied(principal) or (self._static is not None and self._static.revoked(principal))

    def refresh(self, now_s: float) -> None:
        """Look at the files if it is time to. Reads files; never raises."""
        if self._static is not None:
            self._static.refresh(now_s)
        if self._deny_list is not None:
            self._deny_list.refresh(now_s)
        for issuer in self._issuers:
            issuer.refresh(now_s)

    async def keep_fresh(self) -> None:
        """Look at the files each second, until cancelled: open connections ask `revoked` and nothing else."""
        while True:
            await self._refresh_if_due()
            await asyncio.sleep(_KEEP_FRESH_S)

    async def close(self) -> None:
        """End fetches that are under way. A second call does nothing."""
        for issuer in self._issuers:
            await issuer.close()

    async def _refresh_if_due(self) -> None:
        now_s = self._monotonic_s()
        if self._refreshing or not self._due(now_s):
            return
        self._refreshing = True
        try:
            await asyncio.to_thread(self.refresh, now_s)
        finally:
            self._refreshing = False

    def _due(self, now_s: float) -> bool:
        return (
            (self._static is not None and self._static.due(now_s))
            or (self._deny_list is not None and self._deny_list.due(now_s))
            or any(issuer.due(now_s) for issuer in self._issuers)
        )

    def _judge_jwt(self, token: str, now_unix_s: float) -> Principal:
        if not self._issuers:
            raise Denied("no JWTs are taken here")
        verified = False
        for issuer in self._issuers:
            claims = issuer.verifies(token)
            if claims is None:
                continue
            verified = True
            # Issuers may share a set of keys: the claim decides whose token it is.
            if claims.get("iss") == issuer.config.issuer:
                return issuer.principal_of(claims, now_unix_s)
        raise Denied(
            "the token is of another issuer"
            if verified
            else "the token is not signed by a key that is known here"
        )

    def _denied(self, principal: Principal) -> bool:
        return self._deny_list is not None and principal.token_id in self._deny_list


class OpenAuthority:
    """Lets everybody do everything: `--no-auth`, for loopback only."""

    required_for_ingest: bool = False

    def judge(self, token: str | None, now_unix_s: float) -> Principal:
        """Anybody. A token that is sent all the same is not looked at."""
        return Principal(actor="anyone", scopes=SCOPES)

    async def prepare(self, token: str | None) -> None:
        """Nothing is needed."""

    def revoked(self, principal: Principal) -> bool:
        """Nobody is."""
        return False

    async def keep_fresh(self) -> None:
        """Nothing grows old: returns at once."""

    async def close(self) -> None:
        """Nothing is open."""
