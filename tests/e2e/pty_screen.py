"""A program in a pseudo-terminal whose screen can be read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Sequence
from typing import Self

import pyte

from tests.waiting import eventually


class PtyProgram:
    """Runs until it is left; what it draws is kept up to date by a thread."""

    def __init__(
        self, command: Sequence[str], *, columns: int = 100, lines: int = 30, **environ: str
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=5_000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.raw = b""
        dropped = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTEST_CURRENT_TEST"}
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        self.process = subprocess.Popen(
            list(command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**kept, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environ},
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65_536)
            except OSError:  # the last writer has closed it
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """The screen without its empty end."""
        with self._lock:
            seen = [line.rstrip() for line in self._screen.display]
        while seen and not seen[-1]:
            seen.pop()
        return seen

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line_with(self, text: str) -> str:
        """The first line with that text; empty: there is none."""
        return next((line for line in self.lines if text in line), "")

    def wait_for(self, predicate: Callable[[PtyProgram], object], timeout_s: float = 30.0) -> None:
        try:
            eventually(lambda: predicate(self), timeout_s, every_s=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.text}") from error

    def interrupt(self) -> int:
        """Press Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._reader.join(10)
        return code
