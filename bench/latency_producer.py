"""The application of the latency benchmark: says the time, idle or busy in between; run by `bench.latency`.

Arguments: `ours|foreign|websockets  idle|busy|count  EVENTS  INTERVAL_S`. Prints its address as a JSON line, waits
for a line on its standard input, works, and prints what it cost as a JSON line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

CLOSING_WORD = "over"


def main() -> None:
    """Serve, wait for the word, speak."""
    kind, mode, events, interval_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    with ExitStack() as stack:
        say, tick, address = {"ours": ours, "foreign": foreign, "websockets": bare_websockets}[kind](stack)
        print(json.dumps(address), flush=True)
        sys.stdin.readline()
        wall, everything, own = time.perf_counter(), time.process_time(), time.thread_time()
        for _ in range(events):
            tick() if mode == "count" else say(str(time.time_ns()))
            if mode == "idle":
                time.sleep(interval_s)
            else:
                spin(interval_s)
        others_s = (time.process_time() - everything) - (time.thread_time() - own)
        print(json.dumps({"others_share": others_s / (time.perf_counter() - wall)}), flush=True)
        say(CLOSING_WORD)
        sys.stdin.readline()


def spin(duration_s: float) -> None:
    """Be CPU-bound in pure Python: the worst neighbour a thread can have."""
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        sum(range(200))


def ours(stack: ExitStack) -> tuple[Callable[[str], object], Callable[[], object], dict[str, str]]:
    """An operation's notes, on the feed of `configure()`."""
    import otelprogress as progress

    progress.configure(view="off", feed="127.0.0.1:0")
    stack.callback(progress.shutdown)
    operation = stack.enter_context(progress.operation("latency"))
    runtime_file: dict[str, Any] = json.loads(Path(os.environ["OTELPROGRESS_LINK"]).read_text())
    return operation.note, operation.advance, {"url": runtime_file["url"], "token": runtime_file["token"]}


def foreign(stack: ExitStack) -> tuple[Callable[[str], object], Callable[[], object], dict[str, str]]:
    """Plain `span.add_event(…)` by code that knows nothing of us."""
    from opentelemetry import trace

    _, tick, address = ours(stack)
    return trace.get_current_span().add_event, tick, address


def bare_websockets(stack: ExitStack) -> tuple[Callable[[str], object], Callable[[], object], dict[str, str]]:
    """The peer: a `websockets` server on a thread of its own, told by `call_soon_threadsafe`."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    loop = asyncio.new_event_loop()
    connections: set[ServerConnection] = set()
    port: list[int] = []
    ready = threading.Event()

    async def stay(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def main() -> None:
        async with serve(stay, "127.0.0.1", 0, compression=None) as server:
            port.append(server.sockets[0].getsockname()[1])
            ready.set()
            await server.serve_forever()

    threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True).start()
    ready.wait()

    def say(text: str) -> None:
        loop.call_soon_threadsafe(broadcast, connections, json.dumps({"message": text}))

    return say, lambda: say("tick"), {"url": f"ws://127.0.0.1:{port[0]}", "token": ""}


if __name__ == "__main__":
    main()
