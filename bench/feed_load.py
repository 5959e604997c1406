"""Many WebSocket readers on one core: they count events in the bytes that come, and parse no JSON.

A reader that is *sampled* takes the time out of each event's message (`stamped`), which is what latencies are made of.
"""

from __future__ import annotations

import base64
import os
import re
import select
import socket
import time

_STAMP_DIGITS = 19
_EVENT = b'"previous_durable":'
"""Once in each event of a feed."""
_TAIL = len(_EVENT) - 1
_STAMPED = re.compile(rb'"previous_durable":\d+,"time_unix_ns":\d+,"message":"@(\d{19})"')
_LONGEST = 128
"""No match of that is longer."""
_RECEIVE_BYTES = 1 << 18
_PONG = b"\x8a\x80\x00\x00\x00\x00"
LIFE_EVERY_S = 10.0
"""Unasked pongs: any byte tells the server that the reader lives."""


def stamped(time_unix_ns: int) -> str:
    """The message of an event that readers count."""
    return f"@{time_unix_ns:0{_STAMP_DIGITS}d}"


def client_frame(payload: bytes) -> bytes:
    """A text frame of a client, masked with zeros: the payload stands in it as it is."""
    size = len(payload)
    head = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + head + bytes(4) + payload


class Reader:
    """One connection."""

    __slots__ = ("rest", "sampled", "socket", "tail")

    def __init__(self, connection: socket.socket, *, sampled: bool) -> None:
        self.socket = connection
        self.sampled = sampled
        self.tail = b""
        self.rest = b""


class Readers:
    """All of them.

    Args:
        port: of the server.
        hello: what each says once it is upgraded, in order.
        until: what the server's answer has to hold before it counts as connected; empty: nothing.
        path: of the upgrade.
        headers: of the upgrade, beside those that it must have.
    """

    def __init__(
        self,
        port: int,
        *hello: bytes,
        until: bytes = b"",
        path: str = "/",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._port = port
        self._hello = b"".join(map(client_frame, hello))
        self._until = until
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._upgrade = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n{extra}\r\n"
        ).encode()
        self._readers: dict[int, Reader] = {}
        self._buffer = bytearray(_RECEIVE_BYTES + _TAIL)
        self._view = memoryview(self._buffer)
        self._life_at_s = time.monotonic() + LIFE_EVERY_S
        self.poll = select.epoll()
        self.events = 0
        """Counted so far, by all readers together."""
        self.received_bytes = 0
        self.reads = 0
        self.latencies_ms: list[float] = []

    def __len__(self) -> int:
        return len(self._readers)

    def open(self, count: int, *, sampled: int = 0) -> None:
        """Connect that many more, one after the other; the first of them are sampled.

        Raises:
            RuntimeError: the server refused one.
        """
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", self._port), 30)
            self._connect(connection)
            self._add(connection, sampled=number < sampled)

    def open_bare(self, count: int) -> None:
        """Connect that many over plain TCP, which is nothing to the server but somebody to write to."""
        for _ in range(count):
            self._add(socket.create_connection(("127.0.0.1", self._port), 30), sampled=False)

    def _add(self, connection: socket.socket, *, sampled: bool) -> None:
        connection.setblocking(False)
        self._readers[connection.fileno()] = Reader(connection, sampled=sampled)
        self.poll.register(connection, select.EPOLLIN)

    def _connect(self, connection: socket.socket) -> None:
        connection.sendall(self._upgrade)
        answer = b""
        said = not self._hello
        while True:
            part = connection.recv(65_536)
            answer += part
            head, found, rest = answer.partition(b"\r\n\r\n")
            if not part or (found and b" 101 " not in head.partition(b"\r\n")[0]):
                raise RuntimeError(f"the server refused a reader: {answer[:300]!r}")
            if found and not said:
                connection.sendall(self._hello)
                said = True
            if found and self._until in rest:
                return

    def read(self, timeout_s: float) -> list[int]:
        """Take what has come; file numbers that are no reader's, for whoever registered them with `poll`."""
        others: list[int] = []
        view, buffer, readers = self._view, self._buffer, self._readers
        ready = self.poll.poll(timeout_s)
        for number, _ in ready:
            reader = readers.get(number)
            if reader is None:
                others.append(number)
                continue
            self.reads += 1
            if reader.sampled:
                self._sample(reader)
                continue
            tail = reader.tail
            kept = len(tail)
            buffer[:kept] = tail
            size = reader.socket.recv_into(view[kept:])
            if not size:
                raise RuntimeError("the server closed a reader")
            self.received_bytes += size
            end = kept + size
            self.events += buffer.count(_EVENT, 0, end)
            reader.tail = bytes(view[max(0, end - _TAIL) : end])
        if time.monotonic() >= self._life_at_s:
            self._show_life()
        return others

    def _sample(self, reader: Reader) -> None:
        part = reader.socket.recv(_RECEIVE_BYTES)
        now_ns = time.time_ns()
        if not part:
            raise RuntimeError("the server closed a reader")
        self.received_bytes += len(part)
        whole = reader.rest + part
        end = 0
        for found in _STAMPED.finditer(whole):
            self.latencies_ms.append((now_ns - int(found[1])) / 1e6)
            self.events += 1
            end = found.end()
        reader.rest = whole[max(end, len(whole) - _LONGEST) :]

    def _show_life(self) -> None:
        self._life_at_s = time.monotonic() + LIFE_EVERY_S
        for reader in self._readers.values():
            reader.socket.send(_PONG)

    def settle(self, quiet_s: float = 0.2, *, at_most_s: float = 10.0) -> None:
        """Read until nothing has come for so long, and forget what was counted."""
        until_s = time.monotonic() + at_most_s
        while time.monotonic() < until_s:
            before = self.reads
            self.read(quiet_s)
            if self.reads == before:
                break
        self.events = self.received_bytes = self.reads = 0
        self.latencies_ms = []

    def close(self) -> None:
        """Hang up."""
        for reader in self._readers.values():
            reader.socket.close()
        self._readers.clear()
        self.poll.close()


def collector_readers(port: int, *, token: str = "") -> Readers:
    """Readers of a feed, who want everything durable.

    Args:
        port: of the collector, or of the SDK's server.
        token: empty: none is needed.
    """
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    return Readers(
        port,
        b'{"type":"hello","version":1,"client":"bench"}',
        b'{"type":"subscribe","id":"s","filter":{},"level":"milestones","window_bytes":0}',
        until=b'"snapshot_end"',
        path="/v1/feed",
        headers={"Sec-WebSocket-Protocol": "otelprogress.v1.json"} | authorization,
    )


def nats_readers(websocket_port: int) -> Readers:
    """Subscribers of a nats-server, over its WebSocket port."""
    return Readers(
        websocket_port,
        b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nSUB progress 1\r\nPING\r\n',
        until=b"PONG",
    )
