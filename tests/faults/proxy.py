"""A TCP proxy that breaks what passes through it, where and how it is told.

It runs on a thread of its own, so that blocking and asynchronous tests, and tests with other processes, use it alike.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Plan:
    """What happens to one connection. Offsets count the bytes that went that way; `None`: it does not happen."""

    reset_down_at: int | None = None
    """RST to both sides once this many bytes went from server to client: the rest of the chunk is lost."""
    reset_up_at: int | None = None
    """RST to both sides once this many bytes went from client to server."""
    cut_down_at: int | None = None
    """A polite FIN to both sides after this many bytes from server to client, in the middle of whatever it is."""
    stall_down_at: int | None = None
    """From this many bytes on nothing goes from server to client until `release()`; the other way flows."""
    stall_up_at: int | None = None
    """The same from client to server."""
    half_open_at: int | None = None
    """After this many bytes from server to client both sides stay open and nothing is ever forwarded again."""
    slice_bytes: int = CHUNK_BYTES
    """Forward in pieces of at most this size, each in a write of its own."""
    latency_s: float = 0.0
    """Wait this long before forwarding each piece."""


@dataclass(eq=False)
class _Pipe:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    plan: Plan
    down_bytes: int = 0
    up_bytes: int = 0
    dead: bool = False


class FaultProxy:
    """Forward to `target`; `plan_for(n)` says what breaks on the n-th connection, from 0."""

    def __init__(self, target: tuple[str, int], plan_for: Callable[[int], Plan] = lambda _: Plan()) -> None:
        self.target = target
        self.plan_for = plan_for
        self.connections = 0
        self.resets = 0
        self.down_bytes = 0
        """Bytes that reached clients, over all connections."""
        self.port = 0
        self._pipes: set[_Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    @property
    def open_connections(self) -> int:
        return sum(1 for pipe in tuple(self._pipes) if not pipe.dead)

    def release(self) -> None:
        """Let what was stalled flow."""
        self._loop.call_soon_threadsafe(self._released.set)

    def reset_all(self) -> None:
        """RST every open connection now."""
        self._loop.call_soon_threadsafe(lambda: [self._reset(pipe) for pipe in tuple(self._pipes)])

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._main(ready))

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._released = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopping.wait()
        server.close()
        for pipe in tuple(self._pipes):
            self._reset(pipe)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        plan = self.plan_for(self.connections)
        self.connections += 1
        try:
            server_reader, server = await asyncio.open_connection(*self.target)
        except OSError:
            client.transport.abort()
            return
        if plan.stall_down_at is not None:
            # The kernel here would take megabytes before the sender notices.
            server.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        pipe = _Pipe(client, server, plan)
        self._pipes.add(pipe)
        for pump in (self._down(pipe, server_reader), self._up(pipe, reader)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _down(self, pipe: _Pipe, reader: asyncio.StreamReader) -> None:
        plan = pipe.plan
        while data := await self._read(pipe, reader):
            for piece in _pieces(data, plan.slice_bytes):
                if plan.latency_s:
                    await asyncio.sleep(plan.latency_s)
                end = pipe.down_bytes + len(piece)
                for fault, offset in (
                    (self._reset, plan.reset_down_at),
                    (self._cut, plan.cut_down_at),
                    (self._half_open, plan.half_open_at),
                ):
                    if offset is not None and end >= offset:
                        kept = piece[: max(0, offset - pipe.down_bytes)]
                        await self._write(pipe, pipe.client, kept)
                        self.down_bytes += len(kept)
                        fault(pipe)
                        return
                if plan.stall_down_at is not None and end >= plan.stall_down_at:
                    await self._released.wait()
                await self._write(pipe, pipe.client, piece)
                pipe.down_bytes = end
                self.down_bytes += len(piece)
        self._cut(pipe)

    async def _up(self, pipe: _Pipe, reader: asyncio.StreamReader) -> None:
        plan = pipe.plan
        while data := await self._read(pipe, reader):
            for piece in _pieces(data, plan.slice_bytes):
                if plan.latency_s:
                    await asyncio.sleep(plan.latency_s)
                end = pipe.up_bytes + len(piece)
                if plan.reset_up_at is not None and end >= plan.reset_up_at:
                    await self._write(pipe, pipe.server, piece[: max(0, plan.reset_up_at - pipe.up_bytes)])
                    self._reset(pipe)
                    return
                if plan.stall_up_at is not None and end >= plan.stall_up_at:
                    await self._released.wait()
                await self._write(pipe, pipe.server, piece)
                pipe.up_bytes = end
        self._cut(pipe)

    async def _read(self, pipe: _Pipe, reader: asyncio.StreamReader) -> bytes:
        try:
            data = await reader.read(CHUNK_BYTES)
        except OSError:
            self._reset(pipe)
            return b""
        return b"" if pipe.dead else data

    async def _write(self, pipe: _Pipe, writer: asyncio.StreamWriter, data: bytes) -> None:
        if pipe.dead or not data:
            return
        try:
            writer.write(data)
            await writer.drain()
        except OSError:
            self._reset(pipe)

    def _reset(self, pipe: _Pipe) -> None:
        if pipe.dead:
            return
        pipe.dead = True
        self.resets += 1
        for writer in (pipe.client, pipe.server):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._pipes.discard(pipe)

    def _cut(self, pipe: _Pipe) -> None:
        if pipe.dead:
            return
        pipe.dead = True
        for writer in (pipe.client, pipe.server):
            writer.close()
        self._pipes.discard(pipe)

    def _half_open(self, pipe: _Pipe) -> None:
        """Nothing flows, nobody is told: as when a cable is pulled."""
        for writer in (pipe.client, pipe.server):
            writer.transport.pause_reading()


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
