"""The sockets of the collector, and what is said when one cannot be had, or takes no more connections."""

from __future__ import annotations

import asyncio
import errno
import logging
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from otelprogress.exceptions import ProgressError

_LOG: Final = logging.getLogger("otelprogress_collector")
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SAID_EVERY_S: Final = 10.0
_BACKLOG: Final = 2048
"""All clients may come back within the same second."""
_PORTS_TRIED: Final = 100


class PortTaken(ProgressError):
    """An address cannot be listened on; the message has a command that would work."""


class LoopErrors:
    """The event loop's handler of errors: that connections cannot be taken is said now and then, all else as always.

    Without descriptors asyncio tries again each second, for the whole backlog, and says each time with a traceback
    that it cannot: two thousand of them a second fill the disk that the store is on.

    Args:
        monotonic_s: the clock by which it is said again.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._said_at_s: float | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Judge one error."""
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in _EXHAUSTED:
            now_s = self._monotonic_s()
            if self._said_at_s is None or now_s - self._said_at_s >= _SAID_EVERY_S:
                self._said_at_s = now_s
                _LOG.error(
                    "no connection can be taken: %s. Raise the limit of open files (ulimit -n, LimitNOFILE=)",
                    error.strerror,
                )
        elif "._start_serving(" in context["message"] and isinstance(error, ValueError):
            pass  # it wanted to try again, and the port is closed by now
        else:
            loop.default_exception_handler(context)


def listen(host: str, port: int, *, setting: str, arguments: Sequence[str]) -> socket.socket:
    """A listening TCP socket.

    Args:
        host: an address or a name; empty: every address.
        port: 0: any that is free.
        setting: `http_port` or `grpc_port`.
        arguments: of the command that was run, for the one that is suggested.

    Raises:
        PortTaken: something else listens there, or this user may not.
        OSError: no such address.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        what = "is taken" if error.errno == errno.EADDRINUSE else "may not be listened on by this user"
        raise PortTaken(
            f"port {port} of {host or 'every address'} ({setting}) {what}. "
            f"This would work: {_alternative(host, port, setting, arguments)}"
        ) from None
    listener.setblocking(False)
    return listener


def _alternative(host: str, port: int, setting: str, arguments: Sequence[str]) -> str:
    """The same command with a port that is free now."""
    flag = f"--{setting.replace('_', '-')}"
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == flag:
            skip = True
        elif not argument.startswith(f"{flag}="):
            kept.append(argument)
    return shlex.join(["otelprogress-collector", *(kept or ["serve"]), flag, str(_free_port(host, port))])


def _free_port(host: str, port: int) -> int:
    for candidate in range(max(port + 10, 1024), min(port + 10 + _PORTS_TRIED, 65_536)):
        try:
            with socket.create_server((host, candidate)):
                return candidate
        except OSError:
            continue
    return 0
