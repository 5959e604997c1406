from __future__ import annotations

import asyncio
import os
import threading

import pytest

from otelprogress_collector.exporters import group_sync
from otelprogress_collector.exporters.group_sync import GroupSync
from tests.waiting import aeventually


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """Files to sync, and a disk whose fsync can be held up or broken."""

    class Disk:
        def __init__(self) -> None:
            self.free = threading.Event()
            self.free.set()
            self.synced: list[int] = []
            self.failure: OSError | None = None
            self.collected = 0

        def collect(self) -> list[int]:
            self.collected += 1
            return [os.open(tmp_path / f"file-{self.collected}", os.O_RDWR | os.O_CREAT)]

        def fsync(self, descriptor: int) -> None:
            assert self.free.wait(15)
            if self.failure:
                raise self.failure
            self.synced.append(descriptor)

    made = Disk()
    monkeypatch.setattr(group_sync.os, "fsync", made.fsync)
    return made


async def test_who_asks_together_shares_one_round(disk):
    sync = GroupSync(disk.collect)
    await asyncio.gather(*[sync.synced() for _ in range(20)])
    assert len(disk.synced) == 1


async def test_who_asks_while_one_is_under_way_waits_for_the_next(disk):
    sync = GroupSync(disk.collect)
    disk.free.clear()
    first = asyncio.create_task(sync.synced())
    await aeventually(lambda: disk.collected == 1)
    later = [asyncio.create_task(sync.synced()) for _ in range(20)]
    await asyncio.sleep(0.02)
    assert disk.collected == 1
    assert not any(task.done() for task in (first, *later))
    disk.free.set()
    await asyncio.gather(first, *later)
    assert disk.collected == 2


async def test_a_broken_disk_is_told_to_all_who_wait_and_the_next_may_succeed(disk):
    sync = GroupSync(disk.collect)
    disk.failure = OSError(5, "Input/output error")
    answers = await asyncio.gather(*[sync.synced() for _ in range(3)], return_exceptions=True)
    assert answers == [disk.failure] * 3
    disk.failure = None
    await sync.synced()


async def test_one_who_stops_waiting_takes_nobody_along(disk):
    sync = GroupSync(disk.collect)
    disk.free.clear()
    impatient, patient = (asyncio.create_task(sync.synced()) for _ in range(2))
    await aeventually(lambda: disk.collected == 1)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    disk.free.set()
    await patient
    assert len(disk.synced) == 1


async def test_descriptors_are_closed_also_when_the_disk_is_broken(disk):
    sync = GroupSync(disk.collect)
    disk.failure = OSError(5, "Input/output error")
    collected = []
    sync._collect = lambda: collected.append(disk.collect()) or collected[-1]
    with pytest.raises(OSError):
        await sync.synced()
    for descriptor in collected[0]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_a_round_nobody_waits_for_may_fail(disk):
    disk.failure = OSError(5, "Input/output error")
    task = GroupSync(disk.collect).begin()
    await aeventually(task.done)


async def test_nothing_to_sync_needs_no_thread():
    sync = GroupSync(list)
    await sync.synced()
