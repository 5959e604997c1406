"""Which feeds are there: the local processes' runtime files, the collector, or the one address that was given."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from otelprogress.config import collector_of
from otelprogress.exceptions import InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.feed.admission import FEED_PATH
from otelprogress.feed.process_identity import is_gone

LOOK_EVERY_S: Final = 0.25
"""The folder is read at most this often."""
COLLECTOR: Final = "collector"
"""The kind of a feed whose word counts more than a process's, and that outlives its own process: it restarts."""


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
    """`process`, or `collector`."""
    written_at_unix_ns: int = 0

    @property
    def is_collector(self) -> bool:
        """Whether it is a collector's. The end of its process ends nothing: its log goes on with the next one."""
        return self.kind == COLLECTOR

    @property
    def key(self) -> str:
        """What tells this feed from every other one, and a process's from its successors at the same address."""
        if self.is_collector:
            return f"{COLLECTOR} {place_of(self.url)}"
        return f"{self.url} {self.pid} {self.identity} {self.written_at_unix_ns}" if self.pid else self.url

    @property
    def gone(self) -> bool:
        """Whether nothing more can come from it: its process is proven not to run any more."""
        return self.pid > 0 and not self.is_collector and is_gone(self.pid, self.identity)

    @property
    def name(self) -> str:
        """For log lines and people."""
        return f"the collector at {self.url}" if self.is_collector else f"process {self.pid} at {self.url}"

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
    try:
        sound = scheme is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or too large a one
        sound = False
    if scheme is None or not sound:
        raise InvalidValue(f"{url!r} is no address of a feed; write ws://HOST:PORT")
    path = parts.path if parts.path not in ("", "/") else FEED_PATH
    return urllib.parse.urlunsplit((scheme, parts.netloc.rpartition("@")[2], path, parts.query, ""))


def place_of(url: str) -> tuple[str, str, int, str]:
    """An address without the ways of writing it: scheme, host, port and path; `localhost` is 127.0.0.1."""
    parts = urllib.parse.urlsplit(feed_url(url))
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    return parts.scheme, "127.0.0.1" if host == "localhost" else host, port, parts.path


def local_feeds(folder: Path | None = None) -> list[FeedTarget]:
    """The feeds of this user's processes that may still run, newest first; collectors among them."""
    return [_target(found.content) for found in runtime_file.scan(folder) if found.live]


def collector_token(base_url: str, token_file: str | None, folder: Path | None = None) -> str:
    """What to show at a collector: the token of the file, else of its local runtime file; empty: none is known.

    Raises:
        InvalidValue: the token file cannot be read.
    """
    if token_file:
        return token_from_file(token_file)
    try:
        return _local_token(base_url, local_feeds(folder))
    except (OSError, InvalidValue):
        return ""  # a folder that is not ours alone says nothing; a collector may ask for no token


def all_feeds(environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> list[FeedTarget]:
    """The local feeds, newest first, and the collector that `OTELPROGRESS_COLLECTOR` names, once.

    A token file that cannot be read hides nobody else: the collector's feed will say what it misses.

    Raises:
        InvalidValue: the folder is not private, or the collector's address is none.
        OSError: the folder cannot be read now.
    """
    local = local_feeds(folder)
    feeds = {target.key: target for target in local}
    base_url = collector_of(environ)
    if base_url is not None:
        token = ""
        if token_file := environ.get("OTELPROGRESS_TOKEN_FILE"):
            with contextlib.suppress(InvalidValue):
                token = token_from_file(token_file)
        else:
            token = _local_token(base_url, local)
        named = FeedTarget(url=_collector_feed(base_url), token=token, kind=COLLECTOR)
        feeds[named.key] = named
    return list(feeds.values())


def _local_token(base_url: str, local: Iterable[FeedTarget]) -> str:
    wanted = place_of(_collector_feed(base_url))
    return next((each.token for each in local if each.is_collector and place_of(each.url) == wanted), "")


def renewed(target: FeedTarget, environ: Mapping[str, str] = os.environ) -> FeedTarget:
    """The same collector with the token as it is now; `target` itself where nothing says another one."""
    try:
        return next((each for each in all_feeds(environ) if each.key == target.key), target)
    except (OSError, InvalidValue):
        return target


def _collector_feed(base_url: str) -> str:
    scheme, _, rest = base_url.partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{FEED_PATH}"


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
    place = place_of(wanted)
    local = next((each for each in local_feeds() if place_of(each.url) == place), None)
    if token is None:
        file = environ.get("OTELPROGRESS_TOKEN_FILE")
        token = local.token if local is not None else token_from_file(file) if file else ""
    if local is None:
        named = collector_of(environ)
        is_named = named is not None and place_of(_collector_feed(named)) == place
        return FeedTarget(url=wanted, token=token, kind=COLLECTOR if is_named else "process")
    return msgspec.structs.replace(local, token=token)


class Discovery:
    """Looks for feeds (`all_feeds`), at most every `LOOK_EVERY_S` seconds, and says what is new.

    Args:
        folder: `None`: the runtime folder of this user.
        environ: where the collector is looked up.
    """

    def __init__(self, folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._environ = environ
        self._known: set[str] = set()
        self._looked_at_s = -LOOK_EVERY_S

    def appeared(self) -> list[FeedTarget]:
        """Feeds that no call before has returned, oldest first; empty when it is too early to look again."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s < LOOK_EVERY_S:
            return []
        self._looked_at_s = now_s
        feeds = all_feeds(self._environ, self._folder)
        found = [each for each in reversed(feeds) if each.key not in self._known]
        self._known.update(each.key for each in found)
        return found


def _target(content: runtime_file.RuntimeFile) -> FeedTarget:
    if content.kind == COLLECTOR:
        # Without its process: that one's death says nothing about the runs, which are others'.
        return FeedTarget(
            url=feed_url(content.url), token=content.token, service=content.service, kind=COLLECTOR
        )
    return FeedTarget(
        url=feed_url(content.url),
        token=content.token,
        pid=content.pid,
        identity=content.identity,
        service=content.service,
        kind=content.kind,
        written_at_unix_ns=content.written_at_unix_ns,
    )


def token_from_file(path: str | os.PathLike[str]) -> str:
    """The token in a file, without the line end.

    Raises:
        InvalidValue: it cannot be read, is empty, or holds what no token does.
    """
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"OTELPROGRESS_TOKEN_FILE={path}: {error}") from error
    if not token:
        raise InvalidValue(f"OTELPROGRESS_TOKEN_FILE={path} is empty")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidValue(f"OTELPROGRESS_TOKEN_FILE={path} holds more than a token")
    return token
