"""P7: what a connection and a live operation weigh, as memory that is the process's alone (`Private_*` of `smaps_rollup`)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import otlp_bodies, served
from bench.feed_load import Readers, collector_readers, nats_readers
from bench.otlp_load import post_all
from bench.rows import Effort, Row, row
from bench.served import Served

CLIENTS = 1_000
WARM_CLIENTS = 50
"""Connected before: what the first connections bring along belongs to none of them."""
OPERATIONS = 50_000
MANY_OPERATIONS = 1_000_000
_A_REQUEST = 100


def run(effort: Effort) -> list[Row]:
    """Connections in process and in the collector, operations, and a million of them in the full form."""
    served.take_load_core()
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-memory-") as name:
        folder = Path(name)
        with served.peer(folder, "feed") as server:
            in_process = kb_a_connection(server, sdk_readers(server.port))
        with served.collector(folder) as server:
            in_collector = kb_a_connection(server, collector_readers(server.port))
        with served.peer(folder, "broadcast", served.free_port()) as server:
            bare = kb_a_connection(server, Readers(server.port))
        with served.nats(folder) as (server, websocket_port):
            nats = kb_a_connection(server, nats_readers(websocket_port))
        rows = [
            _row(
                "a connection, in process",
                in_process,
                "KB",
                peer="a bare websockets server",
                peer_measured=bare,
                limit=16,
            ),
            _row(
                "a connection, in the collector",
                in_collector,
                "KB",
                peer="nats-server's WebSocket",
                peer_measured=nats,
                limit=30,
            ),
        ]
        count = OPERATIONS if effort.scale >= 1 else OPERATIONS // 5
        for plain, what in ((True, "name and counts"), (False, "title, label, two planned steps")):
            # A short log: its entries are weighed by nobody here.
            with served.collector(folder, ring_events="1024") as server:
                weight = bytes_an_operation(server, count, plain=plain) / 1000
            rows.append(
                _row(
                    f"a live operation with {what}, {count:,} beside {count:,}",
                    weight,
                    "KB",
                    peer="its limit",
                    peer_measured=1,
                    limit=1,
                )
            )
        if effort.scale >= 1:
            with served.collector(folder) as server:
                post_all(server.port, "/v1/logs", starts(MANY_OPERATIONS, 0, plain=True))
                whole = server.private_bytes / 1e9
            rows.append(
                _row(
                    "1 M live operations with name and counts, the whole collector",
                    whole,
                    "GB",
                    peer="its limit",
                    peer_measured=1.5,
                    limit=1.5,
                )
            )
    return rows


def _row(what: str, measured: float, unit: str, *, peer: str, peer_measured: float, limit: float) -> Row:
    return row(
        "P7", what, measured, unit, peer, peer_measured, target=f"≤ {limit:g} {unit}", met=measured <= limit
    )


def sdk_readers(port: int) -> Readers:
    """Readers of the SDK's own server, who want everything."""
    return collector_readers(port, token="bench")


def kb_a_connection(server: Served, readers: Readers) -> float:
    """KB more for each connected, subscribed reader."""
    readers.open(WARM_CLIENTS)
    readers.settle()
    before = server.private_bytes
    readers.open(CLIENTS)
    readers.settle()
    weight = (server.private_bytes - before) / CLIENTS / 1000
    readers.close()
    return weight


def bytes_an_operation(server: Served, count: int, *, plain: bool) -> float:
    """Bytes more for each operation, when as many again are added to those that are there."""
    post_all(server.port, "/v1/logs", starts(count, 0, plain=plain))
    before = server.private_bytes
    post_all(server.port, "/v1/logs", starts(count, count, plain=plain))
    return (server.private_bytes - before) / count


def starts(count: int, first: int, *, plain: bool) -> Iterator[bytes]:
    """Requests that begin that many operations."""
    for number in range(first // _A_REQUEST, (first + count) // _A_REQUEST):
        yield otlp_bodies.started(_A_REQUEST, number, plain=plain)
