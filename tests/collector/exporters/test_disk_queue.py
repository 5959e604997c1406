from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otelprogress_collector.exporters.disk_queue import DiskQueue
from otelprogress_collector.exporters.forward_queue import QueueUnavailable
from tests.waiting import eventually


def opened(directory: Path, *, at_unix_ns: int = 0, **settings) -> DiskQueue:
    settings = {"max_bytes": 1 << 20, "segment_bytes": 300, **settings}
    queue = DiskQueue(directory, **settings)
    queue.open(at_unix_ns)
    return queue


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "forward" / "vendor" / "traces"


def append(queue, *bodies: bytes) -> None:
    for body in bodies:
        queue.append(body, "protobuf", 7)


def bodies(queue) -> list[bytes]:
    taken = []
    while (entry := queue.take(7)) is not None:
        taken.append(entry.body)
    return taken


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def numbered(count: int, size: int = 60) -> list[bytes]:
    return [b"%0*d" % (size, number) for number in range(count)]


def test_what_is_queued_survives_a_restart_in_order(directory):
    queue = opened(directory)
    append(queue, *numbered(20))
    queue.append(b"json", "json", 8)
    assert len(list(directory.iterdir())) > 3
    again = opened(directory)  # the former was never closed: as after SIGKILL
    assert (again.entries, again.size_bytes) == (queue.entries, queue.size_bytes)
    taken = [again.take(8) for _ in range(21)]
    assert [one.body for one in taken] == [*numbered(20), b"json"]
    assert (taken[0].encoding, taken[0].accepted_unix_ns) == ("protobuf", 7)
    assert (taken[-1].encoding, taken[-1].accepted_unix_ns) == ("json", 8)
    assert again.counts.total == 0


def test_what_was_settled_does_not_come_back(directory):
    queue = opened(directory)
    append(queue, *numbered(12))
    taken = [queue.take(7) for _ in range(8)]
    queue.settle(taken[::2])
    queue.release(taken[1:4:2])
    again = opened(directory)
    assert bodies(again) == [numbered(12)[at] for at in (1, 3, 5, 7, 8, 9, 10, 11)]
    assert again.counts.total == 0


def test_what_was_settled_is_nowhere_on_the_disk(directory):
    queue = opened(directory, segment_bytes=10_000)
    append(queue, b"canary-1", b"canary-2", b"canary-3")
    one, two, three = (queue.take(7) for _ in range(3))
    queue.settle([two])
    assert b"canary-2" not in on_disk(directory)
    assert b"canary-1" in on_disk(directory)
    queue.settle([one, three])
    assert on_disk(directory) == b""


def test_what_was_dropped_withdrawn_or_cleared_is_nowhere_on_the_disk(directory):
    queue = opened(directory, max_bytes=150, segment_bytes=10_000)
    append(queue, b"dropped-canary", *numbered(2, 30))
    assert queue.counts.overflowed == 1
    queue.withdraw(queue.append(b"withdrawn-canary", "json", 7))
    content = on_disk(directory)
    assert b"canary" not in content
    assert numbered(2, 30)[1] in content
    queue.clear()
    assert on_disk(directory) == b""


def test_files_and_folder_are_the_owners_alone(directory):
    directory.mkdir(parents=True, mode=0o777)
    directory.chmod(0o777)
    old_umask = os.umask(0)
    try:
        queue = opened(directory)
        append(queue, *numbered(10))
    finally:
        os.umask(old_umask)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_a_long_backlog_holds_few_descriptors(directory):
    before = open_descriptors()
    queue = opened(directory)
    append(queue, *numbered(200))
    assert len(list(directory.iterdir())) > 50
    assert open_descriptors() - before <= 2
    assert bodies(queue) == numbered(200)
    queue.close()
    assert open_descriptors() == before


def test_files_go_once_what_is_in_them_is_settled(directory):
    queue = opened(directory)
    for _ in range(5):
        append(queue, *numbered(20))
        while (entry := queue.take(7)) is not None:
            queue.settle([entry])
        assert len(list(directory.iterdir())) <= 1
    assert on_disk(directory) == b""


def test_the_disk_never_holds_much_more_than_the_bound(directory):
    queue = opened(directory, max_bytes=10_000, segment_bytes=None)
    largest = 0
    for body in numbered(2_000, 100):
        append(queue, body)
        largest = max(largest, sum(path.stat().st_size for path in directory.iterdir()))
    assert queue.size_bytes <= 10_000
    assert largest <= 10_000 + 2 * 4_096
    assert queue.counts.overflowed > 1_900


def test_a_smaller_bound_holds_for_what_waits_from_before(directory):
    append(opened(directory), *numbered(20))
    again = opened(directory, max_bytes=500)
    assert again.size_bytes <= 500
    assert bodies(again) == numbered(20)[-5:]
    assert again.counts.overflowed == 15


def test_what_grew_too_old_while_nobody_ran_is_dropped_at_the_start(directory):
    queue = opened(directory)
    append(queue, *numbered(20))
    queue.append(b"young", "protobuf", 5_000_000_000)
    again = opened(directory, max_age_s=2.0, at_unix_ns=6_000_000_000)
    assert (again.entries, again.counts.expired) == (1, 20)
    assert again.take(6_000_000_000).body == b"young"


def test_one_large_request_pushes_out_whole_files_of_small_ones(directory, monkeypatch):
    queue = opened(directory, max_bytes=10_000, segment_bytes=500)
    append(queue, *numbered(100, 40))
    first = queue.take(7)
    one_by_one = []
    monkeypatch.setattr(
        queue, "_forget", lambda *place, forget=queue._forget: one_by_one.append(forget(*place))
    )
    append(queue, b"large" * 1_900)
    left = bodies(queue)
    assert left == [*numbered(100, 40)[100 - (len(left) - 1) :], b"large" * 1_900]
    assert queue.counts.overflowed == 100 - 1 - (len(left) - 1)
    assert len(one_by_one) < 20
    assert first.body == numbered(1, 40)[0]
    assert queue.entries == len(left) + 1


def test_a_torn_tail_costs_only_what_was_never_acknowledged(directory):
    append(opened(directory, segment_bytes=10_000), *numbered(5))
    [path] = directory.iterdir()
    os.truncate(path, path.stat().st_size - 3)
    again = opened(directory)
    append(again, b"new")
    assert bodies(again) == [*numbered(4), b"new"]
    assert again.counts.damaged == 1


def test_a_flipped_bit_anywhere_costs_one_request_and_is_counted(directory):
    append(opened(directory, segment_bytes=10_000), *numbered(3, 10))
    [path] = directory.iterdir()
    content = path.read_bytes()
    frame = len(content) // 3
    for at in range(len(content)):
        hurt = bytearray(content)
        hurt[at] ^= 0x10
        path.write_bytes(hurt)
        queue = opened(directory)
        assert bodies(queue) == [body for number, body in enumerate(numbered(3, 10)) if number != at // frame]
        assert queue.counts.damaged == 1
        queue.close()


def test_a_bit_that_flips_while_it_runs_costs_one_request_and_is_counted(directory):
    queue = opened(directory, segment_bytes=10_000)
    append(queue, *numbered(3))
    [path] = directory.iterdir()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff")
    assert bodies(queue) == [numbered(3)[0], numbered(3)[2]]
    assert (queue.counts.damaged, queue.entries) == (1, 2)


def test_a_file_that_vanished_costs_what_was_in_it_and_no_more(directory):
    queue = opened(directory)
    append(queue, *numbered(20))
    sorted(directory.iterdir())[2].unlink()
    left = bodies(queue)
    assert left == [body for body in numbered(20) if body in left]
    assert len(left) + queue.counts.damaged == 20
    assert 0 < queue.counts.damaged < 5


def test_a_folder_that_vanished_is_made_again(directory):
    import shutil

    queue = opened(directory)
    append(queue, *numbered(3))
    shutil.rmtree(directory)
    append(queue, *numbered(20))
    assert list(directory.iterdir())


def test_files_of_others_are_left_alone(directory):
    directory.mkdir(parents=True)
    (directory / "note.txt").write_text("mine")
    (directory / "0000000000000001-zzzzzzzz.segment").write_text("not a marker")
    queue = opened(directory)
    append(queue, b"a")
    queue.clear()
    assert sorted(path.name for path in directory.iterdir()) == [
        "0000000000000001-zzzzzzzz.segment",
        "note.txt",
    ]


def test_a_folder_that_cannot_be_used_fails_the_start_with_a_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueUnavailable, match="cannot be opened: Not a directory"):
        opened(tmp_path / "file" / "queue")


def test_a_link_in_place_of_a_file_is_not_followed(directory, tmp_path):
    queue = opened(directory)
    append(queue, *numbered(20))
    target = tmp_path / "precious"
    target.write_bytes(b"precious" * 100)
    second = sorted(directory.iterdir())[1]
    second.unlink()
    second.symlink_to(target)
    while (entry := queue.take(7)) is not None:
        queue.settle([entry])
    assert target.read_bytes() == b"precious" * 100
    assert queue.counts.damaged > 0


def test_a_link_found_at_the_start_is_not_followed_either(directory, tmp_path):
    append(opened(directory, segment_bytes=10_000), b"a")
    [path] = directory.iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    queue = opened(directory)
    assert (queue.entries, queue.counts.damaged) == (0, 1)
    assert (tmp_path / "elsewhere").stat().st_size > 0


# --- a full disk ---------------------------------------------------------------------------------------------


def fill(queue) -> int:
    """Append until it fails; how many were taken."""
    taken = 0
    while True:
        try:
            queue.append(b"%08d" % taken + b"x" * 3_000, "protobuf", 7)
        except QueueUnavailable:
            return taken
        taken += 1


def assert_recovers(queue, directory: Path, taken: int, give_room) -> None:
    """What was acknowledged is there, the rest is not, and appending works again by itself."""
    entries, size_bytes = queue.entries, queue.size_bytes
    assert entries == taken
    with pytest.raises(QueueUnavailable, match="takes nothing"):
        queue.append(b"no" * 2_000, "protobuf", 7)
    assert (queue.entries, queue.size_bytes, queue.counts.total) == (entries, size_bytes, 0)
    give_room()
    queue.append(b"after", "protobuf", 7)
    again = opened(directory, segment_bytes=1 << 20)
    assert [body[:8] for body in bodies(again)] == [*(b"%08d" % number for number in range(taken)), b"after"]
    again.close()


def test_a_full_disk_refuses_clearly_and_recovers_by_itself(tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root; the test below has a quota in its place")
    try:
        directory = mounted / "queue"
        (mounted / "ballast").write_bytes(bytes(20_000))
        queue = opened(directory, segment_bytes=1 << 20)
        taken = fill(queue)
        assert 5 < taken < 20
        assert_recovers(queue, directory, taken, (mounted / "ballast").unlink)
        queue.close()
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_quota_refuses_clearly_and_recovers_by_itself(directory):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    queue = opened(directory, segment_bytes=1 << 20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        taken = fill(queue)
        assert taken == 13
        assert_recovers(
            queue, directory, taken, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_still_settles_what_was_delivered(tmp_path, directory, monkeypatch):
    queue = opened(directory, segment_bytes=10_000)
    append(queue, *numbered(3))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("pwrite", "pwritev", "ftruncate"):
        monkeypatch.setattr(os, name, full)
    with pytest.raises(QueueUnavailable, match="No space left on device"):
        append(queue, b"no")
    taken = [queue.take(7) for _ in range(3)]
    queue.settle(taken[:1])
    queue.settle(taken[1:])
    assert queue.entries == 0
    monkeypatch.undo()
    append(queue, b"after")
    assert bodies(queue) == [b"after"]
    assert bodies(opened(directory)) == [b"after"]


# --- SIGKILL --------------------------------------------------------------------------------------------------

_PRODUCER = """
import sys
from pathlib import Path
from otelprogress_collector.exporters.disk_queue import DiskQueue
queue = DiskQueue(Path(sys.argv[1]), max_bytes=1 << 28, segment_bytes=1 << 16)
queue.open(0)
number = 0
while True:
    queue.append(b"%08d" % number + b"x" * (number * 37 % 5000), "protobuf", 7)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    if number % 3 == 0:  # deliver some: what is settled must not come back
        entry = queue.take(7)
        queue.settle([entry])
        sys.stdout.write(f"settled {int(entry.body[:8])}\\n")
        sys.stdout.flush()
    number += 1
"""


@pytest.mark.parametrize("after", [1, 50, 400])
def test_sigkill_loses_nothing_that_was_acknowledged_and_repeats_nothing_that_was_settled(
    directory, tmp_path, after
):
    said = tmp_path / "said"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", _PRODUCER, str(directory)], stdout=out, env=environment
        )
        try:
            eventually(lambda: said.read_bytes().count(b"\n") > after)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    lines = said.read_text().splitlines()
    settled = {int(line.split()[1]) for line in lines if line.startswith("settled")}
    acknowledged = {int(line) for line in lines if line.isdigit()}
    queue = opened(directory)
    found = [int(body[:8]) for body in bodies(queue)]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert not set(found) & settled
    # The last append or settling may have been done and not yet been said.
    assert len(acknowledged - settled - set(found)) <= 1
    assert len(set(found) - acknowledged) <= 1
    missing = acknowledged - settled - set(found)
    assert missing <= {len(settled)}, "only the next one in order can have been settled unsaid"
    assert queue.counts.damaged <= 1


# --- fsync ----------------------------------------------------------------------------------------------------


def test_what_was_written_and_its_folder_are_named_for_fsync_once(directory):
    queue = opened(directory)
    append(queue, *numbered(6))
    descriptors = queue.unsynced()
    names = {str(Path(f"/proc/self/fd/{descriptor}").readlink()) for descriptor in descriptors}
    assert names == {str(directory), *(str(path) for path in directory.iterdir())}
    for descriptor in descriptors:
        os.fsync(descriptor)
        os.close(descriptor)
    assert queue.unsynced() == []
    append(queue, b"more")
    again = queue.unsynced()
    assert len(again) == 1
    os.close(again[0])


def test_nothing_is_synced_of_a_file_that_is_gone(directory):
    queue = opened(directory)
    append(queue, *numbered(20))
    while (entry := queue.take(7)) is not None:
        queue.settle([entry])
    descriptors = queue.unsynced()
    assert len(descriptors) <= 2
    for descriptor in descriptors:
        os.close(descriptor)
