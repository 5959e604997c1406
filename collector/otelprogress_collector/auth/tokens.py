"""Static tokens: the file of hashes that a collector judges by, and what makes, lists and revokes them.

What a token and its record look like, and why they are hashed as they are, stands in `token_records`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.principal import SCOPES, Denied, Principal
from otelprogress_collector.auth.private_file import locked_folder, read_private, write_private
from otelprogress_collector.auth.token_records import (
    NOBODY,
    StoredToken,
    check_token,
    is_static_token,
    new_token,
    parse_tokens,
    record_of,
    token_parts,
)
from otelprogress_collector.auth.watched_file import CHECK_EVERY_S, WatchedFile

__all__ = [
    "StaticTokens",
    "StoredToken",
    "create_token",
    "ensure_own_token",
    "is_static_token",
    "list_tokens",
    "new_token",
    "revoke_token",
]

OWN_TOKEN_NAME: Final = "local"  # noqa: S105 - a name
"""The token that a first start on loopback makes for the user's own programs."""
OWN_TOKEN_FILE: Final = "token"  # noqa: S105 - a file's name
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_MAX_TOKEN_FILE_BYTES: Final = 256


class StaticTokens:
    """The tokens in a file; a change counts within 5 s if `refresh` is called each second.

    Args:
        path: the file; it must be there, if empty.
        now_s: a monotonic clock; all `now_s` come from the same one.
        check_every_s: the least time between two looks at the file.

    Raises:
        InvalidValue: the file is missing, readable to others or broken at the beginning. Later on the last good
            content stands, and one warning says so.
    """

    def __init__(self, path: Path, *, now_s: float, check_every_s: float = CHECK_EVERY_S) -> None:
        self._file = WatchedFile(
            path,
            read=lambda path: read_private(path, max_bytes=MAX_FILE_BYTES),
            parse=lambda encoded: {one.id: one for one in parse_tokens(encoded)},
            now_s=now_s,
            check_every_s=check_every_s,
        )

    def __len__(self) -> int:
        return len(self._file.content)

    def due(self, now_s: float) -> bool:
        """Whether `refresh` would look."""
        return self._file.due(now_s)

    def refresh(self, now_s: float) -> bool:
        """Look at the file if it is time to; whether the tokens are others. Never raises."""
        return self._file.refresh(now_s)

    def judge(self, token: str, now_unix_s: float) -> Principal:
        """Whose token that is. Compares in constant time; no I/O.

        Raises:
            Denied: unknown or expired.
        """
        parts = token_parts(token)
        if parts is None:
            raise Denied("the token is damaged: it is not as long as tokens are, or has other characters")
        token_id, secret = parts
        # A hash is made and compared for an unknown id too: the time tells nothing.
        stored = self._file.content.get(token_id, NOBODY)
        if not stored.matches(secret) or stored is NOBODY:
            raise Denied("the token is unknown, or was revoked")
        if stored.expires_at_unix_s is not None and now_unix_s >= stored.expires_at_unix_s:
            raise Denied("the token expired")
        return stored.principal

    def revoked(self, principal: Principal) -> bool:
        """Whether the static token that made this principal is gone from the file, or has other rights by now."""
        if not principal.credential:
            return False
        stored = self._file.content.get(principal.credential)
        return stored is None or stored.principal != principal


def create_token(
    path: Path,
    name: str,
    scopes: Iterable[str],
    *,
    tenant: str = "",
    services: Iterable[str] = (),
    tenant_from: str | None = None,
    expires_at_unix_s: int | None = None,
    now_unix_s: float,
) -> str:
    """Make a token and keep its hash in the file, which is made if it is not there (mode 0600).

    Args:
        path: the file of tokens; its folder must be there.
        name: unique; letters, digits, `.`, `_`, `-`, at most 64.
        scopes: at least one of `principal.SCOPES`.
        tenant: whose operations it is about; empty: those without a tenant.
        services: `service.name`s that it may write and read; none: all of the tenant.
        tenant_from: for a gateway: the resource attribute that names the tenant of what it sends.
        expires_at_unix_s: `None`: never.
        now_unix_s: the time.

    Returns:
        The token. It is kept nowhere else, and cannot be had again.

    Raises:
        InvalidValue: a name that is taken or cannot be meant, an unknown scope, a file that others can read.
        OSError: the file cannot be written.
    """
    token = new_token()
    stored = record_of(
        token,
        name,
        scopes=tuple(sorted(set(scopes))),
        tenant=tenant,
        services=tuple(sorted(set(services))),
        tenant_from=tenant_from,
        created_at_unix_s=int(now_unix_s),
        expires_at_unix_s=expires_at_unix_s,
    )
    check_token(stored)
    if expires_at_unix_s is not None and expires_at_unix_s <= now_unix_s:
        raise InvalidValue("the token would be expired from the beginning")
    with locked_folder(path.parent):
        known = _stored(path)
        if any(one.name == name for one in known):
            raise InvalidValue(f"there is a token named {name!r}: revoke it first, or take another name")
        _write(path, [*known, stored])
    return token


def list_tokens(path: Path) -> list[StoredToken]:
    """The tokens in the file, oldest first; none when the file is not there.

    Raises:
        InvalidValue: others can read the file, or it is broken.
        OSError: it cannot be read.
    """
    return _stored(path)


def revoke_token(path: Path, name: str) -> StoredToken:
    """Take a token out of the file; a running collector knows within 5 s.

    Raises:
        InvalidValue: no token has that name, others can read the file, or it is broken.
        OSError: the file cannot be read or written.
    """
    with locked_folder(path.parent):
        known = _stored(path)
        kept = [one for one in known if one.name != name]
        if len(kept) == len(known):
            raise InvalidValue(f"{path} has no token of that name")
        _write(path, kept)
    return next(one for one in known if one.name == name)


def ensure_own_token(folder: Path, tokens_path: Path, *, now_unix_s: float) -> tuple[str, bool]:
    """The token of the user's own programs, made at a first start: plain in `folder/token`, its hash in `tokens_path`.

    A token file whose token is no longer among the hashes (it was revoked, or the hashes were deleted) is replaced.

    Returns:
        The token, and whether it was made just now.

    Raises:
        InvalidValue: one of the files could be read by others, or is broken.
        OSError: one of them cannot be read or written.
    """
    plain_path = folder / OWN_TOKEN_FILE
    try:
        token = read_private(plain_path, max_bytes=_MAX_TOKEN_FILE_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        token = ""
    parts = token_parts(token)
    known = _stored(tokens_path)
    if parts is not None and any(one.id == parts[0] and one.matches(parts[1]) for one in known):
        return token, False
    if any(one.name == OWN_TOKEN_NAME for one in known):
        revoke_token(tokens_path, OWN_TOKEN_NAME)  # its plain form is lost
    token = create_token(tokens_path, OWN_TOKEN_NAME, SCOPES, now_unix_s=now_unix_s)
    write_private(plain_path, token.encode() + b"\n")
    return token, True


def _stored(path: Path) -> list[StoredToken]:
    try:
        return parse_tokens(read_private(path, max_bytes=MAX_FILE_BYTES))
    except FileNotFoundError:
        return []


def _write(path: Path, tokens: list[StoredToken]) -> None:
    write_private(path, b"".join(msgspec.json.encode(one) + b"\n" for one in tokens))
