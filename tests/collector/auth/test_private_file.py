from __future__ import annotations

import os
import stat
import threading

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.private_file import (
    locked_folder,
    read_private,
    read_trusted,
    write_private,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "secret"
    write_private(path, b"content")
    return path


def test_what_is_written_can_be_read_by_nobody_else(file):
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_private(file, max_bytes=100) == b"content"


def test_writing_ignores_the_umask_and_an_open_mode_of_what_was_there(file):
    file.chmod(0o644)
    before = os.umask(0)
    try:
        write_private(file, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_private(file, max_bytes=100) == b"new"


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(file, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(file, b"new")
    assert file.read_bytes() == b"content"
    assert [one.name for one in file.parent.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606, 0o610, 0o677])
def test_a_secret_that_others_could_get_at_is_refused_with_what_to_do(file, mode):
    file.chmod(mode)
    with pytest.raises(InvalidValue, match=rf"mode {mode:04o}.*chmod 600 .*secret"):
        read_private(file, max_bytes=100)


def test_a_key_may_be_readable_to_its_group_where_that_is_said(file):
    file.chmod(0o640)
    assert read_private(file, max_bytes=100, group_may_read=True) == b"content"
    file.chmod(0o660)
    with pytest.raises(InvalidValue):
        read_private(file, max_bytes=100, group_may_read=True)


def test_what_decides_who_is_let_in_may_be_read_but_not_written_by_others(file):
    file.chmod(0o644)
    assert read_trusted(file, max_bytes=100) == b"content"
    file.chmod(0o664)
    with pytest.raises(InvalidValue, match="others could change it"):
        read_trusted(file, max_bytes=100)


def test_a_file_of_somebody_else_is_refused(file, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    for read in (read_private, read_trusted):
        if read is read_trusted and file.stat().st_uid == 0:
            continue  # root may always have changed it
        with pytest.raises(InvalidValue, match="belongs to user"):
            read(file, max_bytes=100)


def test_pipes_folders_and_long_files_are_refused_without_waiting(tmp_path, file):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(InvalidValue, match="plain file"):
        read_private(tmp_path / "pipe", max_bytes=100)
    with pytest.raises((InvalidValue, IsADirectoryError)):
        read_private(tmp_path, max_bytes=100)
    with pytest.raises(InvalidValue, match="longer than 6 bytes"):
        read_private(file, max_bytes=6)


def test_a_link_is_followed_to_the_file_that_counts(tmp_path, file):
    (tmp_path / "link").symlink_to(file)
    assert read_private(tmp_path / "link", max_bytes=100) == b"content"
    file.chmod(0o644)
    with pytest.raises(InvalidValue):
        read_private(tmp_path / "link", max_bytes=100)


def test_two_who_lock_a_folder_come_one_after_the_other(tmp_path):
    order = []
    inside = threading.Event()

    def second():
        inside.wait(10)
        with locked_folder(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked_folder(tmp_path):
        inside.set()
        thread.join(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
