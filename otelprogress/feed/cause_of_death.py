"""What a parent can find out about how one of its children ended, without taking that knowledge from anyone else.

The exit status of a child is given out by the kernel once, to whoever waits for it. It belongs to the application
(`subprocess`, `multiprocessing`), so it is only looked at here (`WNOWAIT`). Where `multiprocessing` was faster,
its own record of the child is read.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from otelprogress.feed.process_identity import process_identity


class ChildRecord:
    """What is remembered of a process while it lives, to ask for its end later.

    Args:
        pid: the process id it gave; it may be no child of ours, then little can be known.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process: Any = None
        self.look_up()

    def look_up(self) -> None:
        """Find the child in the list of `multiprocessing`, if it is there and was not found yet."""
        if self._process is None:
            self._process = _multiprocessing_child(self.pid)

    def cause(self) -> str | None:
        """How it ended, for people: `killed by SIGKILL`, `exit code 3`.

        Returns:
            `None` while it lives, and also where its end cannot be known (`gone` tells the two apart).
        """
        if self.pid <= 0:
            return None
        try:
            seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError:
            self.look_up()
            return self._cause_by_multiprocessing()
        if seen is None:
            return None
        if seen.si_code == os.CLD_EXITED:
            return _exited(seen.si_status)
        return _killed(seen.si_status)

    @property
    def gone(self) -> bool:
        """Whether no process of that id is left, or only what is waiting to be reaped."""
        # A grandchild's exit status is never ours to see, and nobody may come to reap it.
        return self.pid <= 0 or self.cause() is not None or process_identity(self.pid) is None

    def _cause_by_multiprocessing(self) -> str | None:
        popen = getattr(self._process, "_popen", None)
        # Its own attribute and not `exitcode`, which would reap the child.
        code = getattr(popen, "returncode", None)
        if not isinstance(code, int):
            return None
        return _killed(-code) if code < 0 else _exited(code)


def _multiprocessing_child(pid: int) -> Any:
    module = sys.modules.get("multiprocessing.process")
    if module is None:
        return None
    try:
        # Not `active_children()`: that reaps those that have ended.
        children = list(getattr(module, "_children", ()))
    except RuntimeError:  # the set changed meanwhile; the next look finds it
        return None
    for child in children:
        popen = getattr(child, "_popen", None)
        if getattr(popen, "pid", None) == pid:
            return child
    return None


def _exited(status: int) -> str:
    return f"exit code {status}"


def _killed(number: int) -> str:
    return f"killed by {_signal_name(number) or f'signal {number}'}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
