"""The contract of a queue, for both of them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from otelprogress_collector.exporters.disk_queue import DiskQueue
from otelprogress_collector.exporters.forward_queue import ENTRY_BYTES
from otelprogress_collector.exporters.memory_queue import MemoryQueue

SECOND = 1_000_000_000


@pytest.fixture(params=["memory", "disk"])
def make(request, tmp_path):
    made = []

    def queue(*, max_bytes: int = 1 << 20, max_age_s: float | None = None, segment_bytes: int = 300):
        if request.param == "memory":
            one = MemoryQueue(max_bytes=max_bytes, max_age_s=max_age_s)
        else:
            directory = tmp_path / f"queue-{len(made)}"
            one = DiskQueue(directory, max_bytes=max_bytes, max_age_s=max_age_s, segment_bytes=segment_bytes)
        one.open(0)
        made.append(one)
        return one

    yield queue
    for one in made:
        one.close()


@pytest.fixture
def queue(make):
    return make()


def append(queue, *bodies: bytes, at_s: int = 0) -> None:
    for body in bodies:
        queue.append(body, "protobuf", at_s * SECOND)


def take_all(queue, *, at_s: int = 0):
    taken = []
    while (entry := queue.take(at_s * SECOND)) is not None:
        taken.append(entry)
    return taken


def bodies(entries) -> list[bytes]:
    return [entry.body for entry in entries]


def test_requests_are_taken_in_order_as_they_were(queue):
    queue.append(b"one", "protobuf", 5)
    queue.append(b"two", "json", 6)
    first, second = take_all(queue)
    assert (first.body, first.encoding, first.accepted_unix_ns) == (b"one", "protobuf", 5)
    assert (second.body, second.encoding, second.accepted_unix_ns) == (b"two", "json", 6)


def test_what_was_taken_is_not_taken_twice_and_still_queued(queue):
    append(queue, b"a", b"b")
    queue.take(0)
    assert bodies(take_all(queue)) == [b"b"]
    assert (queue.waiting, queue.entries, queue.size_bytes) == (0, 2, 2 * (ENTRY_BYTES + 1))


def test_what_is_settled_is_gone(queue):
    append(queue, b"a", b"b", b"c")
    a, b, c = take_all(queue)
    queue.settle([b])
    queue.settle([a, c])
    assert (queue.entries, queue.size_bytes, queue.oldest_unix_ns()) == (0, 0, None)
    assert queue.counts.total == 0


def test_settling_twice_counts_once(queue):
    append(queue, b"a", b"b")
    a = queue.take(0)
    queue.settle([a])
    queue.settle([a])
    queue.release([a])
    assert queue.entries == 1
    assert bodies(take_all(queue)) == [b"b"]


def test_what_is_released_comes_first_and_in_order(queue):
    append(queue, b"a", b"b", b"c")
    a, b = queue.take(0), queue.take(0)
    queue.release([a, b])
    assert queue.waiting == 3
    assert bodies(take_all(queue)) == [b"a", b"b", b"c"]


def test_over_its_bound_the_oldest_go_and_are_counted(make):
    queue = make(max_bytes=5 * (ENTRY_BYTES + 10))
    for number in range(12):
        append(queue, b"%010d" % number)
        assert queue.size_bytes <= 5 * (ENTRY_BYTES + 10)
    assert queue.counts.overflowed == queue.counts.total == 7
    assert bodies(take_all(queue)) == [b"%010d" % number for number in range(7, 12)]


def test_what_was_taken_does_not_go_over_the_bound(make):
    queue = make(max_bytes=2 * (ENTRY_BYTES + 1))
    append(queue, b"a")
    taken = queue.take(0)
    append(queue, b"b", b"c", b"d")
    assert queue.counts.overflowed == 1
    queue.settle([taken])
    assert bodies(take_all(queue)) == [b"c", b"d"]


def test_what_is_released_is_the_oldest_where_there_is_no_room(make):
    queue = make(max_bytes=2 * (ENTRY_BYTES + 1))
    append(queue, b"a", b"b")
    queue.release([queue.take(0)])
    append(queue, b"c")
    assert bodies(take_all(queue)) == [b"b", b"c"]
    assert queue.counts.overflowed == 1


def test_a_request_that_is_larger_than_the_bound_is_dropped_and_counted(make):
    queue = make(max_bytes=100)
    append(queue, b"x" * 200)
    assert (queue.entries, queue.counts.overflowed) == (0, 1)
    append(queue, b"small")
    assert bodies(take_all(queue)) == [b"small"]


def test_what_waited_too_long_is_dropped_on_the_way(make):
    queue = make(max_age_s=10.0)
    append(queue, b"old", b"old too", at_s=0)
    append(queue, b"young", at_s=15)
    assert bodies(take_all(queue, at_s=20)) == [b"young"]
    assert (queue.counts.expired, queue.entries) == (2, 1)


def test_without_a_greatest_age_nothing_is_too_old(queue):
    append(queue, b"old")
    assert bodies(take_all(queue, at_s=10**9)) == [b"old"]


def test_what_was_taken_expires_only_once_all_of_it_is_too_old(make):
    queue = make(max_age_s=10.0)
    append(queue, b"a", at_s=0)
    append(queue, b"b", at_s=5)
    taken = take_all(queue)
    assert not queue.expire(taken, 12 * SECOND)
    assert queue.entries == 2
    assert queue.expire(taken, 16 * SECOND)
    assert (queue.entries, queue.counts.expired) == (0, 2)


def test_a_wall_clock_set_back_expires_nothing(make):
    queue = make(max_age_s=10.0)
    append(queue, b"a", at_s=100)
    assert bodies(take_all(queue, at_s=1)) == [b"a"]


def test_an_append_can_be_withdrawn_until_it_is_taken(queue):
    serials = [queue.append(body, "protobuf", 0) for body in (b"a", b"b", b"c")]
    queue.withdraw(serials[1])
    assert bodies([queue.take(0)]) == [b"a"]
    queue.withdraw(serials[0])
    queue.withdraw(serials[1])
    assert queue.entries == 2
    assert bodies(take_all(queue)) == [b"c"]
    assert queue.counts.total == 0


def test_a_serial_of_long_ago_withdraws_nothing_new(queue):
    serial = queue.append(b"a", "protobuf", 0)
    queue.settle([queue.take(0)])
    append(queue, b"b")
    queue.withdraw(serial)
    assert bodies(take_all(queue)) == [b"b"]


def test_clearing_drops_everything_what_was_taken_too(queue):
    append(queue, b"a", b"b", b"c")
    taken = queue.take(0)
    assert queue.clear() == 3
    queue.settle([taken])
    queue.release([taken])
    assert (queue.entries, queue.size_bytes, queue.counts.cleared) == (0, 0, 3)
    append(queue, b"d")
    assert bodies(take_all(queue)) == [b"d"]


def test_the_oldest_is_the_oldest_that_has_no_fate_yet(queue):
    append(queue, b"a", at_s=1)
    append(queue, b"b", at_s=2)
    append(queue, b"c", at_s=3)
    a, b = queue.take(0), queue.take(0)
    assert queue.oldest_unix_ns() == 1 * SECOND
    queue.settle([a])
    assert queue.oldest_unix_ns() == 2 * SECOND
    queue.release([b])
    assert queue.oldest_unix_ns() == 2 * SECOND
    queue.settle([queue.take(0)])
    assert queue.oldest_unix_ns() == 3 * SECOND


def test_closing_twice_is_closing_once(queue):
    append(queue, b"a")
    queue.close()
    queue.close()


class Queues(RuleBasedStateMachine):
    """Both queues beside a list, whatever is done to them; the disk's is closed and opened again now and then."""

    MAX_BYTES = 600

    def __init__(self) -> None:
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name)
        self.memory = MemoryQueue(max_bytes=self.MAX_BYTES)
        self.disk = self.opened()
        self.model: list[bytes] = []
        self.number = 0

    def opened(self) -> DiskQueue:
        queue = DiskQueue(self.directory, max_bytes=self.MAX_BYTES, segment_bytes=200)
        queue.open(0)
        return queue

    taken = Bundle("taken")

    @rule(size=st.integers(0, 150))
    def append(self, size):
        self.number += 1
        body = b"%d:" % self.number + b"x" * size
        for queue in (self.memory, self.disk):
            queue.append(body, "json", 0)
        self.model.append(body)
        self.drop_overflow()

    @rule(target=taken)
    def take(self):
        pair = self.memory.take(0), self.disk.take(0)
        if self.model:
            assert pair[0].body == pair[1].body == self.model.pop(0)
        else:
            assert pair == (None, None)
        return pair

    @rule(pair=consumes(taken))
    def settle(self, pair):
        if pair[0] is not None:
            self.memory.settle([pair[0]])
            self.disk.settle([pair[1]])

    @rule(pair=consumes(taken))
    def release(self, pair):
        if pair[0] is not None and self.memory.entries > self.memory.waiting:
            was = self.memory.waiting
            self.memory.release([pair[0]])
            self.disk.release([pair[1]])
            if self.memory.waiting > was:
                self.model.insert(0, pair[0].body)

    def drop_overflow(self):
        while sum(ENTRY_BYTES + len(one) for one in self.model) > self.MAX_BYTES:
            self.model.pop(0)

    @rule()
    def restart_with_nothing_taken(self):
        if self.disk.waiting < self.disk.entries:
            return
        self.disk.close()
        self.disk = self.opened()
        # Released requests come in front until a restart, and may stand over the bound; on the disk they kept
        # their place, and the bound holds from the start.
        self.model.sort(key=lambda body: int(body.split(b":")[0]))
        self.drop_overflow()
        self.memory.clear()
        for body in self.model:
            self.memory.append(body, "json", 0)

    @invariant()
    def they_agree(self):
        assert self.disk.waiting == self.memory.waiting == len(self.model)
        assert self.disk.size_bytes == self.memory.size_bytes
        assert self.disk.entries == self.memory.entries
        waiting = sum(ENTRY_BYTES + len(one) for one in self.model)
        assert self.memory.size_bytes >= waiting

    def teardown(self):
        self.disk.close()
        self.folder.cleanup()


TestQueues = Queues.TestCase
TestQueues.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
