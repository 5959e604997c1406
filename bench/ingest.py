"""P8: OTLP/HTTP to updated state and log, and through to a backend, on one core; rotel in the same run.

Every request holds a hundred records and is made before it is sent; the load comes from the other core.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import otlp_bodies, served
from bench.otlp_load import Connection, requests_per_s
from bench.rows import Effort, Row, row
from bench.served import Served

CONNECTIONS = 16
DURATION_S = 5.0
WARM_UP_S = 0.3
RECORDS = otlp_bodies.RECORDS

Bodies = Callable[[], Iterator[bytes]]


class Rate(NamedTuple):
    """Records of one contestant."""

    per_s: float
    per_cpu_s: float
    """Per second of CPU that its process took: what is left where others use the core."""


def run(effort: Effort) -> list[Row]:
    """Our SDK's records, foreign ones, ticks, and spans that are forwarded."""
    served.take_load_core()
    rounds = 1 if effort.scale < 1 else 5
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-ingest-") as folder, ExitStack() as stack:
        bench = _Bench(Path(folder), effort, stack)
        samples: dict[str, list[Rate]] = {}
        for _ in range(rounds):
            for name, measure in bench.contestants().items():
                samples.setdefault(name, []).append(measure())
    found = {
        name: Rate(median(one.per_s for one in rates), median(one.per_cpu_s for one in rates))
        for name, rates in samples.items()
    }
    return [
        _row("our SDK's durable records to state and log", found["own"], found["rotel logs"], 150_000),
        _row("our SDK's ticks to state", found["ticks"], found["rotel logs"], 150_000),
        _row("foreign protobuf records to state and log", found["foreign"], found["rotel logs"], 80_000),
        _row(
            "spans that are no operation, forwarded untouched",
            found["spans"],
            found["rotel spans"],
            300_000,
            peer="rotel, forwarding to the same sink",
        ),
        row(
            "P8",
            "the load generator alone, against a bare asyncio server",
            found["generator"].per_s,
            "record/s",
            "our SDK's durable records",
            found["own"].per_s,
            target="≥ 2 times what is measured",
            met=found["generator"].per_s
            >= 2 * max(found[name].per_s for name in ("own", "foreign", "spans")),
        ),
    ]


def _row(
    what: str, measured: Rate, peer_measured: Rate, target: int, *, peer: str = "rotel, discarding them"
) -> Row:
    each = f"{measured.per_cpu_s:,.0f} to {peer_measured.per_cpu_s:,.0f} per second of CPU"
    return row(
        "P8",
        f"{what} ({each})",
        measured.per_s,
        "record/s",
        peer,
        peer_measured.per_s,
        target=f"≥ {target // 1000} k/s",
        met=measured.per_s >= target,
    )


class _Bench:
    """The servers, which stay for all rounds."""

    def __init__(self, folder: Path, effort: Effort, stack: ExitStack) -> None:
        self._effort = effort
        story = otlp_bodies.interleaved()
        self._own = [otlp_bodies.own(events) for events in story]
        self._foreign = [otlp_bodies.foreign(events) for events in story]
        self._spans = otlp_bodies.spans()
        self._numbers = itertools.count()
        self._collector = stack.enter_context(served.collector(folder))
        self._sink = stack.enter_context(served.peer(folder, "sink", on_load_core=True)).port
        self._forwarding = stack.enter_context(
            served.collector(folder, "--export-otlp", f"http://127.0.0.1:{self._sink}")
        )
        self._rotel = stack.enter_context(served.rotel(folder))
        self._rotel_forwarding = stack.enter_context(served.rotel(folder, forward_to=self._sink))
        self._bare = stack.enter_context(served.peer(folder, "sink"))

    def contestants(self) -> dict[str, Callable[[], Rate]]:
        """Records a second of each."""
        return {
            "own": lambda: self._rate(self._collector, "logs", self._copies(self._own)),
            "rotel logs": lambda: self._rate(self._rotel, "logs", self._copies(self._own)),
            "foreign": lambda: self._rate(self._collector, "logs", self._copies(self._foreign)),
            "ticks": lambda: self._rate(self._collector, "logs", self._ticks),
            "spans": lambda: self._forwarded(self._forwarding),
            "rotel spans": lambda: self._forwarded(self._rotel_forwarding),
            "generator": lambda: self._rate(self._bare, "logs", self._copies(self._own)),
        }

    def _rate(self, server: Served, signal: str, bodies: Bodies) -> Rate:
        cpu_s, began_s = server.cpu_s(), time.perf_counter()
        per_s = RECORDS * requests_per_s(
            server.port,
            f"/v1/{signal}",
            bodies,
            connections=CONNECTIONS,
            warm_up_s=WARM_UP_S,
            duration_s=self._effort.scale * DURATION_S,
        )
        # Of the same stretch, warm-up included: the counter of the system is too coarse for less.
        share = (server.cpu_s() - cpu_s) / (time.perf_counter() - began_s)
        return Rate(per_s, per_s / share if share else 0.0)

    def _forwarded(self, server: Served) -> Rate:
        """Records that were answered and have arrived at the sink: what is only queued does not count."""
        before, began_s = self._taken_bytes(), time.perf_counter()
        answered = self._rate(server, "traces", lambda: itertools.repeat(self._spans))
        arrived = (self._taken_bytes() - before) / len(self._spans) / (time.perf_counter() - began_s)
        kept = min(1.0, RECORDS * arrived / answered.per_s)
        return Rate(answered.per_s * kept, answered.per_cpu_s * kept)

    def _taken_bytes(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._sink}/") as answer:
            return int(answer.read())

    @staticmethod
    def _copies(templates: list[bytes]) -> Bodies:
        return lambda: otlp_bodies.copies(templates)

    def _ticks(self) -> Iterator[bytes]:
        number = next(self._numbers)
        first = Connection(self._collector.port, "/v1/logs")
        first.post(otlp_bodies.started(RECORDS, number))
        first.close()
        return itertools.repeat(otlp_bodies.ticks(number))
