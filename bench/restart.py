"""P10: from the start of a collector's process to `/readyz`, over a store that a killed one left behind.

The store is written through the collector's own hub, recorder and store, without its network. Its pages are dropped
from the system's cache before each start.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec

from bench import served
from bench.rows import Effort, Row, row
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress_collector.recording import open_hub
from otelprogress_collector.store.factory import open_store
from otelprogress_collector.store.interface import Batch, JournalRow

LIVE = 100_000
LOGGED = 10_000_000
QUICK_LIVE, QUICK_LOGGED = 10_000, 200_000
_A_BATCH = 2_000
_LIMIT_S = 5.0


def run(effort: Effort) -> list[Row]:
    """One store, started several times, each time after SIGKILL."""
    live, logged = (LIVE, LOGGED) if effort.scale >= 1 else (QUICK_LIVE, QUICK_LOGGED)
    served.take_load_core()
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-restart-") as name:
        folder = Path(name)
        empty = [ready_s(folder / f"empty-{number}", folder) for number in range(2)]
        write_store(folder / "data", live, logged, time.time_ns())
        full = [ready_s(folder / "data", folder) for _ in range(2 if effort.scale < 1 else 4)]
    return [
        row(
            "P10",
            f"start to ready with {live:,} live operations and {logged:,} logged events",
            median(full),
            "s",
            "with an empty store",
            min(empty),
            target=f"≤ {_LIMIT_S:g} s with {LIVE:,} and {LOGGED:,}",
            met=median(full) <= _LIMIT_S,
        )
    ]


def ready_s(data_dir: Path, folder: Path) -> float:
    """Seconds from the start of the process until it is ready; then it is killed."""
    drop_from_cache(data_dir)
    port = served.free_port()
    began_s = time.perf_counter()
    server = served.Served(
        served.collector_command(data_dir, port),
        port,
        folder / f"{port}.log",
        environment=served.COLLECTOR_ENVIRONMENT
        | {"OTELPROGRESS_COLLECTOR_RETENTION_MAX_BYTES": str(1 << 40)},
    )
    try:
        server.wait_ready()
        return time.perf_counter() - began_s
    finally:
        server.kill()


def drop_from_cache(data_dir: Path) -> None:
    """Have the system read these files from the disk again."""
    for path in data_dir.glob("*") if data_dir.exists() else ():
        if path.is_file():
            number = os.open(path, os.O_RDONLY)
            os.fsync(number)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(number)


def write_store(data_dir: Path, live: int, logged: int, now_unix_ns: int) -> None:
    """A store with that many live operations, and their events: each is noted again and again until it is enough."""
    data_dir.mkdir(mode=0o700)
    store = open_store("disk", data_dir)
    hub, recorder = open_hub(store, store.open(), now_unix_ns)
    for first in range(0, live, _A_BATCH):
        applied = [
            one
            for number in range(first, min(live, first + _A_BATCH))
            for event in story(number, now_unix_ns)
            for one in hub.publish(event, now_unix_ns)
        ]
        batch = recorder.batch(hub, applied, now_unix_ns)
        assert batch is not None
        store.append(batch)
    head = hub.head
    kept = store.journal_tail(min(head, 50_000))
    for rows in repeated(kept, head, logged):
        store.append(Batch(journal=rows))
    store.close()


def repeated(kept: list[JournalRow], head: int, logged: int) -> Iterator[list[JournalRow]]:
    """The same rows again under offsets that go on: what a start reads of old ones is their number and size."""
    while head < logged:
        rows = []
        for _ in range(min(_A_BATCH, logged - head)):
            head += 1
            rows.append(msgspec.structs.replace(kept[head % len(kept)], offset=head))
        yield rows


def story(number: int, now_unix_ns: int) -> Iterator[Event]:
    """Start, step and note of one operation."""
    said = {
        "run_id": f"{number // 100 + 1:032x}-{number + 1:016x}",
        "time_unix_ns": now_unix_ns,
        "writer_id": f"writer {number // 100}",
    }
    yield Event(
        kind=semconv.OPERATION_STARTED,
        sequence=1,
        name="nightly load",
        parent_span_id="",
        steps=("extract", "load"),
        **said,  # type: ignore[arg-type]  # fields of an event
    )
    yield Event(
        kind=semconv.STEP_STARTED,
        sequence=2,
        step_name="extract",
        step_index=0,
        completed=10.0,
        total=100.0,
        unit="{row}",
        **said,  # type: ignore[arg-type]
    )
