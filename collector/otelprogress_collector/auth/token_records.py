"""Static tokens: made here, shown once, kept only as hashes.

A token is `otpc_` and 42 random bytes in base64url: 9 that name it (to find its record without trying all) and 33 that
are the secret. Its file holds one JSON object a line, of which `StoredToken` is the shape, and has mode 0600.

The hash is a salted BLAKE2b, not one of the slow ones that passwords need: 264 random bits cannot be guessed, however
fast a guess is, and a slow hash would only let anybody keep the collector busy with wrong tokens.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Any, Final

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.principal import (
    MAX_SERVICES,
    MAX_TENANT_CHARS,
    SCOPES,
    Principal,
    is_tenant,
)

PREFIX: Final = "otpc_"
MAX_TEXT_CHARS: Final = 256
_ID_BYTES: Final = 9
_SECRET_BYTES: Final = 33
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_PERSON: Final = b"otpc-token-1"
_TOKEN: Final = re.compile(r"otpc_([A-Za-z0-9_-]{56})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class StoredToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is kept of a token. A field that is not understood is refused: it might be a restriction."""

    name: str
    """Unique in its file; letters, digits, `.`, `_`, `-`."""
    id: str
    """The token's public part: 18 hex digits."""
    salt: str
    """32 hex digits."""
    hash: str
    """64 hex digits."""
    scopes: tuple[str, ...]
    tenant: str = ""
    services: tuple[str, ...] = ()
    """`service.name`s; empty: all of the tenant."""
    tenant_from: str | None = None
    """A gateway's: the resource attribute that names the tenant of what it sends."""
    created_at_unix_s: int = 0
    expires_at_unix_s: int | None = None
    """`None`: never."""

    def __repr__(self) -> str:
        """Without salt and hash: nobody needs them in a log."""
        return f"StoredToken(name={self.name!r}, scopes={self.scopes!r}, tenant={self.tenant!r})"

    def matches(self, secret: bytes) -> bool:
        """Whether that is its secret; compared in constant time."""
        return hmac.compare_digest(_hash(secret, bytes.fromhex(self.salt)), self.hash)

    @property
    def principal(self) -> Principal:
        """Whom it makes of its bearer."""
        expires_at = self.expires_at_unix_s
        return Principal(
            actor=self.name,
            scopes=frozenset(self.scopes),
            tenant=self.tenant,
            services=self.services,
            tenant_from=self.tenant_from,
            expires_at_unix_s=None if expires_at is None else float(expires_at),
            token_id=self.name,
            credential=self.id,
        )


_DECODER: Final = msgspec.json.Decoder(StoredToken)
NOBODY: Final = StoredToken(name="nobody", id="", salt="00" * _SALT_BYTES, hash="00" * _HASH_BYTES, scopes=())
"""What an unknown token is compared with, so that the time tells nothing."""


def new_token() -> str:
    """A new random token: `otpc_` and 56 characters of base64url."""
    return PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_ID_BYTES + _SECRET_BYTES)).decode()


def is_static_token(token: str) -> bool:
    """Whether it says of itself to be one of ours."""
    return token.startswith(PREFIX)


def parse_tokens(encoded: bytes) -> list[StoredToken]:
    """The tokens in the text of such a file.

    Raises:
        InvalidValue: it is broken; names the line, and quotes nothing of it.
    """
    found: list[StoredToken] = []
    names: set[str] = set()
    ids: set[str] = set()
    for number, line in enumerate(encoded.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            stored = _DECODER.decode(line)
            check_token(stored)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidValue(f"line {number} of the token file is no token record") from None
        except InvalidValue as error:
            raise InvalidValue(f"line {number} of the token file: {error}") from None
        if stored.name in names or stored.id in ids:
            raise InvalidValue(f"line {number} of the token file repeats a name or an id")
        names.add(stored.name)
        ids.add(stored.id)
        found.append(stored)
    return found


def record_of(token: str, name: str, **kept: Any) -> StoredToken:
    """What is kept of a token that `new_token` made, unchecked; `kept` are further fields of the record."""
    parts = token_parts(token)
    assert parts is not None  # as new_token makes them
    salt = secrets.token_bytes(_SALT_BYTES)
    return StoredToken(name=name, id=parts[0], salt=salt.hex(), hash=_hash(parts[1], salt), **kept)


def check_token(stored: StoredToken) -> None:
    """Refuse a record that cannot be meant.

    Raises:
        InvalidValue: says which field and why.
    """
    if not _NAME.fullmatch(stored.name):
        raise InvalidValue(
            "a token's name is 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    if not stored.scopes or not SCOPES.issuperset(stored.scopes):
        raise InvalidValue(f"scopes are one or more of {', '.join(sorted(SCOPES))}")
    if stored.tenant and not is_tenant(stored.tenant):
        raise InvalidValue(f"a tenant is a printable text of at most {MAX_TENANT_CHARS} characters")
    texts = (*stored.services, stored.tenant_from or "")
    if any(len(text) > MAX_TEXT_CHARS or not text.isprintable() for text in texts) or "" in stored.services:
        raise InvalidValue(
            f"services and tenant_from are printable texts of at most {MAX_TEXT_CHARS} characters"
        )
    if len(stored.services) > MAX_SERVICES:
        raise InvalidValue(f"a token names at most {MAX_SERVICES} services")
    if stored.tenant_from is not None and (stored.tenant or not stored.tenant_from):
        raise InvalidValue("a token has one tenant or takes it from an attribute, not both")
    for text, count in ((stored.id, _ID_BYTES), (stored.salt, _SALT_BYTES), (stored.hash, _HASH_BYTES)):
        if not re.fullmatch(rf"[0-9a-f]{{{2 * count}}}", text):
            raise InvalidValue("id, salt and hash are hex digits, as they were written")


def token_parts(token: str) -> tuple[str, bytes] | None:
    """Public id and secret; `None`: no token of ours."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    raw = base64.urlsafe_b64decode(
        match[1]
    )  # 56 characters of the alphabet are 42 bytes: nothing can be wrong
    return raw[:_ID_BYTES].hex(), raw[_ID_BYTES:]


def _hash(secret: bytes, salt: bytes) -> str:
    return hashlib.blake2b(secret, digest_size=_HASH_BYTES, salt=salt, person=_PERSON).hexdigest()
