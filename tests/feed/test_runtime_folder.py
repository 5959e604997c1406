from __future__ import annotations

import threading
from pathlib import Path

import pytest

from otelprogress.exceptions import InvalidRecord
from otelprogress.feed import runtime_file, runtime_folder


def test_an_announced_file_is_there_and_tells_nothing_until_it_is_written(private_runtime_folder: Path):
    path = runtime_folder.announce()
    assert path is not None
    assert path.parent == private_runtime_folder
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (0, 0o600)
    assert runtime_file.scan() == []
    assert runtime_file.write("ws://127.0.0.1:4327", "secret") == path
    assert runtime_file.read(path).url == "ws://127.0.0.1:4327"
    assert runtime_file.write("ws://127.0.0.1:4328", "secret") != path
    assert [one.path for one in runtime_file.scan()].count(path) == 1


def test_who_was_told_of_it_waits_until_it_is_written():
    path = runtime_folder.announce()
    found: list[str] = []
    reading = threading.Event()

    def child() -> None:
        reading.set()
        found.append(runtime_file.read_announced(path).url)

    thread = threading.Thread(target=child)
    thread.start()
    reading.wait(10)
    assert found == []
    runtime_file.write("ws://127.0.0.1:4327", "secret")
    thread.join(10)
    assert found == ["ws://127.0.0.1:4327"]


def test_what_is_taken_back_or_does_not_come_is_waited_for_no_longer():
    path = runtime_folder.announce()
    with pytest.raises(InvalidRecord):
        runtime_file.read_announced(path, wait_s=0)
    runtime_folder.withdraw()
    with pytest.raises(FileNotFoundError):
        runtime_file.read_announced(path)
    assert runtime_file.write("ws://127.0.0.1:4327", "secret") != path


def test_a_file_that_is_wrong_is_not_waited_for(private_runtime_folder: Path):
    path = private_runtime_folder / "1-00.json"
    path.write_text("{}")
    path.chmod(0o600)
    with pytest.raises(InvalidRecord):
        runtime_file.read_announced(path)


def test_an_announced_file_that_never_came_goes_with_the_stale_ones():
    path = runtime_folder.announce()
    runtime_file.scan(now_s=path.stat().st_mtime + runtime_file.KEEP_STALE_S)
    assert path.exists()
    runtime_file.scan(now_s=path.stat().st_mtime + runtime_file.KEEP_STALE_S + 1)
    assert not path.exists()
    runtime_folder.withdraw()


def test_a_folder_that_cannot_be_made_announces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OTELPROGRESS_RUNTIME_DIR", str(tmp_path / "file" / "in"))
    assert runtime_folder.announce() is None


def test_a_folder_that_others_can_read_announces_nothing(private_runtime_folder: Path):
    private_runtime_folder.chmod(0o755)
    assert runtime_folder.announce() is None
    assert list(private_runtime_folder.iterdir()) == []


def test_a_file_that_is_written_between_two_looks_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch):
    path = runtime_folder.announce()
    assert path is not None
    read = runtime_file.read

    def read_too_early(path: Path) -> runtime_file.RuntimeFile:
        monkeypatch.setattr(runtime_file, "read", read)
        try:
            return read(path)
        finally:
            runtime_file.write("ws://127.0.0.1:4327", "secret")

    monkeypatch.setattr(runtime_file, "read", read_too_early)
    assert runtime_file.read_announced(path).url == "ws://127.0.0.1:4327"
