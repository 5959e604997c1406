"""The sockets of the collector, and what is said when one cannot be had."""

from __future__ import annotations

import errno
import shlex
import socket
from collections.abc import Sequence
from typing import Final

from otelprogress.exceptions import ProgressError

_BACKLOG: Final = 2048
"""All clients may come back within the same second."""
_PORTS_TRIED: Final = 100


class PortTaken(ProgressError):
    """An address cannot be listened on; the message has a command that would work."""


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
