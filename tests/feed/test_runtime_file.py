from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from otelprogress.exceptions import InvalidRecord, InvalidValue
from otelprogress.feed.runtime_file import (
    KEEP_STALE_S,
    ensure_private_folder,
    read,
    remove,
    runtime_folder,
    scan,
    write,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def write_for_a_process_that_is_gone(folder: Path) -> Path:
    code = (
        "import sys; from pathlib import Path; from otelprogress.feed import runtime_file;"
        "print(runtime_file.write('ws://127.0.0.1:9', 'secret', service='etl', folder=Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def test_what_was_written_is_read_back(folder: Path) -> None:
    path = write("ws://127.0.0.1:4327", "secret", service="etl", folder=folder)
    content = read(path)
    assert (content.url, content.token, content.service, content.pid) == (
        "ws://127.0.0.1:4327",
        "secret",
        "etl",
        os.getpid(),
    )
    assert content.kind == "process"
    assert content.live


def test_folder_and_file_are_for_this_user_only(folder: Path) -> None:
    path = write("ws://127.0.0.1:4327", "secret", folder=folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_token_is_not_in_the_repr(folder: Path) -> None:
    assert "secret" not in repr(read(write("ws://127.0.0.1:4327", "secret", folder=folder)))


def test_the_live_feeds_are_found_newest_first(folder: Path) -> None:
    write("ws://127.0.0.1:1", "a", folder=folder, now_unix_ns=1)
    write("ws://127.0.0.1:2", "b", folder=folder, now_unix_ns=2)
    assert [(one.content.url, one.live) for one in scan(folder)] == [
        ("ws://127.0.0.1:2", True),
        ("ws://127.0.0.1:1", True),
    ]


def test_a_removed_file_is_not_found_and_removing_it_twice_is_no_error(folder: Path) -> None:
    path = write("ws://127.0.0.1:1", "a", folder=folder)
    remove(path)
    remove(path)
    assert scan(folder) == []


def test_a_process_that_is_gone_is_remembered_for_a_while(folder: Path) -> None:
    path = write_for_a_process_that_is_gone(folder)
    for _look in range(2):
        (found,) = scan(folder)
        assert not found.live
        assert found.content.service == "etl"
        assert not path.exists()
    assert scan(folder, now_s=time.time() + KEEP_STALE_S + 1) == []
    assert list(folder.iterdir()) == []


def test_nothing_is_found_where_no_folder_is(folder: Path) -> None:
    assert scan(folder) == []
    assert not folder.exists()


def test_a_folder_that_is_closed_to_us_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(InvalidValue, match=f"{folder} cannot be read: Permission denied"):
        scan(folder)


def test_a_folder_that_is_removed_meanwhile_is_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_gone(path: Path) -> list[Path]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    folder.mkdir(mode=0o700)
    monkeypatch.setattr(Path, "iterdir", is_gone)
    assert scan(folder) == []


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    folder.symlink_to(real)
    with pytest.raises(InvalidValue, match="must be a folder, not a link"):
        write("ws://127.0.0.1:1", "a", folder=folder)
    with pytest.raises(InvalidValue, match="must be a folder"):
        scan(folder)


def test_a_folder_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(InvalidValue, match=f"belongs to user {mine}"):
        ensure_private_folder(folder)


def test_a_folder_that_lets_others_in_is_refused_and_left_as_it_is(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(InvalidValue, match="0755.*chmod 700"):
        write("ws://127.0.0.1:1", "a", folder=folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_links_pipes_open_files_and_garbage_in_the_folder_are_passed_over(
    folder: Path, tmp_path: Path
) -> None:
    path = write("ws://127.0.0.1:1", "a", folder=folder)
    (folder / "link.json").symlink_to(path)
    os.mkfifo(folder / "pipe.json", 0o600)
    (folder / "open.json").write_bytes(path.read_bytes())
    (folder / "open.json").chmod(0o644)
    for name, content in {
        "garbage": b"\xff{",
        "short": b'{"pid": 1}',
        "long": b" " * 100_000,
        "list": b"[]",
    }.items():
        file = folder / f"{name}.json"
        file.write_bytes(content)
        file.chmod(0o600)
    (folder / "other.txt").write_text("x")
    assert [one.path for one in scan(folder)] == [path]
    with pytest.raises(InvalidRecord, match="no runtime file"):
        read(folder / "garbage.json")
    with pytest.raises(InvalidValue, match="mode 0600"):
        read(folder / "open.json")


def test_a_name_that_cannot_be_encoded_is_no_reason_to_fail(folder: Path) -> None:
    assert read(write("ws://127.0.0.1:1", "a", service="x\ud800\x1b[2J", folder=folder)).service == "x\ufffd"


def test_the_arguments_of_the_program_are_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/srv/etl.py", "--password", "hunter2"])
    path = write("ws://127.0.0.1:1", "a", folder=folder)
    assert "hunter2" not in path.read_text()
    assert json.loads(path.read_text())["command"] == "etl.py"


def test_the_folder_is_the_given_one_then_the_session_s_then_a_temporary_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert runtime_folder({"OTELPROGRESS_RUNTIME_DIR": "/a", "XDG_RUNTIME_DIR": "/b"}) == Path("/a")
    assert runtime_folder({"XDG_RUNTIME_DIR": "/b"}) == Path("/b/otelprogress")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/t")
    assert runtime_folder({}) == Path(f"/t/otelprogress-{os.geteuid()}")
