"""What the estimates of a running operation know of earlier runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otelprogress.feed.history import History
    from otelprogress.model.estimate import Baseline

KEPT_S: Final = 60.0
MAX_NAMES: Final = 1000


class Baselines:
    """How long things took before, from the history, asked at most once a minute per name."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._known: dict[str, tuple[float, Any]] = {}

    def __call__(self, tenant: str, name: str, step_name: str) -> Baseline | None:
        """How long an operation, or a step of it, took before; `None`: not known. A process has one tenant."""
        now_s = time.monotonic()
        asked_s, found = self._known.get(name, (-KEPT_S, None))
        if now_s - asked_s >= KEPT_S:
            if len(self._known) > MAX_NAMES:
                self._known.clear()
            found = self._history.baseline(name)
            self._known[name] = (now_s, found)
        return None if found is None else found.of(step_name)
