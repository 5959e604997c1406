"""What is lost, in one log line a minute at most."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

_LOG: Final = logging.getLogger("otelprogress_collector.exporters")
EVERY_S: Final = 60.0


class LossLog:
    """Says at once what is new, or at the end of the minute since the last line; without news it sets no timer.

    Args:
        news: what happened since it was asked last; empty: nothing.
    """

    def __init__(self, news: Callable[[], str]) -> None:
        self._news = news
        self._timer: asyncio.TimerHandle | None = None
        self._not_before_s = float("-inf")

    def note(self) -> None:
        """There is something to say."""
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        left_s = self._not_before_s - loop.time()
        if left_s <= 0:
            self._say()
        else:
            self._timer = loop.call_later(left_s, self._say)

    def _say(self) -> None:
        self._timer = None
        news = self._news()
        if news:
            self._not_before_s = asyncio.get_running_loop().time() + EVERY_S
            _LOG.warning("%s", news)

    def close(self) -> None:
        """Say now what waits to be said."""
        if self._timer is not None:
            self._timer.cancel()
            self._say()
