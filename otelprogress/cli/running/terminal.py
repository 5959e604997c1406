"""The controlling terminal: who is in its foreground, and what Ctrl-Z means to whom.

The program has a process group of its own, so that a command to it hits nothing else. For Ctrl-C, Ctrl-Z and the
keyboard to be its own, that group has to be the terminal's foreground group, as if a shell had started it.

Where standard input and output are the terminal, it gets the foreground at once. Where one of them is not, there may be
others in this job who need the keyboard (`… | less`): then it gets it when it asks, which the system says by stopping it.
"""

from __future__ import annotations

import contextlib
import os
import signal


class Terminal:
    """The controlling terminal of this process.

    Attributes:
        group: this process's own group.
        eager: whether a program gets the foreground, where this process has it, without asking.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.group = os.getpgrp()
        self.eager = os.isatty(0) and os.isatty(1)

    def foreground(self) -> int:
        """The group in the foreground; -1: the terminal is gone."""
        try:
            return os.tcgetpgrp(self._descriptor)
        except OSError:
            return -1

    def is_ours(self) -> bool:
        """Whether this process's group is in the foreground."""
        return self.foreground() == self.group

    def give(self, group: int) -> None:
        """Put that group into the foreground. SIGTTOU must be ignored or blocked."""
        with contextlib.suppress(OSError):  # the terminal hung up, or the group is gone
            os.tcsetpgrp(self._descriptor, group)

    def take_in_child(self) -> None:
        """In a child between fork and exec, in its own group: into the foreground before it can miss it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        self.give(os.getpid())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})

    def take_back(self, group: int) -> bool:
        """Put this process's group into the foreground again; whether that group had it."""
        had = self.foreground() == group
        if had:
            self.give(self.group)
        return had

    def stop_with_it(self) -> None:
        """Stop as Ctrl-Z would have stopped this process's group; returns once it goes on.

        At once where the system ignores it, because nobody is there who could let it go on again.
        """
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            os.killpg(self.group, signal.SIGTSTP)
        finally:
            signal.signal(signal.SIGTSTP, before)


def controlling_terminal() -> Terminal | None:
    """The terminal that this process belongs to; `None`: to none, as in a daemon, a pipeline of CI, a container."""
    try:
        return Terminal(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return None
