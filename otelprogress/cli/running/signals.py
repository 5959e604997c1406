"""Signals to `otelprogress run`, which are meant for its program."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final, NoReturn

from otelprogress.cli.running.program import Program

PASSED_ON: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGTTIN,
)
MEANT_AS_END: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP})


class Signals:
    """Takes signals from now on, and passes them on once there is a program.

    One that was ignored when this process started (`nohup`, a job in the background of a script) stays ignored: the
    program inherits that.
    """

    def __init__(self) -> None:
        self.received: set[int] = set()
        self._program: Program | None = None
        self._early: list[int] = []
        for number in PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received.add(number)
        if self._program is None:
            self._early.append(number)
        else:
            self._program.pass_on(number)

    def lead_to(self, program: Program) -> None:
        """From now on they are passed on; those that came before, too."""
        self._program = program
        early, self._early = self._early, []
        for number in early:
            program.pass_on(number)

    @property
    def asked_to_end(self) -> bool:
        """Whether this process was told to end."""
        return bool(self.received & MEANT_AS_END)


def die_of(number: int) -> NoReturn:
    """End as a process that never handled that signal, so that a shell's script around it ends, too."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # it was blocked
