"""Forked children that never come back into the test run."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def forked(body: Callable[[], bool]) -> int:
    """The pid of a child that runs `body` and leaves: 0 where it answers `True`, 1 where not, 99 where it raises."""
    pid = os.fork()
    if pid == 0:
        try:
            answer = body()
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        os._exit(0 if answer else 1)
    return pid


def exit_code(pid: int) -> int:
    """How that child left; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
