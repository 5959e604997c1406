"""The mark says what was written to it, or nothing."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.store.epoch import new_epoch
from otelprogress_collector.store.mark import Mark, MarkFile


@pytest.fixture
def mark(tmp_path):
    file = MarkFile(tmp_path / "mark")
    yield file
    file.close()


def test_a_new_one_says_nothing_and_is_this_users_alone(mark, tmp_path):
    assert mark.read() is None
    assert stat.S_IMODE((tmp_path / "mark").stat().st_mode) == 0o600


def test_it_says_what_was_written_last_also_to_the_next_process(mark, tmp_path):
    epoch = new_epoch()
    mark.begin(Mark(epoch, 1, 2))
    mark.write(Mark(epoch, 1 << 60, 3))
    assert mark.read() == Mark(epoch, 1 << 60, 3)
    other = MarkFile(tmp_path / "mark")
    assert other.read() == Mark(epoch, 1 << 60, 3)
    other.close()


def test_beginning_cuts_what_is_too_long(mark, tmp_path):
    (tmp_path / "mark").write_bytes(b"x" * 500)
    assert mark.read() is None
    mark.begin(Mark(new_epoch(), 1, 2))
    assert mark.read() is not None


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        MarkFile(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


@given(garbage=st.binary(max_size=60))
def test_whatever_else_is_in_the_file_it_says_nothing(tmp_path_factory, garbage):
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(garbage)
    file = MarkFile(path)
    assert file.read() is None
    file.close()
