"""Keys for JWTs in files: a secret, a public key, a JWKS. Read again when they change, so that keys can be rotated."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from otelprogress_collector.auth.jwt_keys import VerificationKey, key_set, public_key, secret_key
from otelprogress_collector.auth.private_file import read_private, read_trusted
from otelprogress_collector.auth.watched_file import WatchedFile

MAX_BYTES: Final = 256 * 1024

KeyFile = WatchedFile[tuple[VerificationKey, ...]]


def watch_secret(path: Path, *, now_s: float, check_every_s: float) -> KeyFile:
    """An HS256 secret; see `WatchedFile` and `secret_key`.

    Raises:
        InvalidValue: it cannot be used, or others could read it.
    """
    return WatchedFile(
        path,
        read=lambda path: read_private(path, max_bytes=MAX_BYTES, group_may_read=True),
        parse=lambda content: (secret_key(content),),
        now_s=now_s,
        check_every_s=check_every_s,
    )


def watch_public_key(path: Path, *, now_s: float, check_every_s: float) -> KeyFile:
    """A public key in PEM; see `WatchedFile` and `public_key`.

    Raises:
        InvalidValue: it cannot be used, or others could change it.
    """
    return WatchedFile(
        path,
        read=lambda path: read_trusted(path, max_bytes=MAX_BYTES),
        parse=lambda content: (public_key(content),),
        now_s=now_s,
        check_every_s=check_every_s,
    )


def watch_key_set(path: Path, *, now_s: float, check_every_s: float) -> KeyFile:
    """A JWKS; see `WatchedFile` and `key_set`. One that holds secrets must be private.

    Raises:
        InvalidValue: it cannot be used, or others could change it, or read secrets in it.
    """

    def read(path: Path) -> bytes:
        content = read_trusted(path, max_bytes=MAX_BYTES)
        keys = key_set(content, secrets_allowed=True, origin=str(path))
        if any(key.algorithm == "HS256" for key in keys):
            return read_private(path, max_bytes=MAX_BYTES, group_may_read=True)
        return content

    return WatchedFile(
        path,
        read=read,
        parse=lambda content: key_set(content, secrets_allowed=True, origin=str(path)),
        now_s=now_s,
        check_every_s=check_every_s,
    )
