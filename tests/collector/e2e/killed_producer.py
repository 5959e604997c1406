"""A process of many independent senders that send progress until told to stop, each request until it is answered.

argv: URL, number of this process, senders, the file of the counters that all processes share. A line on stdin: stop. It
prints, as JSON, how many durable events of each run were accepted.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import random
import struct
import sys
import time
from pathlib import Path

import aiohttp

from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.otel.otlp_encode import LogEncoder

HEADERS = {"Content-Type": "application/x-protobuf"}
RETRY_S = (0.05, 0.4)
"""First and longest pause: two hundred senders that ask at once all the time would keep the collector from starting."""


class Sender:
    """One writer with one run; one request at a time, the same bytes until they are accepted."""

    def __init__(self, number: int, counters: Counters) -> None:
        self.run_id = f"{number + 1:032x}-{number + 1:016x}"
        self.name = f"job {number}"
        self.writer_id = f"writer {number}"
        self.sequence = 0
        self.counters = counters
        self.encoder = LogEncoder({"service.name": "producer"}, "1")

    def event(self, kind: str, **said) -> Event:
        self.sequence += 1
        return Event(
            kind=kind,
            run_id=self.run_id,
            time_unix_ns=time.time_ns(),
            writer_id=self.writer_id,
            sequence=self.sequence,
            message=str(self.sequence),
            **said,
        )

    async def send(self, http: aiohttp.ClientSession, url: str, events: list[Event]) -> None:
        body, _ = self.encoder.encode(events)
        self.counters.add(outstanding=1)
        pause_s, longest_s = RETRY_S
        try:
            while True:
                try:
                    async with http.post(url, data=body, headers=HEADERS) as answer:
                        await answer.read()
                        if answer.status == 200:
                            self.counters.add(answered=1)
                            return
                except (aiohttp.ClientError, OSError):
                    pass
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(longest_s, 2 * pause_s)
        finally:
            self.counters.add(outstanding=-1)

    async def work(self, http: aiohttp.ClientSession, url: str, stop: asyncio.Event) -> tuple[str, int]:
        await self.send(http, url, [self.event(semconv.OPERATION_STARTED, name=self.name, parent_span_id="")])
        while not stop.is_set():
            await self.send(http, url, [self.event(semconv.OPERATION_NOTED) for _ in range(2)])
        await self.send(http, url, [self.event(semconv.OPERATION_ENDED, state=State.SUCCEEDED)])
        return self.name, self.sequence


class Counters:
    """This process's two numbers in the shared file: requests unanswered now, and answered so far."""

    LAYOUT = struct.Struct("<qq")

    def __init__(self, path: str, process: int) -> None:
        with Path(path).open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)
        self._at = process * self.LAYOUT.size
        self._numbers = [0, 0]

    def add(self, outstanding: int = 0, answered: int = 0) -> None:
        self._numbers[0] += outstanding
        self._numbers[1] += answered
        self.LAYOUT.pack_into(self._shared, self._at, *self._numbers)


async def main() -> None:
    url, process, senders, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    counters = Counters(path, process)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), stop.set)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as http:
        accepted = await asyncio.gather(
            *(
                Sender(process * senders + number, counters).work(http, f"{url}/v1/logs", stop)
                for number in range(senders)
            )
        )
    print(json.dumps(dict(accepted)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
