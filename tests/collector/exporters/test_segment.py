from __future__ import annotations

import errno
import os

import pytest

from otelprogress_collector.exporters.segment import Segment


@pytest.fixture
def segment(tmp_path):
    made = Segment.create(tmp_path, 3, first_serial=100)
    yield made
    made.close()


def append(segment, *bodies: bytes) -> list[int]:
    return [segment.append(body, "protobuf", 1) for body in bodies]


def test_serial_numbers_follow_those_before(segment):
    assert append(segment, b"a", b"b") == [100, 101]
    assert segment.next_free_serial == 102
    assert segment.untouched
    assert [segment.next_serial(), segment.next_serial()] == [100, 101]
    assert (segment.untaken, segment.pending, segment.untouched) == (0, 2, False)


def test_what_was_settled_before_it_was_taken_is_stepped_over(segment):
    append(segment, b"a", b"b", b"c")
    segment.settle(100)
    segment.settle(101)
    assert (segment.untaken, segment.pending) == (1, 1)
    assert segment.next_accepted_unix_ns() == 1
    assert segment.next_serial() == 102
    assert segment.next_accepted_unix_ns() is None


def test_an_emptied_segment_never_uses_a_number_twice(segment):
    [serial] = append(segment, b"a")
    segment.settle(serial)
    assert segment.reset()
    assert append(segment, b"b") == [101]
    assert segment.read(101)[0] == b"b"
    assert segment.frame_bytes(100) == 0


def test_a_write_that_comes_in_pieces_is_whole(segment, monkeypatch):
    whole = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, pieces, at: os.pwrite(fd, bytes(pieces[0])[:7], at))
    append(segment, b"0123456789" * 5)
    monkeypatch.setattr(os, "pwritev", whole)
    append(segment, b"next")
    assert segment.read(100)[0] == b"0123456789" * 5
    assert segment.read(101)[0] == b"next"


def test_a_write_that_breaks_off_leaves_nothing_behind(segment, monkeypatch):
    append(segment, b"a")
    size = segment.path.stat().st_size
    calls = []

    def breaking(fd, pieces, at):
        calls.append(at)
        if len(calls) == 2:
            raise OSError(errno.EDQUOT, "quota")
        return os.pwrite(fd, bytes(pieces[0])[:10], at)

    monkeypatch.setattr(os, "pwritev", breaking)
    with pytest.raises(OSError, match="quota"):
        append(segment, b"b")
    monkeypatch.undo()
    assert segment.path.stat().st_size == size
    assert append(segment, b"c") == [101]
    assert segment.read(101)[0] == b"c"


def test_a_name_says_what_a_file_is(segment, tmp_path):
    found = Segment.found(segment.path)
    assert (found.number, found.path) == (3, segment.path)
    assert Segment.found(tmp_path / "other") is None
    assert Segment.found(tmp_path / (segment.path.name + ".bak")) is None


def test_markers_differ_and_never_begin_with_zero(tmp_path):
    names = set()
    for number in range(50):
        one = Segment.create(tmp_path, number, 0)
        one.close()
        names.add(one.path.name[17:25])
    assert len(names) == 50
    assert not any(name.startswith("00") for name in names)


def test_removing_what_is_gone_is_no_error(segment):
    segment.path.unlink()
    segment.remove()
    segment.remove()
