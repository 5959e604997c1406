"""Which feeds are there: the local processes' runtime files, or the one address that was given."""

from __future__ import annotations

import os
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.feed.admission import FEED_PATH
from otelprogress.feed.process_identity import is_gone

LOOK_EVERY_S: Final = 0.25
"""The folder is read at most this often."""


class FeedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One feed: where it is, how to get in, and whose it is."""

    url: str
    """With the path of the feed."""
    token: str = ""
    """Empty: none is sent."""
    pid: int = 0
    """0: unknown, nothing can be said about its death."""
    identity: str = ""
    service: str = ""
    kind: str = "process"
    written_at_unix_ns: int = 0

    @property
    def key(self) -> str:
        """What tells this feed from every other one and from its successors at the same address."""
        return f"{self.url} {self.pid} {self.identity} {self.written_at_unix_ns}" if self.pid else self.url

    @property
    def gone(self) -> bool:
        """Whether its process is proven not to run any more."""
        return self.pid > 0 and is_gone(self.pid, self.identity)

    def __repr__(self) -> str:
        """Without the token: it must not reach a log."""
        return f"FeedTarget(url={self.url!r}, pid={self.pid}, service={self.service!r})"


def feed_url(url: str) -> str:
    """The WebSocket address of a feed from what people write: `http` for `ws`, the path left out.

    Raises:
        InvalidValue: it is no address of a feed.
    """
    parts = urllib.parse.urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise InvalidValue(f"{url!r} is no address of a feed; write ws://HOST:PORT")
    path = parts.path if parts.path not in ("", "/") else FEED_PATH
    return urllib.parse.urlunsplit((scheme, parts.netloc.rpartition("@")[2], path, parts.query, ""))


def local_feeds(folder: Path | None = None) -> list[FeedTarget]:
    """The feeds of this user's processes that may still run, newest first."""
    return [_target(found.content) for found in runtime_file.scan(folder) if found.live]


def target_at(url: str, token: str | None = None, *, environ: Mapping[str, str] = os.environ) -> FeedTarget:
    """The feed at an address that was given.

    Args:
        url: as `feed_url` takes it.
        token: `None`: of the local runtime file with that address, else of `$OTELPROGRESS_TOKEN_FILE`, else none.
        environ: where the variables are looked up.

    Raises:
        InvalidValue: no address, or a token file that cannot be read.
    """
    wanted = feed_url(url)
    local = next((each for each in local_feeds() if each.url == wanted), None)
    if token is None:
        token = local.token if local is not None else _token_from_file(environ.get("OTELPROGRESS_TOKEN_FILE"))
    if local is None:
        return FeedTarget(url=wanted, token=token)
    return msgspec.structs.replace(local, token=token)


class Discovery:
    """Looks for local feeds, at most every `LOOK_EVERY_S` seconds, and says what is new.

    Args:
        folder: `None`: the runtime folder of this user.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self._looked_at_s = -LOOK_EVERY_S

    def appeared(self) -> list[FeedTarget]:
        """Feeds that no call before has returned, oldest first; empty when it is too early to look again."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s < LOOK_EVERY_S:
            return []
        self._looked_at_s = now_s
        found = [each for each in reversed(local_feeds(self._folder)) if each.key not in self._known]
        self._known.update(each.key for each in found)
        return found


def _target(content: runtime_file.RuntimeFile) -> FeedTarget:
    return FeedTarget(
        url=feed_url(content.url),
        token=content.token,
        pid=content.pid,
        identity=content.identity,
        service=content.service,
        kind=content.kind,
        written_at_unix_ns=content.written_at_unix_ns,
    )


def _token_from_file(path: str | None) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"OTELPROGRESS_TOKEN_FILE={path}: {error}") from error
