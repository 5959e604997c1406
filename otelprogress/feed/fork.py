"""Close inherited feed and link sockets in a forked child, at once.

A fork copies every descriptor. A child that keeps its parent's sockets keeps them open in the kernel after the
parent was killed: whoever is at the other end would never see the connection end, and would never learn that
the parent died. So the child looks through its descriptors before any other code of ours runs and gives up each
TCP socket that belongs to a guarded address, whether or not we ever held a reference to it: a connection that
the event loop accepted a moment before the fork is found too.

A descriptor is given up by putting the null device in its place. Closing it would let a socket object that was
inherited with it close a stranger's descriptor of the same number later, and telling an inherited event loop
about it would change the epoll set that parent and child share.
"""

from __future__ import annotations

import contextlib

# `getaddrinfo` imports it with the first host name, on the feed's or the link's thread: a fork in that moment leaves
# the child with a module that is being imported for ever, and its link would never connect (seen under load).
import encodings.idna  # noqa: F401
import os
import resource
import socket
import stat
from collections.abc import Iterator
from typing import Final

Address = tuple[str, int]

_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, never bound
_MAX_SCANNED_DESCRIPTORS: Final = 4096
"""How many descriptors are tried where the system lists none."""

_local: set[Address] = set()
_connecting: set[int] = set()
_null_fd = -1


def guard_listener(host: str, port: int) -> None:
    """Give up, in every child forked from now on, the socket listening at this address and all it accepted.

    Args:
        host: the address the socket is bound to, numeric; a wildcard stands for all addresses.
        port: the port really bound, never 0.
    """
    _open_null_device()
    _local.add((host, port))


def guard_connection(host: str, port: int) -> None:
    """Give up, in every child forked from now on, the one connection whose end here has this numeric address.

    By its own end and not by its peer's: an application has connections to the same collector too.
    """
    _open_null_device()
    _local.add((host, port))


def release_connection(host: str, port: int) -> None:
    """The opposite of `guard_connection`; the number may be a stranger's next."""
    _local.discard((host, port))


def release_listener(host: str, port: int) -> None:
    """The opposite of `guard_listener`; an unknown address is ignored."""
    _local.discard((host, port))


def guard_connecting(fd: int) -> None:
    """Give up this descriptor too: a socket that is being connected has no address yet to know it by."""
    _open_null_device()
    _connecting.add(fd)


def release_connecting(fd: int) -> None:
    """The opposite of `guard_connecting`, to be called before the descriptor is closed."""
    _connecting.discard(fd)


def give_up_inherited() -> int:
    """Give up all guarded sockets of this process and forget the guards. Called in a forked child.

    Returns:
        How many descriptors were given up.
    """
    given_up = 0
    if _local or _connecting:
        for fd in list(_descriptors()):
            if fd in _connecting or _is_guarded(fd):
                with contextlib.suppress(OSError):
                    os.dup2(_null_fd, fd, inheritable=False)
                    given_up += 1
    _local.clear()
    _connecting.clear()
    return given_up


def _open_null_device() -> None:
    # Opened beforehand: a child may have no descriptor left to open it with.
    global _null_fd
    if _null_fd < 0:
        _null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _descriptors() -> Iterator[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(folder)  # noqa: PTH208 - numbers are wanted, not paths
        except OSError:
            continue
        yield from (int(name) for name in names if name.isdecimal())
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield from range(3, min(limit, _MAX_SCANNED_DESCRIPTORS) if limit > 0 else _MAX_SCANNED_DESCRIPTORS)


def _is_guarded(fd: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        borrowed = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        if borrowed.family not in (socket.AF_INET, socket.AF_INET6) or borrowed.type != socket.SOCK_STREAM:
            return False
        host, port = borrowed.getsockname()[:2]
        return any(
            port == guarded_port and (host == guarded_host or guarded_host in _WILDCARDS)
            for guarded_host, guarded_port in _local
        )
    except OSError:
        return False
    finally:
        borrowed.detach()


os.register_at_fork(after_in_child=give_up_inherited)
