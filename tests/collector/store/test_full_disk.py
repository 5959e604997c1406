"""The disk is full or broken: nothing half is written, it is said, and it works again by itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otelprogress_collector.store.interface import Batch, StoreUnavailable
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.rows import ALL, offsets, row, rows, run
from tests.collector.store.test_crash import ENVIRON, REPOSITORY

LARGE = 50_000


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "store", "disk")
    store.open()
    yield store
    store.close()


def fill(store, *, size: int = LARGE, most: int = 2_000) -> int:
    """Append until it is refused; the head by then."""
    for offset in range(1, most):
        batch = Batch(
            journal=[row(offset, size=size)], runs=[run("a", b"%d" % offset)], numbers={"n": offset}
        )
        try:
            store.append(batch)
        except StoreUnavailable:
            return offset - 1
    raise AssertionError("it never became full")


def check_nothing_half(store, head: int) -> None:
    assert offsets(store.journal_from(0)) == list(range(1, head + 1))
    assert list(store.runs()) == [run("a", b"%d" % head)]
    assert store.numbers() == {"n": head}


def limit_pages(store, pages: int) -> None:
    """For the connection that commits: SQLite then says what it says when the disk is full."""
    store._parts.writer.execute(f"PRAGMA max_page_count = {pages}").fetchall()


def test_a_full_database_refuses_and_takes_again_once_there_is_room(store):
    limit_pages(store, 400)
    head = fill(store)
    assert head > 5
    check_nothing_half(store, head)
    assert not store.probe()
    with pytest.raises(StoreUnavailable, match="nothing was written: database or disk is full"):
        store.append(Batch(journal=[row(head + 1, size=LARGE)]))
    limit_pages(store, 1 << 30)
    assert store.probe()
    store.append(Batch(journal=[row(head + 1, size=LARGE)]))
    assert offsets(store.journal_tail(2)) == [head, head + 1]


def test_trimming_makes_room_in_a_full_database(store):
    limit_pages(store, 400)
    head = fill(store)
    assert store.trim(older_than_unix_ns=0, max_bytes=LARGE * 4, keep_from=ALL) > 0
    assert store.probe()
    store.append(Batch(journal=[row(head + 1, size=LARGE)]))


def test_a_probe_asks_for_as_much_room_as_the_batch_that_failed_needed(store):
    limit_pages(store, 300)
    with pytest.raises(StoreUnavailable):
        store.append(Batch(journal=[row(1, size=3_000_000)]))
    assert not store.probe()
    store.append(Batch(journal=[row(1)]))


def test_the_probe_leaves_nothing_behind(store):
    before = store.size_bytes()
    for _ in range(50):
        assert store.probe()
    assert store.size_bytes() <= before + 100_000


_LIMITED = """
import resource, signal, sys
from otelprogress_collector.store.interface import Batch, StoreUnavailable
from otelprogress_collector.store.sqlite import SqliteStore
from tests.collector.store.test_full_disk import LARGE, check_nothing_half, fill, row

store = SqliteStore(sys.argv[1], "fsync")
store.open()
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, most))
head = fill(store)
assert head > 5, head
check_nothing_half(store, head)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
assert store.probe()
store.append(Batch(journal=[row(head + 1)]))
store.close()
store = SqliteStore(sys.argv[1], "fsync")
opened = store.open()
assert (opened.head, opened.notes) == (head + 1, ()), opened
store.close()
print("recovered")
"""


def test_a_write_that_fails_with_an_error_of_the_kernel_is_survived(tmp_path):
    """A limit on the size of files: `write` fails with EFBIG, which SQLite takes for an I/O error."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path / "store")],
        env=ENVIRON,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "recovered\n", done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = (
            os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        )
    except FileNotFoundError:
        mounted = False
    if not mounted:
        reason = "a file system of its own cannot be mounted here: this needs root and `mount`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("durability", ["disk", "fsync"])
def test_a_disk_that_runs_full_refuses_and_takes_again_once_there_is_room(small_disk, durability):
    (small_disk / "theirs").write_bytes(bytes(2_000_000))
    store = SqliteStore(small_disk / "store", durability)
    first = store.open()
    head = fill(store, size=10_000)
    check_nothing_half(store, head)
    assert not store.probe()
    store.close()

    # Also after a restart, while the disk is still full.
    store = SqliteStore(small_disk / "store", durability)
    opened = store.open()
    assert (opened.epoch, opened.head, opened.notes) == (first.epoch, head, ())
    check_nothing_half(store, head)
    assert not store.probe()

    (small_disk / "theirs").unlink()
    assert store.probe()
    dropped = 0
    while now := store.trim(older_than_unix_ns=0, max_bytes=500_000, keep_from=ALL):
        dropped += now
    assert 0 < dropped < head
    store.append(Batch(journal=rows(head + 1, head + 3)))
    assert offsets(store.journal_from(0)) == list(range(dropped + 1, head + 4))
    store.close()


def test_somebody_else_fills_the_disk_and_makes_room_again(small_disk):
    store = SqliteStore(small_disk / "store", "disk")
    store.open()
    fill_up(small_disk / "theirs")
    head = fill(store, size=10_000)
    assert not store.probe()
    (small_disk / "theirs").unlink()
    assert store.probe()
    store.append(Batch(journal=[row(head + 1)]))
    assert offsets(store.journal_from(0)) == list(range(1, head + 2))
    store.close()


def test_a_new_store_on_a_full_disk_says_so_and_can_be_opened_later(small_disk):
    fill_up(small_disk / "theirs")
    with pytest.raises(StoreUnavailable):
        SqliteStore(small_disk / "store", "disk").open()
    (small_disk / "theirs").unlink()
    store = SqliteStore(small_disk / "store", "disk")
    assert store.open().head == 0
    store.append(Batch(journal=[row(1)]))
    store.close()
