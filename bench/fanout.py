"""P6: a thousand clients on one core, all of them sent everything; `websockets` and nats-server in the same run.

Closed loop: a fixed number of events is under way; the next batch is published as readers have taken as many. So
nobody is given more than it can deliver, and what it delivers is what it can. The collector takes its events as OTLP, makes
them durable (`disk`) and answers for them on the same core; the peers only pass them on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench import served
from bench.feed_load import Readers, collector_readers, nats_readers
from bench.publishers import Publisher, ToCollector, ToSocket, feed_event
from bench.rows import Effort, Row, percentile, row

CLIENTS = 1_000
SAMPLED = 20
UNDER_WAY = 200
"""Events published and not yet taken by all."""
BATCH = 20
DURATION_S = 6.0
WARM_UP_S = 0.7
PACED_CLIENTS, PACED_HZ, PACED_S = 200, 50, 6.0


def run(effort: Effort) -> list[Row]:
    """Throughput and latency of everybody, in turn."""
    served.take_load_core()
    rounds = 1 if effort.scale < 1 else 5
    rates: dict[str, list[float]] = {}
    latencies: dict[str, list[float]] = {}
    paced: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-fanout-") as name:
        folder = Path(name)
        for _ in range(rounds):
            for who, open_it in CONTESTANTS.items():
                with open_it(folder, CLIENTS, SAMPLED) as (readers, publisher):
                    rate, taken = closed_loop(readers, publisher, effort.scale * DURATION_S)
                    rates.setdefault(who, []).append(rate)
                    latencies.setdefault(who, []).extend(taken)
                with open_it(folder, PACED_CLIENTS, PACED_CLIENTS) as (readers, publisher):
                    paced.setdefault(who, []).extend(open_loop(readers, publisher, effort.scale * PACED_S))
        alone = flooded(folder, effort.scale * DURATION_S / 2)
    ours, bare, nats = (median(rates[who]) for who in ("collector", "websockets", "nats"))
    p99 = percentile(latencies["collector"], 0.99)
    paced_p99 = {who: percentile(values, 0.99) for who, values in paced.items()}
    what = f"{CLIENTS} clients on one core, all receiving everything"
    return [
        row(
            "P6",
            what,
            ours,
            "event/s",
            "websockets.broadcast",
            bare,
            target="≥ 10 times it",
            met=ours >= 10 * bare,
        ),
        row(
            "P6",
            what,
            ours,
            "event/s",
            "nats-server's WebSocket",
            nats,
            target="≥ 2 times it",
            met=ours >= 2 * nats,
        ),
        row(
            "P6",
            f"{what}, p99",
            p99,
            "ms",
            "nats-server's WebSocket",
            percentile(latencies["nats"], 0.99),
            target="≤ 250 ms",
            met=p99 <= 250,
        ),
        *(
            row(
                "P6",
                f"paced, {PACED_CLIENTS} clients, {PACED_HZ}/s, p99",
                paced_p99["collector"],
                "ms",
                peer,
                paced_p99[who],
                target="≤ 8 ms",
                met=paced_p99["collector"] <= 8,
            )
            for who, peer in (("websockets", "websockets.broadcast"), ("nats", "nats-server's WebSocket"))
        ),
        row(
            "P6",
            "the load generator alone, flooded by raw sends",
            alone,
            "event/s",
            "the collector",
            ours,
            target="≥ 1.5 times what is measured",
            met=alone >= 1.5 * max(ours, bare, nats),
        ),
    ]


@contextmanager
def to_collector(folder: Path, clients: int, sampled: int) -> Iterator[tuple[Readers, Publisher]]:
    with served.collector(folder) as server:
        readers = collector_readers(server.port)
        readers.open(clients, sampled=sampled)
        publisher = ToCollector(server.port, readers)
        yield readers, publisher
        readers.close()
        publisher.close()


@contextmanager
def to_websockets(folder: Path, clients: int, sampled: int) -> Iterator[tuple[Readers, Publisher]]:
    publish_port = served.free_port()
    with served.peer(folder, "broadcast", publish_port) as server:
        readers = Readers(server.port)
        readers.open(clients, sampled=sampled)
        publisher = ToSocket(publish_port, nats=False)
        yield readers, publisher
        readers.close()
        publisher.close()


@contextmanager
def to_nats(folder: Path, clients: int, sampled: int) -> Iterator[tuple[Readers, Publisher]]:
    with served.nats(folder) as (server, websocket_port):
        readers = nats_readers(websocket_port)
        readers.open(clients, sampled=sampled)
        publisher = ToSocket(server.port, nats=True)
        yield readers, publisher
        readers.close()
        publisher.close()


CONTESTANTS = {"collector": to_collector, "websockets": to_websockets, "nats": to_nats}


def closed_loop(readers: Readers, publisher: Publisher, duration_s: float) -> tuple[float, list[float]]:
    """Events delivered a second, and the milliseconds that sampled readers saw.

    Raises:
        RuntimeError: nothing was delivered for ten seconds.
    """
    readers.settle()
    clients = len(readers)
    published = 0
    began_s = time.perf_counter() + WARM_UP_S
    ends_s = began_s + duration_s
    counted_from: int | None = None
    moved_at_s, moved_to = time.perf_counter(), 0
    while True:
        while published - readers.events / clients <= UNDER_WAY - BATCH:
            publisher.publish(BATCH)
            published += BATCH
        publisher.attend(readers.read(0.5))
        now_s = time.perf_counter()
        if readers.events > moved_to:
            moved_at_s, moved_to = now_s, readers.events
        if now_s - moved_at_s > 10:
            raise RuntimeError(f"nothing came any more after {moved_to} events")
        if counted_from is None and now_s >= began_s:
            counted_from, began_s = readers.events, now_s
            readers.latencies_ms = []
        if counted_from is not None and now_s >= ends_s:
            return (readers.events - counted_from) / (now_s - began_s), readers.latencies_ms


def open_loop(readers: Readers, publisher: Publisher, duration_s: float) -> list[float]:
    """Milliseconds of every event at every reader, at a fixed pace.

    Raises:
        RuntimeError: not all of them came.
    """
    readers.settle()
    count = int(PACED_HZ * duration_s)
    began_s = time.perf_counter()
    for number in range(count):
        publisher.publish(1)
        while (left_s := began_s + (number + 1) / PACED_HZ - time.perf_counter()) > 0:
            publisher.attend(readers.read(left_s))
    until_s = time.perf_counter() + 5
    while readers.events < count * len(readers) and time.perf_counter() < until_s:
        publisher.attend(readers.read(0.1))
    if readers.events < count * len(readers):
        raise RuntimeError(f"{readers.events} of {count * len(readers)} events came")
    return readers.latencies_ms


def flooded(folder: Path, duration_s: float) -> float:
    """What the readers alone can take, in events of the size that the feed sends."""
    event_bytes = len((b"0" * 19).join(feed_event()))
    with served.peer(folder, "flood") as server:
        readers = Readers(server.port)
        readers.open_bare(CLIENTS)
        while not readers.received_bytes:  # it begins once nobody has come for a second
            readers.read(0.5)
        readers.settle(at_most_s=0.2)
        began_s = time.perf_counter()
        while (now_s := time.perf_counter()) < began_s + duration_s:
            readers.read(0.5)
        taken = readers.received_bytes / event_bytes / (now_s - began_s)
        readers.close()
    return taken
