"""A client that is cut 200 times by RST while 20,000 durable events are published, in separate processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.faults.proxy import FaultProxy, Plan

EVENTS, RUNS, CUTS = 20_000, 8, 200
PER_CUT = EVENTS // CUTS
HELD_BACK = 20
"""Events that are published only after the last cut: all cuts happen while events are being published."""
LARGEST_OFFSET = 20_000
"""Less than what `PER_CUT - HELD_BACK` events weigh: every planned cut is reached."""
GREETING_BYTES = 2_000
"""More than the first answers of a feed weigh: a feed that is named has to answer the first time."""
ROOT = Path(__file__).parents[2]


def run_process(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def cut_and_collect(*, resume: bool, seed: int, cuts: int, events: int) -> dict:
    """What the client's iterator gave, after all cuts."""
    rng = random.Random(seed)
    offsets = [rng.randrange(1, LARGEST_OFFSET) for _ in range(cuts)]
    offsets[0] = max(offsets[0], GREETING_BYTES)
    plans = [Plan(reset_down_at=offset) for offset in offsets]
    with FaultProxy(("", 0), lambda number: plans[number] if number < cuts else Plan()) as proxy:
        with run_process(
            "tests.e2e.resume_producer", str(events), str(RUNS), f"127.0.0.1:{proxy.port}"
        ) as producer:
            try:
                proxy.target = ("127.0.0.1", int(producer.stdout.readline()))
                with run_process(
                    "tests.e2e.resume_consumer",
                    f"ws://127.0.0.1:{proxy.port}",
                    str(RUNS),
                    str(seed),
                    "resume" if resume else "fresh",
                ) as consumer:
                    assert consumer.stdout.readline() == "watching\n"
                    done = threading.Event()

                    def release() -> None:
                        """Each cut lets the next events be published: the producer never runs ahead of the cuts."""
                        extra, cut, cut_at_s = 0, 0, time.monotonic()
                        while not done.is_set() and producer.poll() is None:
                            if proxy.resets != cut:
                                cut_at_s, cut = time.monotonic(), proxy.resets
                            elif not resume and time.monotonic() - cut_at_s > 0.3:
                                # What was published between two connections is lost here, and its bytes with it.
                                cut_at_s, extra = time.monotonic(), extra + PER_CUT
                            allowed = PER_CUT * (cut + 1) - HELD_BACK + extra if cut < cuts else events
                            producer.stdin.write(f"{min(events, allowed)}\n")
                            producer.stdin.flush()
                            done.wait(0.005)

                    releasing = threading.Thread(target=release)
                    releasing.start()
                    try:
                        output, _ = consumer.communicate(timeout=60)
                    finally:
                        done.set()
                        releasing.join()
                        consumer.kill()
                    if resume:
                        assert proxy.resets == cuts, "every planned cut, while events were still published"
                    return json.loads(output)
            finally:
                producer.kill()


def expected(events: int) -> list[str]:
    per_run = events // RUNS
    return ["operation.started", *map(str, range(2, per_run)), "operation.ended"]


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("RESUME_SEED") or random.SystemRandom().randrange(2**32))
    print(f"RESUME_SEED={chosen}")
    return chosen


@pytest.mark.timeout(110)
def test_every_durable_event_arrives_exactly_once_and_in_order_through_200_resets(seed: int):
    got = cut_and_collect(resume=True, seed=seed, cuts=CUTS, events=EVENTS)
    assert got["gaps"] == 0
    assert got["seen"] == {f"load {run}": expected(EVENTS) for run in range(1, RUNS + 1)}
    for revisions in got["revisions"].values():
        assert revisions == sorted(set(revisions))


@pytest.mark.timeout(110)
def test_without_resume_the_same_cuts_lose_events(seed: int):
    """The check above can fail: this is what it catches."""
    got = cut_and_collect(resume=False, seed=seed, cuts=20, events=20 * PER_CUT)
    whole = expected(20 * PER_CUT)
    assert set(got["seen"]) <= {f"load {run}" for run in range(1, RUNS + 1)}
    missing = 0
    for seen in got["seen"].values():
        # Some are missing; none came twice or out of order: nothing but the gaps between connections is at work.
        rest = iter(whole)
        assert all(one in rest for one in seen)
        missing += len(whole) - len(seen)
    assert missing
