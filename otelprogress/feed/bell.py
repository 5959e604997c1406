"""A bell that any thread rings and one thread polls for, beside its socket."""

from __future__ import annotations

import contextlib
import socket


class Bell:
    """Sockets and not a pipe: one that was closed refuses, where a number may be a stranger's by then."""

    def __init__(self) -> None:
        self._ear, self._hammer = socket.socketpair()
        self._ear.setblocking(False)
        self._hammer.setblocking(False)

    def ring(self) -> None:
        """Wake the listener. Any thread; never waits, also in a signal handler."""
        with contextlib.suppress(OSError):  # full: it rings already; or closed: nobody listens
            self._hammer.send(b"!")

    def fileno(self) -> int:
        """What to poll for reading; -1 once closed."""
        return self._ear.fileno()

    def hush(self) -> None:
        """Take note of every ring so far."""
        with contextlib.suppress(OSError):
            self._ear.recv(4096)

    def close(self) -> None:
        """Give both ends back; idempotent."""
        self._ear.close()
        self._hammer.close()
