"""The collector is killed again and again under load; afterwards every accepted event is at every client exactly once."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.collector.collecting import CollectorProcess
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Load:
    """Processes of senders, and processes of clients."""

    producers: int
    senders: int
    consumers: int
    clients: int

    @property
    def runs(self) -> int:
        return self.producers * self.senders


FULL = Load(producers=10, senders=20, consumers=2, clients=10)
SMALL = Load(producers=3, senders=40, consumers=1, clients=8)
UNANSWERED = 100
"""Requests that are under way, at least, when the collector is killed."""
BETWEEN = 200
"""Requests that are answered, at least, between two kills."""
NUMBERS = struct.Struct("<qq")


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("KILLED_SEED") or random.SystemRandom().randrange(2**32))
    print(f"KILLED_SEED={chosen}")
    return chosen


def run_process(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.collector.e2e.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def kill_under_load(
    collector: CollectorProcess, counters: Path, load: Load, *, kills: int, seed: int
) -> tuple[dict, list]:
    """How many events of each run were accepted, and what each client saw."""
    counters.write_bytes(bytes(NUMBERS.size * load.producers))

    def numbers() -> tuple[int, int]:
        found = list(NUMBERS.iter_unpack(counters.read_bytes()))
        return sum(one for one, _ in found), sum(one for _, one in found)

    consumers = [
        run_process(
            "killed_consumer",
            f"ws://127.0.0.1:{collector.http_port}",
            collector.token,
            str(load.clients),
            str(load.runs),
            str(seed + 1000 * number),
        )
        for number in range(load.consumers)
    ]
    producers: list[subprocess.Popen[str]] = []
    try:
        for consumer in consumers:
            assert consumer.stdout.readline() == "watching\n"
        producers = [
            run_process("killed_producer", collector.url, str(number), str(load.senders), str(counters))
            for number in range(load.producers)
        ]
        rng = random.Random(seed)
        answered = 0
        unanswered = []
        for _ in range(kills):
            enough = answered + BETWEEN + rng.randrange(BETWEEN)
            eventually(lambda enough=enough: numbers()[1] >= enough, 60, every_s=0.002)
            eventually(lambda: numbers()[0] >= UNANSWERED, 60, every_s=0.001)
            collector.process.kill()
            now, answered = numbers()
            unanswered.append(now)
            collector.process.wait()
            collector.start(wait=False)
        print("requests unanswered when it was killed:", *unanswered)
        assert min(unanswered) >= UNANSWERED
        accepted: dict[str, int] = {}
        for producer in producers:
            producer.stdin.write("stop\n")
            producer.stdin.flush()
        for producer in producers:
            output, _ = producer.communicate(timeout=120)
            accepted |= json.loads(output)
        seen = []
        for consumer in consumers:
            output, _ = consumer.communicate(timeout=120)
            seen += json.loads(output)
        return accepted, seen
    finally:
        for process in (*producers, *consumers):
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def violations(accepted: dict[str, int], seen: list[dict]) -> list[str]:
    """What the guarantees G1 and G2 say against it, for each client."""
    found = []
    for number, client in enumerate(seen):
        if client["gaps"]:
            found.append(f"client {number} was told of {client['gaps']} gaps")
        for name, count in accepted.items():
            messages = client["messages"].get(name, [])
            if messages != [str(sequence) for sequence in range(1, count + 1)]:
                times = Counter(messages)
                missing = [sequence for sequence in range(1, count + 1) if not times[str(sequence)]]
                doubled = [message for message, often in times.items() if often > 1]
                found.append(
                    f"client {number}, {name}: missing {missing[:5]}, doubled {doubled[:5]}, of {count}"
                )
            revisions = client["revisions"].get(name, [])
            if revisions != sorted(set(revisions)):
                found.append(f"client {number}, {name}: revisions do not rise")
    return found


def check_kills(tmp_path: Path, load: Load, *, kills: int, seed: int) -> None:
    with CollectorProcess(tmp_path / "data", OTELPROGRESS_COLLECTOR_GRPC="false") as collector:
        accepted, seen = kill_under_load(collector, tmp_path / "counters", load, kills=kills, seed=seed)
        assert len(accepted) == load.runs
        assert len(seen) == load.consumers * load.clients
        print(f"{sum(accepted.values())} durable events accepted")
        assert violations(accepted, seen) == []
    assert "Traceback" not in collector.log.read_text()


@pytest.mark.timeout(400)
def test_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path, seed: int):
    check_kills(tmp_path, SMALL, kills=4, seed=seed)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path, seed: int):
    check_kills(tmp_path, FULL, kills=20, seed=seed)


@pytest.mark.timeout(400)
def test_without_deduplication_the_same_kills_are_caught(tmp_path: Path, seed: int):
    """The check above can fail: this is what it catches."""
    collector = CollectorProcess(tmp_path / "data", OTELPROGRESS_COLLECTOR_GRPC="false")
    collector.module = "tests.collector.e2e.forgetful_collector"
    with collector:
        accepted, seen = kill_under_load(collector, tmp_path / "counters", SMALL, kills=2, seed=seed)
        assert any("doubled" in one for one in violations(accepted, seen))
