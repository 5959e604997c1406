"""Whether the process that wrote something is still the one that has its pid.

A pid alone proves nothing: it is given again. On Linux a process is told by the host's name, the boot, the pid
namespace and its start in clock ticks since the boot (`/proc/<pid>/stat`). A process of another host or another
namespace cannot be judged from here, so it is never called gone. Elsewhere there is no start time without a
subprocess: only the absence of the pid counts, and a pid that was given again passes as alive until its feed
refuses the connection.
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import Final

GONE: Final = "gone"
"""Stands where an identity does, for a process that had ended before anyone could ask for it."""

_PROC: Final = Path("/proc")
_DEAD_STATES: Final = frozenset({"Z", "X", "x"})
_START_TIME_FIELD: Final = 19
"""Field 22 of proc(5), counted from 0 behind the command's closing parenthesis."""


def process_identity(pid: int) -> str | None:
    """What tells this process from every other one, ever; `None` when no process has that pid.

    Empty where only the pid is known (no `/proc`).
    """
    if not _has_proc():
        return "" if _exists(pid) else None
    started = _start_ticks(pid)
    return None if started is None else f"{_here()} {started}"


def is_gone(pid: int, identity: str) -> bool:
    """Whether it is proven that the process with that pid and identity does not run any more.

    `identity` is what `process_identity` answered while it ran, or `GONE`. `False` also when that cannot be judged
    from here.
    """
    if identity == GONE:
        return True
    if not identity or not _has_proc():
        return not _exists(pid)
    host, boot, namespace, started = (identity.split(" ") + [""] * 3)[:4]
    my_host, my_boot, my_namespace = _here().split(" ")
    if host != my_host:
        return False
    if boot != my_boot:
        return True
    if namespace != my_namespace:
        return False
    return _start_ticks(pid) != started


@functools.cache
def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


@functools.cache
def _here() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").readlink().name
    except OSError:  # a sandbox that hides them: the host's name must do
        boot = namespace = "-"
    return f"{socket.gethostname().replace(' ', '-') or '-'} {boot} {namespace}"


def _start_ticks(pid: int) -> str | None:
    """Clock ticks from boot to the start of the process; `None` when it is gone or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The command stands in parentheses and may itself contain spaces and parentheses.
    fields = stat[stat.rfind(b")") + 1 :].decode("ascii", "replace").split()
    if len(fields) <= _START_TIME_FIELD or fields[0] in _DEAD_STATES:
        return None
    return fields[_START_TIME_FIELD]


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else, so it is there
        return True
    return True
