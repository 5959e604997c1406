"""Servers that ours are compared with, each its own process: `python -m bench.peers KIND PORT [PORT]`.

`broadcast`: what comes as a line over TCP, on the second port, goes to every WebSocket client, one event a frame, by
`websockets.broadcast`.
`sink`: takes OTLP over HTTP, counts it and answers 200; `GET /` gives the bytes so far.
`flood`: writes without end to whoever connects: what a reader alone can take.
`feed`: the in-process feed of the SDK, with room for many.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection, broadcast, serve

_FLOOD = b"\x00" * 65_536


async def websockets_broadcast(port: int, publish_port: int) -> None:
    """Clients on one port, those who publish on the other."""
    connections: set[ServerConnection] = set()

    async def stay(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def publish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            broadcast(connections, line[:-1].decode())
            await asyncio.sleep(0)
        writer.close()

    async with (
        serve(stay, "127.0.0.1", port, compression=None, max_size=None),
        await asyncio.start_server(publish, "127.0.0.1", publish_port),
    ):
        await asyncio.Event().wait()


class Sink(asyncio.Protocol):
    """One connection of an HTTP/1.1 server that looks at nothing but the length."""

    taken_bytes = 0

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            _, found, after = head.partition(b"content-length:")
            size = int(after.partition(b"\r\n")[0]) if found else 0
            if len(self._buffer) < end + 4 + size:
                return
            del self._buffer[: end + 4 + size]
            Sink.taken_bytes += size
            answer = str(Sink.taken_bytes).encode() if head.startswith(b"get") else b""
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n%b"
                % (len(answer), answer)
            )


async def sink(port: int) -> None:
    """Serve `Sink`."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


def flood(port: int) -> None:
    """Raw `send` to everybody in turn, as many connections as there are."""
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    connections: list[socket.socket] = []
    listener.settimeout(1.0)
    while True:
        try:
            connection, _ = listener.accept()
            connection.setblocking(False)
            connections.append(connection)
        except TimeoutError:
            if len(connections) > 1:
                break
    while connections:
        for connection in tuple(connections):
            try:
                connection.send(_FLOOD)
            except BlockingIOError:
                continue
            except OSError:
                connections.remove(connection)


async def feed(port: int) -> None:
    """The SDK's own server."""
    from otelprogress.feed.connection import ServerLimits
    from otelprogress.feed.host import Host
    from otelprogress.feed.server import WebSocketServer
    from otelprogress.model.tree import OperationTree
    from otelprogress.protocol.cursor import CursorKey
    from otelprogress.protocol.hub import Hub

    hub = Hub(OperationTree(), epoch="bench", cursor_key=CursorKey(bytes(32)))
    server = WebSocketServer(
        Host(hub),
        token="bench",
        port=port,
        limits=ServerLimits(max_feed_clients=20_000, max_unauthenticated=1_024),
    )
    server.start()
    await asyncio.Event().wait()


KINDS: dict[str, Callable[..., object]] = {
    "broadcast": lambda port, publish_port: asyncio.run(websockets_broadcast(port, publish_port)),
    "sink": lambda port: asyncio.run(sink(port)),
    "flood": flood,
    "feed": lambda port: asyncio.run(feed(port)),
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*map(int, sys.argv[2:]))
