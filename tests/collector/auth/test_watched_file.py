from __future__ import annotations

import logging
import os

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.watched_file import WatchedFile


def parse_number(encoded: bytes) -> int:
    if not encoded.isdigit():
        raise InvalidValue("it is no number")
    return int(encoded)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "number"
    path.write_bytes(b"1")
    return path


def watched(path, **settings):
    return WatchedFile(path, read=lambda path: path.read_bytes(), parse=parse_number, now_s=0.0, **settings)


def test_a_change_is_seen_at_the_next_look_that_is_due(path):
    file = watched(path, check_every_s=2.0)
    path.write_bytes(b"2")
    assert not file.refresh(1.9)
    assert file.content == 1
    assert file.refresh(2.0)
    assert file.content == 2
    assert not file.refresh(4.0)


def test_a_change_that_leaves_time_and_size_as_they_were_is_seen(path):
    file = watched(path)
    before = path.stat()
    path.write_bytes(b"7")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.refresh(100.0)
    assert file.content == 7


def test_while_it_is_broken_the_last_good_content_stands_and_one_line_says_so(path, caplog):
    caplog.set_level(logging.INFO, "otelprogress_collector.auth")
    file = watched(path)
    for now_s, content in ((10, b"x"), (20, b"y"), (30, None), (40, b"")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        assert not file.refresh(now_s)
        assert file.content == 1
        assert file.broken
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
    assert str(path) in caplog.text
    path.write_bytes(b"2")
    assert file.refresh(50)
    assert file.content == 2
    assert not file.broken
    path.write_bytes(b"z")
    file.refresh(60)
    assert [one.levelno for one in caplog.records] == [logging.WARNING, logging.INFO, logging.WARNING]


def test_a_good_content_that_comes_back_is_no_change(path):
    file = watched(path)
    path.write_bytes(b"x")
    file.refresh(10)
    path.write_bytes(b"1")
    assert not file.refresh(20)
    assert not file.broken


@pytest.mark.parametrize("content", [b"x", None])
def test_what_is_broken_or_missing_at_the_beginning_is_refused_by_name(path, content):
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidValue, match=str(path)):
        watched(path)


def test_an_error_that_nobody_foresaw_is_one_more_way_to_be_broken(path, caplog):
    def parse(encoded):
        return 1 // (encoded != b"2")

    file = WatchedFile(path, read=lambda path: path.read_bytes(), parse=parse, now_s=0.0)
    path.write_bytes(b"2")
    assert not file.refresh(10.0)
    assert file.content == 1
    assert "ZeroDivisionError" in caplog.text
