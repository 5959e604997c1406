"""`otelprogress run --detach`: a runner in a session of its own, and the one who waits until it can be seen."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from otelprogress.cli.running import ending
from otelprogress.cli.running.arguments import Arguments
from otelprogress.cli.running.runner import Run, leave, remark

if TYPE_CHECKING:
    from otelprogress.cli.running.label_lock import LabelLock
    from otelprogress.cli.running.observation import Visible

_INTERRUPTED: Final = 130
_STARTED: Final = "started"
_NOT_STARTED: Final = "not started"


def run_detached(arguments: Arguments, lock: LabelLock | None) -> int:
    """Start a runner that outlives this process, and print the operation's id once others can see it.

    Returns:
        The exit code: 0, or why nothing was started.
    """
    try:
        output = os.open(arguments.log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        remark(f"otelprogress: --log {arguments.log}: {error.strerror}")
        return ending.NOT_RUN
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _runner(arguments, lock, output, writer)
    os.close(writer)
    os.close(output)
    try:
        with os.fdopen(reader, encoding="utf-8", errors="surrogateescape") as answers:
            answer = answers.read()
    except KeyboardInterrupt:
        remark("otelprogress: not waited for; it may run")
        return _INTERRUPTED
    return _explain(answer)


def _explain(answer: str) -> int:
    kind, _, rest = answer.partition("\t")
    if kind == _STARTED:
        run_id, handle, pid = rest.split("\t")
        where = (
            f"as {handle}: otelprogress wait {handle}" if handle else "unseen: OTELPROGRESS_DISABLED is on"
        )
        remark(f"otelprogress: process {pid} runs {where}")
        sys.stdout.write(run_id + "\n")
        sys.stdout.flush()
        return 0
    if kind == _NOT_STARTED:
        code, _, trouble = rest.partition("\t")
        remark(f"otelprogress: {trouble}")
        return int(code)
    remark("otelprogress: not started: the runner ended before it said why")
    return ending.NOT_RUN


def _runner(arguments: Arguments, lock: LabelLock | None, output: int, writer: int) -> None:
    """The runner's whole life. Never returns."""
    answered = False

    def answer(*words: object) -> None:
        nonlocal answered
        answered = True
        with contextlib.suppress(OSError):  # whoever asked may have left: that ends nothing here
            os.write(writer, "\t".join(map(str, words)).encode("utf-8", "surrogateescape"))
        os.close(writer)

    def tell(found: Visible, pid: int) -> None:
        answer(_STARTED, found.run_id, found.handle, pid)

    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if lock is not None:
            lock.say_holder()
        found = Run(arguments, lock, terminal=None, stdin=subprocess.DEVNULL).run_observed(tell)
        if found.trouble is not None:
            answer(_NOT_STARTED, found.code, found.trouble)
    except BaseException as error:
        if answered:
            remark(f"otelprogress: {type(error).__name__}: {error}")
        else:
            answer(_NOT_STARTED, ending.NOT_RUN, f"not started: {error}")
        leave(ending.NOT_RUN)
    leave(found.code)
