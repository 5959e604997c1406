"""A proxy that understands WebSocket frames: single messages are lost, doubled, or take their connection with them.

TCP itself loses no frame and doubles none: what stands between two ends may. Whatever is no WebSocket passes as it is.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from typing import Literal, Self

Fate = Literal["pass", "lose", "double", "reset"]
Judge = Callable[[str, bytes], Fate]
"""(`up` or `down`, the text of a message) -> what becomes of it. Called on the proxy's thread."""
_HEAD_BYTES = 65_536


class FrameProxy:
    """Forward to `target`, as `judge` says."""

    def __init__(self, target: tuple[str, int], judge: Judge) -> None:
        self.target = target
        self.judge = judge
        self.port = 0
        self.fates: Counter[Fate] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def reset_all(self) -> None:
        """RST every open connection now."""
        self._loop.call_soon_threadsafe(self._reset, *tuple(self._writers))

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopping.wait()
        server.close()
        self._reset(*self._writers)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(client)
        server: asyncio.StreamWriter | None = None
        try:
            server_reader, server = await asyncio.open_connection(*self.target)
            self._writers.add(server)
            await self._forward(reader, client, server_reader, server)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            # Whatever ends one side ends the other.
            pair = [client] if server is None else [client, server]
            for writer in pair:
                self._writers.discard(writer)
                writer.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        there = b"%s:%d" % (self.target[0].encode(), self.target[1])
        server.write(re.sub(rb"(?i)(\r\nhost:) [^\r]*", rb"\1 " + there, head))
        if not re.search(rb"(?i)\r\nupgrade: websocket", head):
            await _both(_bytes(reader, server), _bytes(server_reader, client))
            return
        client.write(await server_reader.readuntil(b"\r\n\r\n"))
        pair = (client, server)
        await _both(
            self._frames("up", reader, server, pair), self._frames("down", server_reader, client, pair)
        )

    async def _frames(
        self,
        way: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        while True:
            raw, text = await _frame(reader)
            fate: Fate = "pass" if text is None else self.judge(way, text)
            if text is not None:
                self.fates[fate] += 1
            if fate == "reset":
                self._reset(*pair)
                return
            if fate != "lose":
                writer.write(raw * (2 if fate == "double" else 1))
                await writer.drain()

    def _reset(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _both(*ways: object) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]  # type: ignore[arg-type]  # coroutines
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes | None]:
    """One frame as it came, and the text of a whole text message; `None`: it is something else."""
    head = await reader.readexactly(2)
    raw = bytearray(head)
    masked, size = head[1] & 0x80, head[1] & 0x7F
    if size in (126, 127):
        length = await reader.readexactly(2 if size == 126 else 8)
        raw += length
        size = int.from_bytes(length, "big")
    mask = await reader.readexactly(4) if masked else bytes(4)
    raw += mask if masked else b""
    data = await reader.readexactly(size)
    raw += data
    if head[0] != 0x81:
        return bytes(raw), None
    return bytes(raw), bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)) if masked else data
