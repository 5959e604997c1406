from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from otelprogress.otel.disk_spool import DiskSpool
from otelprogress.otel.spool_folder import SpoolOwner
from otelprogress.otel.spool_segment import SUFFIX
from tests.forking import exit_code, forked
from tests.otel.spools import OWNER, delivered, disk_spool, written
from tests.waiting import eventually

LEAVER = """
import os, signal, sys, time
from pathlib import Path
from tests.otel.spools import disk_spool
spool = disk_spool(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    spool.put(str(n))
    if sys.argv[4] == "tended":
        spool.tend(time.monotonic())
print("put", flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


class Leaver:
    """A process that spools entries and is killed when it is told to."""

    def __init__(self, root: Path, first: int, end: int, mode: str = "tended") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEAVER, str(root), str(first), str(end), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "put\n"

    def die(self) -> None:
        self.process.communicate("\n")
        assert self.process.returncode == -signal.SIGKILL


def left_behind(root: Path, first: int, end: int) -> None:
    """What a process wrote that was killed a moment later."""

    def write() -> bool:
        written(disk_spool(root), *(str(n) for n in range(first, end)))
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    assert exit_code(forked(write)) == -signal.SIGKILL


def files(root: Path) -> list[Path]:
    return sorted(root.rglob(f"*{SUFFIX}"))


def test_files_and_folders_are_this_users_alone(tmp_path: Path):
    root = tmp_path / "spools"
    spool = written(disk_spool(root), "a")
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    spool.abandon()


def test_what_a_killed_process_left_is_delivered_by_the_next_one_in_order_and_before_its_own(tmp_path: Path):
    left_behind(tmp_path, 0, 700)
    spool = written(disk_spool(tmp_path), "of the next one")
    assert len(spool) == 701
    assert delivered(spool) == [*(str(n) for n in range(700)), "of the next one"]
    spool.abandon()
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_was_there_to_write_is_on_the_disk_soon_after_it_was_put(tmp_path: Path):
    leaver = Leaver(tmp_path, 0, 50, "not tended")  # its sender waits for an answer
    eventually(lambda: sum(path.stat().st_size for path in files(tmp_path)) > 150)
    leaver.die()
    spool = disk_spool(tmp_path)
    spool.tend(time.monotonic())
    assert delivered(spool) == [str(n) for n in range(50)]
    spool.abandon()


def test_what_was_delivered_before_the_kill_is_not_delivered_again(tmp_path: Path):
    def deliver_some() -> bool:
        spool = written(disk_spool(tmp_path), *(str(n) for n in range(600)))
        spool.next_body()
        spool.settle()
        spool.next_body()  # in flight when it is killed
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    assert exit_code(forked(deliver_some)) == -signal.SIGKILL
    spool = disk_spool(tmp_path)
    spool.tend(time.monotonic())
    assert delivered(spool) == [str(n) for n in range(512, 600)]
    spool.abandon()


def test_what_a_living_process_spools_is_left_to_it(tmp_path: Path):
    leaver = Leaver(tmp_path, 0, 5)
    spool = disk_spool(tmp_path)
    spool.tend(time.monotonic())
    assert len(spool) == 0
    leaver.die()
    spool.abandon()
    again = disk_spool(tmp_path)
    again.tend(time.monotonic())
    assert delivered(again) == [str(n) for n in range(5)]
    again.abandon()


def test_of_many_that_start_at_once_one_delivers_what_was_left(tmp_path: Path):
    for n in range(4):
        left_behind(tmp_path, n * 10, n * 10 + 10)
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        taken = pool.map(adopt_all, [tmp_path] * 8, chunksize=1)
    assert sorted(entry for each in taken for entry in each) == sorted(str(n) for n in range(40))


def adopt_all(root: Path) -> list[str]:
    spool = disk_spool(root)
    spool.tend(time.monotonic())
    taken = delivered(spool)
    spool.abandon()
    return taken


def test_what_waits_at_the_exit_is_kept_for_the_next_start_and_counts_as_no_loss(tmp_path: Path):
    spool = disk_spool(tmp_path)
    for n in range(3):
        spool.put(str(n))
    assert spool.abandon() == 0
    assert len(spool) == 3
    again = disk_spool(tmp_path)
    again.tend(time.monotonic())
    assert delivered(again) == ["0", "1", "2"]
    again.abandon()
    assert list(tmp_path.iterdir()) == []


def test_an_exit_with_nothing_left_leaves_no_file_and_no_thread(tmp_path: Path):
    spool = written(disk_spool(tmp_path), "a", "b")
    assert delivered(spool) == ["a", "b"]
    spool.abandon()
    assert list(tmp_path.iterdir()) == []
    assert eventually(lambda: not [one for one in threading.enumerate() if one.name == "otelprogress-spool"])


def test_beyond_its_bytes_the_oldest_go_and_are_counted(tmp_path: Path):
    spool = disk_spool(tmp_path, max_bytes=64 * 1024, limit=100_000)
    written(spool, *(f"{n:0500d}" for n in range(400)))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 64 * 1024
    left = [int(entry) for entry in delivered(spool)]
    assert left == list(range(400 - len(left), 400))
    assert spool.dropped == 400 - len(left)
    assert len(left) > 100
    spool.abandon()


def test_what_is_being_tried_is_delivered_though_its_file_was_dropped_meanwhile(tmp_path: Path):
    spool = written(disk_spool(tmp_path, max_bytes=16 * 1024, limit=100_000), "first")
    assert spool.next_body() == b"first,"
    written(spool, *(f"{n:0500d}" for n in range(100)))
    assert spool.settle() == 1
    left = delivered(spool)
    assert spool.dropped + len(left) == 100
    spool.abandon()


def test_a_file_does_not_grow_while_the_receiver_keeps_up(tmp_path: Path):
    spool = disk_spool(tmp_path)
    for n in range(300):
        written(spool, f"{n:01000d}")
        assert len(delivered(spool)) == 1
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 70_000
    spool.abandon()


def test_a_disk_that_takes_nothing_is_said_once_and_tried_again(tmp_path: Path, caplog):
    root = tmp_path / "spools"
    root.mkdir()
    spool = disk_spool(root)
    real = SpoolFolderThatFails(spool)
    spool.put("a")
    now_s = time.monotonic()
    for n in range(5):
        spool.tend(now_s + 2 * n)
    assert "No space left" in spool.failure
    [line] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "events wait in memory" in line.getMessage()
    assert files(root) == []
    real.mend()
    spool.put("b")
    spool.tend(now_s + 20)
    assert spool.failure == ""
    assert len(files(root)) == 1
    assert delivered(spool) == ["a", "b"]
    spool.abandon()


class SpoolFolderThatFails:
    """A folder on a disk that is full."""

    def __init__(self, spool: DiskSpool) -> None:
        self._folder = spool._folder
        self._make = self._folder.make
        self._folder.make = self.fail  # type: ignore[method-assign]

    def fail(self) -> None:
        raise OSError(28, "No space left on device")

    def mend(self) -> None:
        self._folder.make = self._make  # type: ignore[method-assign]


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_end_costs_the_last_record_and_nothing_before_it(tmp_path: Path, cut: int):
    left_behind(tmp_path, 0, 5)
    (path,) = files(tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    spool = disk_spool(tmp_path)
    spool.tend(time.monotonic())
    left = delivered(spool)
    assert left == [str(n) for n in range(len(left))]
    assert len(left) >= 3
    spool.abandon()


def test_a_flipped_bit_costs_no_other_record_or_is_told(tmp_path: Path):
    left_behind(tmp_path, 0, 5)
    (path,) = files(tmp_path)
    written_bytes = path.read_bytes()
    folder = path.parent
    for offset in range(8, len(written_bytes)):
        flipped = bytearray(written_bytes)
        flipped[offset] ^= 0x10
        folder.mkdir(exist_ok=True)
        path.write_bytes(flipped)
        spool = disk_spool(tmp_path)
        spool.tend(time.monotonic())
        left = delivered(spool)
        expected = [str(n) for n in range(5)]
        assert [entry for entry in expected if entry in left] == left, offset
        assert len(left) < 5 or left == expected
        spool.abandon()


def test_another_applications_spool_and_one_for_elsewhere_are_left_alone(tmp_path: Path):
    left_behind(tmp_path, 0, 5)
    other = disk_spool(tmp_path, owner=SpoolOwner("another", OWNER.identity_of, OWNER.is_gone))
    other.tend(time.monotonic())
    assert len(other) == 0
    other.abandon()
    assert len(files(tmp_path)) == 1


def test_a_spool_that_cannot_start_a_thread_is_written_by_whoever_tends_it(tmp_path: Path, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    spool = disk_spool(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        spool.put("a")
    spool.tend(time.monotonic())
    assert len(files(tmp_path)) == 1
    assert spool.abandon() == 0
    assert len(spool) == 1


NEVER_JUDGED = SpoolOwner(OWNER.application, OWNER.identity_of, lambda *_: False)
"""As in another container with the same volume: nothing there is ever proven gone by its pid."""


def test_where_a_process_cannot_be_judged_its_lock_decides(tmp_path: Path):
    leaver = Leaver(tmp_path, 5, 10)
    left_behind(tmp_path, 0, 5)
    spool = disk_spool(tmp_path, owner=NEVER_JUDGED)
    spool.tend(time.monotonic())
    assert delivered(spool) == [str(n) for n in range(5)]
    leaver.die()
    spool.abandon()
    again = disk_spool(tmp_path, owner=NEVER_JUDGED)
    again.tend(time.monotonic())
    assert delivered(again) == [str(n) for n in range(5, 10)]
    again.abandon()


def test_without_a_lock_file_what_cannot_be_judged_is_left_alone(tmp_path: Path):
    left_behind(tmp_path, 0, 5)
    (lock,) = tmp_path.rglob("lock")
    lock.unlink()
    spool = disk_spool(tmp_path, owner=NEVER_JUDGED)
    spool.tend(time.monotonic())
    assert len(spool) == 0
    spool.abandon()


def test_a_link_or_a_file_in_the_place_of_a_spool_is_not_followed(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    root = tmp_path / "spools"
    left_behind(elsewhere, 0, 5)
    root.mkdir()
    (theirs,) = elsewhere.iterdir()
    (root / theirs.name).symlink_to(theirs)
    (root / f"{theirs.name}x").write_text("no folder")
    spool = disk_spool(root)
    spool.tend(time.monotonic())
    assert len(spool) == 0
    assert len(files(elsewhere)) == 1
    spool.abandon()


@pytest.mark.parametrize("planted", ["link", "pipe", "garbage"])
def test_what_is_no_file_of_ours_within_a_spool_stops_nobody(tmp_path: Path, planted: str):
    left_behind(tmp_path, 0, 5)
    (path,) = files(tmp_path)
    bad = path.with_name(f"{0:020d}{SUFFIX}")
    if planted == "link":
        bad.symlink_to("/etc/passwd")
    elif planted == "pipe":
        os.mkfifo(bad)
    else:
        bad.write_bytes(os.urandom(4096))
    spool = disk_spool(tmp_path)
    spool.tend(time.monotonic())
    spool.tend(time.monotonic() + 10)
    assert delivered(spool) == [str(n) for n in range(5)]
    spool.abandon()


def test_what_a_process_had_adopted_when_it_was_killed_is_adopted_again(tmp_path: Path):
    left_behind(tmp_path, 0, 5)

    def adopt_and_die() -> bool:
        written(disk_spool(tmp_path), "5", "6")
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    assert exit_code(forked(adopt_and_die)) == -signal.SIGKILL
    spool = disk_spool(tmp_path)
    spool.tend(time.monotonic())
    assert delivered(spool) == [str(n) for n in range(7)]
    spool.abandon()
    assert list(tmp_path.iterdir()) == []
