"""Late imports, and forks that wait for them.

Much of this package, and of what it stands on, is imported when it is first needed, on whichever thread needs it. A
fork in the middle of that leaves the child with a module that "is being imported" by a thread which exists no more:
whoever imports it there, the application too, waits for ever. So late imports on threads happen inside `late`, and a
fork waits until nobody is inside.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

FORK_WAITS_S: Final = 2.0
"""At most so long: an import that is stuck must not stop the application from forking."""


class LateImports:
    """`with late: from … import …`. Re-entrant."""

    def __init__(self) -> None:
        self._start_clean()

    def _start_clean(self) -> None:
        self._lock = threading.RLock()
        self._forking: set[int] = set()
        """Threads that hold the lock for their fork."""

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Wait until no thread is inside, and let none in."""
        if self._lock.acquire(timeout=FORK_WAITS_S):
            self._forking.add(threading.get_ident())

    def after_fork(self) -> None:
        """Let the others go on."""
        forking = threading.get_ident()
        if forking in self._forking:
            self._forking.discard(forking)
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """The only thread here is the one that forked: it lets go. Where it waited in vain, nobody ever would."""
        if threading.get_ident() in self._forking:
            self.after_fork()
        else:
            self._start_clean()


late: Final = LateImports()


def first_use(module: str) -> None:
    """Import a module of ours that is about to be needed, inside `late`; costs a look where it is there already."""
    if module not in sys.modules:  # half imported, it is there too: whoever does that is inside
        with late:
            importlib.import_module(module)


def fetch(into: dict[str, Any], homes: Mapping[str, Sequence[str]]) -> None:
    """Import what a module named for type checkers only.

    Args:
        into: the module's `globals()`.
        homes: modules → names of theirs.
    """
    for home, names in homes.items():
        module = importlib.import_module(home)
        for name in names:
            into[name] = getattr(module, name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=late.before_fork,
        after_in_parent=late.after_fork,
        after_in_child=late.after_fork_in_child,
    )
