"""The store is killed at any moment: what was acknowledged is there, once, and nothing half."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store import numbered

REPOSITORY = Path(__file__).parents[3]
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "collector")))}
SEED = 20260


def program(folder: Path, what: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.collector.store.numbered", str(folder), what]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=ENVIRON, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True, bufsize=1
    )


def append_and_kill(process: subprocess.Popen, wanted: int) -> int:
    """The last batch that was acknowledged; killed once that is `wanted` or more."""
    process.stdin.write("go\n")
    acknowledged, pid = 0, 0
    for line in process.stdout:
        word, *number = line.split()
        if word == "pid":
            pid = int(number[0])
        elif word == "ack":
            acknowledged = int(number[0])
            if acknowledged == wanted:
                os.kill(pid, signal.SIGKILL)
        elif word == "dead":
            break
    return acknowledged


@pytest.mark.parametrize(("durability", "kills"), [("disk", 24), ("fsync", 8)])
def test_whatever_was_acknowledged_is_there_after_sigkill(tmp_path, durability, kills):
    chance = random.Random(SEED)
    epochs = set()
    number = 0
    with program(tmp_path / "store", durability) as process:
        for _ in range(kills):
            acknowledged = append_and_kill(process, number + chance.randint(1, 100))
            assert acknowledged > number
            store = SqliteStore(tmp_path / "store", durability)
            try:
                opened = store.open()
                assert opened.notes == ()
                number = numbered.check(store)
                assert number in (acknowledged, acknowledged + 1)
                assert opened.head == numbered.head_after(number)
                epochs.add(opened.epoch)
            finally:
                store.close()
        process.stdin.close()
    assert len(epochs) == 1


def test_sigkill_before_any_statement_leaves_whole_batches(ram_path):
    with program(ram_path, "points") as process:
        names = process.stdout.read().split()
    assert process.returncode == 0
    assert len(names) > 100
    for name in names:
        told = ram_path / f"{name}.acknowledged"
        acknowledged = int((told.read_text().split() or ["0"])[-1]) if told.exists() else 0
        store = SqliteStore(ram_path / name, "disk")
        try:
            opened = store.open()
            number = numbered.check(store)
            assert number in (acknowledged, acknowledged + 1), name
            assert opened.head == numbered.head_after(number)
            if acknowledged:
                assert opened.notes == (), name
            numbered_next = numbered.batch(number + 1)
            store.append(numbered_next)
            assert numbered.check(store) == number + 1
        finally:
            store.close()
