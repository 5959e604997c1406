"""Where a worker link leads: to the feed of the parent process, or to a collector.

The two differ in what travels there and in how final an end is. A parent gets the events themselves, and once it is
gone, or has refused its child, nothing is left to say to it. A collector gets events as OTLP, by the sender; the link
says that the writer lives. It may be away for long, and what it refuses today it may take tomorrow: a token is renewed,
a setting mended.
"""

from __future__ import annotations

import os
import ssl
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final, Protocol

import msgspec

from otelprogress.exceptions import FeedDenied, InvalidRecord, InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.feed.admission import WORKER_PATH

_COLLECTOR_CONNECT_TIMEOUT_S: Final = 5.0
_PARENT_CONNECT_TIMEOUT_S: Final = 1.0


class LinkTarget(msgspec.Struct, frozen=True):
    """What one attempt to connect needs."""

    url: str
    token: str
    tls: ssl.SSLContext | None = None
    """For `wss`; `None`: the system's authorities."""
    connect_timeout_s: float = _PARENT_CONNECT_TIMEOUT_S

    def __repr__(self) -> str:
        """Without the token: it must not reach a log."""
        return f"LinkTarget(url={self.url!r})"


class LinkRoute(Protocol):
    """What a link has to know of its other end."""

    @property
    def carries_events(self) -> bool:
        """Whether events travel over the link; otherwise it registers, says that it lives, and listens."""

    @property
    def refusal_is_final(self) -> bool:
        """Whether a refusal ends the link for good; otherwise it is tried again, ever more slowly."""

    @property
    def backoff_s(self) -> tuple[float, float]:
        """Least and greatest pause between two attempts to connect, seconds."""

    @property
    def name(self) -> str:
        """For log lines and `doctor`; holds no secret."""

    def find(self) -> LinkTarget:
        """Where to connect now; asked on the link's thread before each attempt, because it may have moved.

        Raises:
            FeedDenied: there is nobody any more, and there will be none.
            OSError, InvalidValue: it cannot be said now.
        """


class ParentRoute:
    """To the feed of the process whose runtime file that is (`OTELPROGRESS_LINK`).

    The parent waits a second for a writer whose connection ended before it calls its operations lost.
    """

    carries_events: ClassVar[bool] = True
    refusal_is_final: ClassVar[bool] = True
    backoff_s: ClassVar[tuple[float, float]] = (0.05, 5.0)

    def __init__(self, runtime_file_path: str | os.PathLike[str]) -> None:
        self._path = Path(runtime_file_path)
        self.name = "the parent process"

    def find(self) -> LinkTarget:
        """See `LinkRoute.find`."""
        try:
            parent = runtime_file.read(self._path)
        except (FileNotFoundError, InvalidValue, InvalidRecord) as gone:
            # A parent removes its file when it closes its feed, and a new one would write another.
            raise FeedDenied(str(gone)) from gone
        if not parent.live:
            raise FeedDenied("the parent process is gone")
        address = urllib.parse.urlsplit(parent.url).netloc
        return LinkTarget(f"ws://{address}{WORKER_PATH}", parent.token)


class CollectorRoute:
    """To a collector.

    Args:
        base_url: `http(s)://HOST:PORT[/PREFIX]`, as `config.collector_url` gives it.
        token: asked before each attempt; an empty answer: none is shown.
        tls: makes the context for `https`; asked before each attempt, on the link's thread.
    """

    carries_events: ClassVar[bool] = False
    refusal_is_final: ClassVar[bool] = False
    backoff_s: ClassVar[tuple[float, float]] = (0.1, 10.0)

    def __init__(
        self,
        base_url: str,
        token: Callable[[], str],
        *,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        scheme, _, rest = base_url.partition("://")
        self._secure = scheme == "https"
        self._url = f"{'wss' if self._secure else 'ws'}://{rest}{WORKER_PATH}"
        self._token = token
        self._tls = tls
        self.name = f"the collector at {base_url}"

    def find(self) -> LinkTarget:
        """See `LinkRoute.find`."""
        return LinkTarget(
            self._url, self._token(), self._tls() if self._secure else None, _COLLECTOR_CONNECT_TIMEOUT_S
        )
