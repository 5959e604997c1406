"""The program that `otelprogress run` runs: its start, its process group, what it is told, and its end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from otelprogress.cli.running import ending
from otelprogress.cli.running.ending import Ending
from otelprogress.cli.running.terminal import Terminal

_ASKS_FOR_TERMINAL: Final = frozenset({signal.SIGTTIN, signal.SIGTTOU})
_LOOK_EVERY_S: Final = 0.02
_TO_ALL: Final = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH}
)
"""A terminal or a supervisor means the whole job by these; others are for the program itself."""


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    terminal: Terminal | None,
    alone: bool,
    **streams: Any,
) -> subprocess.Popen[bytes]:
    """Start it in a process group of its own.

    Args:
        command: the program, looked for in PATH, and its arguments.
        environment: all of it.
        terminal: whose foreground it gets; `None`: there is none.
        alone: whether this process has one thread only, so that code may run between fork and exec.
        streams: `stdin`, `stdout`, `stderr` as for `subprocess`.

    Raises:
        OSError: it cannot be started.
    """
    eager = terminal is not None and terminal.eager and terminal.is_ours()
    options: dict[str, Any] = {"env": environment, "process_group": 0, **streams}
    if eager and alone:
        assert terminal is not None
        options["preexec_fn"] = terminal.take_in_child
    try:
        process = subprocess.Popen(list(command), **options)  # noqa: S603 - what was asked for
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # A script without a first line that says by what: shells run it themselves.
        import shutil

        script = shutil.which(command[0], path=environment.get("PATH")) or command[0]
        process = subprocess.Popen(["/bin/sh", script, *command[1:]], **options)  # noqa: S603
    if eager:
        assert terminal is not None
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        terminal.give(process.pid)
    return process


class Program:
    """A program that runs.

    Args:
        process: as `start` gave it.
        terminal: `None`: there is none.
        grace_s: from SIGTERM to SIGKILL when it is cancelled, seconds.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], *, terminal: Terminal | None, grace_s: float
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._terminal = terminal
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._kill_at_s = 0.0
        self._gone = threading.Event()
        self.cancelled = False
        self.paused = False
        self.had_terminal = False
        """Whether it was in the terminal's foreground when it ended."""
        if terminal is not None:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # after its start: it would inherit that

    # --- what it is told ---------------------------------------------------------------------------------------

    def obey(self, action: str) -> None:
        """Do what a command says, now: `cancel`, `pause` or `resume`. Any thread. A second cancel changes nothing."""
        with self._lock:
            if self._gone.is_set() or self.cancelled:
                return
            if action == "cancel":
                self.cancelled, self.paused = True, False
                self._kill_at_s = time.monotonic() + self._grace_s
                self._to_group(signal.SIGTERM)
                self._to_group(signal.SIGCONT)  # a stopped program would not notice
                threading.Thread(target=self._kill, name="otelprogress-cancel", daemon=True).start()
            elif action == "pause":
                self.paused = True
                self._to_group(signal.SIGSTOP)
            elif action == "resume":
                self.paused = False
                self._to_group(signal.SIGCONT)

    def pass_on(self, number: int) -> None:
        """Give it a signal that this process got. In a signal handler: takes no lock."""
        if number == signal.SIGCONT:
            self._go_on()
        elif number == signal.SIGTTIN:
            self._lend()
        elif number in _TO_ALL:
            self._to_group(number)
        elif not self._gone.is_set():
            with contextlib.suppress(OSError):
                os.kill(self.pid, number)

    def _go_on(self) -> None:
        """The job was continued, in the foreground or not."""
        terminal = self._terminal
        if terminal is not None and terminal.eager and terminal.is_ours():
            terminal.give(self.pid)
        if not self.paused:
            self._to_group(signal.SIGCONT)

    def _lend(self) -> None:
        """Somebody of this job wants the keyboard, which the program had asked for: `less`, behind `ssh`."""
        terminal = self._terminal
        if terminal is None or terminal.eager:
            return
        terminal.take_back(self.pid)
        if terminal.is_ours():  # also where it was taken back a moment ago: they were stopped before
            os.killpg(terminal.group, signal.SIGCONT)
        else:  # this job is in the background, and stops
            self._to_group(signal.SIGTSTP)

    def _to_group(self, number: int) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(OSError):  # nobody is left, or only who is not ours to signal
                os.killpg(self.pid, number)

    def _kill(self) -> None:
        if not self._gone.wait(max(0.0, self._kill_at_s - time.monotonic())):
            self._to_group(signal.SIGKILL)

    # --- its end -----------------------------------------------------------------------------------------------

    def wait(self) -> Ending:
        """Wait for its end, stopping and going on with it where a terminal controls this job. Main thread.

        After a cancel what it has started is waited for, too, for what is left of the grace, and then killed.
        """
        while True:
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            self._stopped(os.WSTOPSIG(status))
        found = ending.of_status(status)
        self._process.returncode = found.code
        if self._terminal is not None:
            self.had_terminal = self._terminal.take_back(self.pid)
        if self.cancelled:
            self._end_group()
        self._gone.set()
        return found

    def _stopped(self, number: int) -> None:
        terminal = self._terminal
        if terminal is None or number == signal.SIGSTOP:
            return  # a pause, or somebody who will let it go on as well
        if number in _ASKS_FOR_TERMINAL and terminal.is_ours():
            terminal.give(self.pid)
            self._to_group(signal.SIGCONT)
            return
        terminal.take_back(self.pid)
        terminal.stop_with_it()
        self._go_on()

    def _end_group(self) -> None:
        while time.monotonic() < self._kill_at_s:
            try:
                os.killpg(self.pid, 0)
            except OSError:  # nobody is left
                return
            time.sleep(_LOOK_EVERY_S)
        self._to_group(signal.SIGKILL)
