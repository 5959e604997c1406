"""The contract that every spool keeps: in memory, and on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otelprogress.otel.spool import MAX_BATCH, MemorySpool, Spool
from tests.otel.spools import delivered, disk_spool, encode

Make = Callable[..., Spool]


@pytest.fixture(params=["memory", "disk", "disk that takes nothing"])
def make(request: pytest.FixtureRequest, tmp_path: Path):
    made: list[Spool] = []

    def memory(limit: int = 1_000) -> Spool:
        return MemorySpool(limit, encode)

    def disk(limit: int = 1_000) -> Spool:
        return disk_spool(tmp_path / f"{len(made)}", limit=limit)

    def full_disk(limit: int = 1_000) -> Spool:
        (tmp_path / "file").touch()  # below which no folder can be made
        return disk_spool(tmp_path / "file" / "spools", limit=limit)

    def remembered(limit: int = 1_000) -> Spool:
        made.append({"memory": memory, "disk": disk}.get(request.param, full_disk)(limit))
        return made[-1]

    yield remembered
    for spool in made:
        spool.abandon()


def tend(spool: Spool) -> None:
    spool.tend(time.monotonic())


@pytest.mark.parametrize("tended", [True, False])
def test_entries_leave_in_the_order_they_came(make: Make, tended: bool):
    spool = make()
    for n in range(10):
        spool.put(str(n))
        if tended and n % 3 == 0:
            tend(spool)
    assert len(spool) == 10
    assert delivered(spool) == [str(n) for n in range(10)]
    assert len(spool) == 0
    assert spool.next_body() is None


def test_the_same_bytes_come_until_they_are_settled(make: Make):
    spool = make()
    spool.put("a")
    tend(spool)
    body = spool.next_body()
    spool.put("b")
    tend(spool)
    assert body == b"a,"
    assert spool.next_body() is body
    assert len(spool) == 2
    assert spool.settle() == 1
    assert spool.next_body() == b"b,"


def test_a_request_has_no_more_than_a_batch(make: Make):
    spool = make()
    for n in range(MAX_BATCH + 5):
        spool.put(str(n))
    tend(spool)
    spool.next_body()
    assert spool.settle() == MAX_BATCH
    assert len(delivered(spool)) == 5


def test_a_full_spool_drops_the_oldest_and_counts_them(make: Make):
    spool = make(limit=3)
    for n in range(5):
        spool.put(str(n))
    assert spool.dropped == 2
    assert delivered(spool) == ["2", "3", "4"]


def test_an_entry_that_cannot_be_encoded_takes_no_neighbour_along_and_is_counted(make: Make):
    spool = make()
    for entry in ("a", "bad", "b", "bad"):
        spool.put(entry)
    tend(spool)
    assert delivered(spool) == ["a", "b"]
    assert spool.dropped == 2
    assert "not to be encoded" in spool.failure or "Not a directory" in spool.failure


def test_what_is_abandoned_is_lost_or_kept_and_nothing_comes_any_more(make: Make):
    spool = make()
    for n in range(3):
        spool.put(str(n))
    tend(spool)
    spool.next_body()
    waiting = len(spool)
    assert spool.abandon() + len(spool) == waiting == 3
    assert spool.next_body() is None
    assert spool.abandon() == 0


def test_many_threads_put_and_nothing_is_lost_or_doubled(make: Make):
    spool = make(limit=100_000)

    def put(writer: int) -> None:
        for n in range(500):
            spool.put(f"{writer}-{n}")

    threads = [threading.Thread(target=put, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    out: list[str] = []
    while any(thread.is_alive() for thread in threads):
        tend(spool)
        out += delivered(spool, 600)
    tend(spool)
    out += delivered(spool)
    assert len(out) == len(set(out)) == 2_000
    for writer in range(4):
        assert [each for each in out if each.startswith(f"{writer}-")] == [
            f"{writer}-{n}" for n in range(500)
        ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.sampled_from(["put", "put", "bad", "tend", "ask", "settle"]), max_size=40))
def test_every_entry_is_accounted_for_and_in_order_whatever_is_done(make: Make, moves: list[str]):
    spool, given_to_it, out, tried = make(), 0, [], None
    for move in moves:
        if move == "put":
            spool.put(str(given_to_it))
            given_to_it += 1
        elif move == "bad":
            spool.put("bad")
        elif move == "tend":
            tend(spool)
        elif move == "ask":
            body = spool.next_body()
            assert tried is None or body is tried
            tried = body
        elif tried is not None:
            out += tried.decode().rstrip(",").split(",")
            spool.settle()
            tried = None
    if tried is not None:
        out += tried.decode().rstrip(",").split(",")
        spool.settle()
    out += delivered(spool)
    assert out == [str(n) for n in range(given_to_it)]
    assert spool.dropped == moves.count("bad")
    assert len(spool) == 0
    spool.abandon()
