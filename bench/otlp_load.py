"""A load of OTLP/HTTP requests over keep-alive connections, from one core, without a client library in the way."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator

_ANSWER_BYTES = 65_536
_END_OF_HEAD = b"\r\n\r\n"


class HungUp(Exception):
    """The server closed the connection: servers do, when nothing comes for some seconds."""


class Connection:
    """One keep-alive connection; one request at a time."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/x-protobuf\r\nContent-Length: "
        ).encode()
        self._answer = b""
        self.sent_at_s = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, body: bytes) -> None:
        """Begin a request."""
        self.sent_at_s = time.perf_counter()
        self._socket.sendall(b"%b%d%b%b" % (self._head, len(body), _END_OF_HEAD, body))

    def answered(self) -> bool:
        """Read what is there; whether the answer is complete.

        Raises:
            RuntimeError: it is not 200.
            HungUp: there will be none.
        """
        part = self._socket.recv(_ANSWER_BYTES)
        if not part:
            raise HungUp(f"after {self._answer!r}")
        self._answer += part
        head, found, body = self._answer.partition(_END_OF_HEAD)
        if found and not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {self._answer[:300]!r}")
        if not found or not _complete(head.lower(), body):
            return False
        self._answer = b""
        return True

    def post(self, body: bytes) -> None:
        """One request, to its answer."""
        self.send(body)
        while not self.answered():
            pass

    def close(self) -> None:
        self._socket.close()


def _complete(head: bytes, body: bytes) -> bool:
    _, found, after = head.partition(b"content-length:")
    if found:
        return len(body) >= int(after.partition(b"\r\n")[0])
    return b"chunked" not in head or body.endswith(b"0\r\n\r\n")


def requests_per_s(
    port: int,
    path: str,
    bodies: Callable[[], Iterator[bytes]],
    *,
    connections: int,
    warm_up_s: float,
    duration_s: float,
) -> float:
    """How many requests were answered a second while every connection always had one under way.

    Args:
        port: of the server.
        path: of the requests.
        bodies: makes what one connection sends, in order.
        connections: side by side.
        warm_up_s: answered, but not counted.
        duration_s: counted.
    """
    senders = [(Connection(port, path), bodies()) for _ in range(connections)]
    poll = select.epoll()
    by_number = {}
    for connection, stream in senders:
        poll.register(connection, select.EPOLLIN)
        by_number[connection.fileno()] = connection, stream
        connection.send(next(stream))
    began_s = time.perf_counter() + warm_up_s
    ends_s = began_s + duration_s
    answered = 0
    try:
        while True:
            events = poll.poll(10)
            now_s = time.perf_counter()
            if now_s >= ends_s:
                return answered / (now_s - began_s)
            if not events:
                raise RuntimeError("the server answered nothing for ten seconds")
            for number, _ in events:
                connection, stream = by_number[number]
                if connection.answered():
                    answered += now_s >= began_s
                    connection.send(next(stream))
    finally:
        poll.close()
        for connection, _ in senders:
            connection.close()


def post_all(port: int, path: str, bodies: Iterator[bytes], *, connections: int = 8) -> int:
    """Send all of these, several at a time; how many there were."""
    poll = select.epoll()
    by_number: dict[int, Connection] = {}
    sent = 0
    for body, _ in zip(bodies, range(connections), strict=False):
        connection = Connection(port, path)
        by_number[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
        connection.send(body)
        sent += 1
    idle = 0
    while idle < len(by_number):
        for number, _ in poll.poll(30):
            if by_number[number].answered():
                following = next(bodies, None)
                if following is None:
                    idle += 1
                else:
                    by_number[number].send(following)
                    sent += 1
    poll.close()
    for connection in by_number.values():
        connection.close()
    return sent
