"""Between two starts the store is damaged, or its process is killed: a client's cursor holds, or it is told of a gap."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.collector.collecting import CollectorProcess, collecting
from tests.collector.e2e.reading import Message, Reader
from tests.collector.e2e.writing import Writer, send

NOTES, SEEN = 40, 15
"""How much was said, and how much of it the client had."""


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("DAMAGE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"DAMAGE_SEED={chosen}")
    return chosen


class Killed:
    """A data folder as a SIGKILL left it, and the cursor of a client that had seen a part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        writer = Writer()
        with CollectorProcess(folder, OTELPROGRESS_COLLECTOR_GRPC="false") as collector:
            port = collector.http_port
            assert send(port, writer.started()).status == 200
            for number in range(1, SEEN + 1):
                assert send(port, writer.noted(str(number))).status == 200
            with Reader(port, collector.token) as reader:
                self.cursor = reader.subscribe()[-1]["cursor"]
            for number in range(SEEN + 1, NOTES + 1):
                assert send(port, writer.noted(str(number))).status == 200
            collector.kill()
        self.files = {path: path.read_bytes() for path in folder.iterdir()}

    def restore(self) -> None:
        """Everything as it was. Inodes stay: a file that was replaced is told by that alone."""
        for path in set(self.folder.iterdir()) - set(self.files):
            path.unlink()
        for path, content in self.files.items():
            path.write_bytes(content)


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTELPROGRESS_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        return Killed(tmp_path_factory.mktemp("killed") / "data")


@pytest.fixture
def killed(killed_once: Killed) -> Killed:
    killed_once.restore()
    return killed_once


async def resumed(folder: Path, cursor: str) -> tuple[list[Message], str]:
    """What a client with that cursor is told by a collector over that folder, up to something new; and the epoch."""
    async with collecting(folder, grpc=False) as collector:

        def resume() -> list[Message]:
            with Reader(collector.http_port, collector.own_token) as reader:
                heard = reader.subscribe(cursor=cursor)
                assert send(collector.http_port, Writer("something new").started()).status == 200
                return heard + reader.hear_of("something new")

        return await asyncio.to_thread(resume), collector.host.hub.epoch


def judge(heard: list[Message]) -> str:
    """`resumed` or `gap`; anything else is silence about a loss."""
    gaps = [message for message in heard if message["type"] == "gap"]
    if gaps:
        assert any(message["type"] == "snapshot_end" for message in heard), heard
        return "gap"
    assert heard[0]["mode"] == "resumed", heard
    messages = [
        event["message"]
        for message in heard
        if message["type"] == "events"
        for event in message["events"]
        if event["operation"]["name"] == "nightly load"
    ]
    assert messages == [str(number) for number in range(SEEN + 1, NOTES + 1)], heard
    return "resumed"


async def flip_bits(killed: Killed, rng: random.Random, times: int) -> Counter[str]:
    stored = [
        path for path, content in killed.files.items() if path.name.startswith("collector.") and content
    ]
    verdicts: Counter[str] = Counter()
    for _ in range(times):
        killed.restore()
        target = rng.choice(stored)
        changed = bytearray(killed.files[target])
        at, bit = rng.randrange(len(changed)), rng.randrange(8)
        changed[at] ^= 1 << bit
        target.write_bytes(changed)
        print(f"{target.name} byte {at} bit {bit}")
        heard, _ = await resumed(killed.folder, killed.cursor)
        verdicts[judge(heard)] += 1
    print(dict(verdicts))
    return verdicts


async def test_after_a_sigkill_the_cursor_holds(killed: Killed):
    heard, _ = await resumed(killed.folder, killed.cursor)
    assert judge(heard) == "resumed"


async def test_a_flipped_bit_is_no_silence(killed: Killed, seed: int):
    assert (await flip_bits(killed, random.Random(seed), 20)).total() == 20


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_thousand_flipped_bits_are_no_silence(killed: Killed, seed: int):
    verdicts = await flip_bits(killed, random.Random(seed), 1_000)
    assert verdicts["resumed"] > 0
    assert verdicts["gap"] > 0


@pytest.mark.parametrize("lost_bytes", [1, 100, 5_000])
async def test_a_log_that_ends_early_is_said(
    killed: Killed, lost_bytes: int, caplog: pytest.LogCaptureFixture
):
    wal = killed.folder / "collector.sqlite3-wal"
    os.truncate(wal, wal.stat().st_size - lost_bytes)
    first, epoch = await resumed(killed.folder, killed.cursor)
    assert judge(first) == "gap"
    assert {message["reason"] for message in first if message["type"] == "gap"} == {"epoch"}
    assert "a new epoch begins" in caplog.text
    # And from then on everything is as usual: no second gap for a cursor of the new epoch.
    cursor = [message["cursor"] for message in first if message["type"] == "snapshot_end"][-1]
    again, epoch_then = await resumed(killed.folder, cursor)
    assert epoch_then == epoch
    assert [message for message in again if message["type"] == "gap"] == []


async def test_a_store_that_is_gone_is_another_log(killed: Killed, tmp_path: Path):
    shutil.copytree(killed.folder, tmp_path / "data", ignore=shutil.ignore_patterns("collector.*"))
    heard, _ = await resumed(tmp_path / "data", killed.cursor)
    assert judge(heard) == "gap"


async def test_a_store_that_was_put_back_is_another_log(killed: Killed, tmp_path: Path):
    """What happened between the copy and the accident is missing in it."""
    folder, kept = tmp_path / "data", tmp_path / "kept"
    shutil.copytree(killed.folder, folder)
    shutil.copytree(killed.folder, kept)
    async with collecting(folder, grpc=False) as collector:

        def ahead() -> str:
            assert send(collector.http_port, Writer("another").started()).status == 200
            with Reader(collector.http_port, collector.own_token) as reader:
                return reader.subscribe()[-1]["cursor"]

        cursor = await asyncio.to_thread(ahead)
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    heard, _ = await resumed(folder, cursor)
    assert judge(heard) == "gap"
