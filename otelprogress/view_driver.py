"""Keeps a terminal view up to date, in a thread of its own.

A terminal that stands still (Ctrl-S, a full pipe) must not stop anything but its view.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otelprogress.feed.host import Host
    from otelprogress.model.events import OperationView
    from otelprogress.model.tree import Applied
    from otelprogress.visualization.terminal import View

FRAME_S: Final = 0.1
CLOCK_S: Final = 1.0
"""A live picture is drawn again this often though nothing moved: elapsed times and ETAs do."""
MAX_SHOWN: Final = 300
_logger = logging.getLogger("otelprogress")


class ViewDriver:
    """Draws what a host knows, at most ten times a second.

    Args:
        view: what draws; every call but `publish` comes from this driver's thread, `stop` from whoever closes.
        host: whose operations are shown.
    """

    def __init__(self, view: View, host: Host) -> None:
        self._view = view
        self._host = host
        self._changed = threading.Event()
        self._closed = False
        self._live = False
        self._thread: threading.Thread | None = None
        self.errors = 0

    def start(self) -> None:
        """Listen to the host; the thread starts with the first event."""
        self._view.start()
        self._host.add_listener(self._tell)

    def _tell(self, applied: Sequence[Applied]) -> None:
        self._view.publish([one.event for one in applied])
        self._changed.set()
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._run, name="otelprogress-view", daemon=True)
            # Where no thread is left the next event tries again, and close() draws.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            self._changed.wait(CLOCK_S if self._live else None)
            if self._closed:
                return
            self._changed.clear()
            self._draw()
            time.sleep(FRAME_S)

    def _draw(self) -> None:
        try:
            views = self._views()
            self._live = any(view.live for view in views)
            self._view.update(views, self._host.clock.time_unix_ns())
        except Exception:
            self.errors += 1
            _logger.debug("otelprogress: the view survived an error of its own", exc_info=True)

    def _views(self) -> list[OperationView]:
        host = self._host
        if len(host.hub.tree) <= MAX_SHOWN:
            return host.views(steps=True)
        return host.views(live=True, roots=True, steps=True)[:MAX_SHOWN]

    def close(self, timeout_s: float = 0.5) -> None:
        """Draw the final state and give the terminal back; a terminal that stands still is given up after `timeout_s`."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return
        self._draw()
        try:
            self._view.stop()
        except Exception:
            self.errors += 1
