"""One process has the data directory; the next is told which."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from otelprogress_collector.store.data_dir import DataDir, check_mode
from otelprogress_collector.store.interface import StoreUnavailable
from tests.collector.store.test_crash import ENVIRON, REPOSITORY

_HOLD = """
import sys
from pathlib import Path
from otelprogress_collector.store.data_dir import DataDir
DataDir(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_that_has_it_is_named_and_killing_that_sets_it_free(tmp_path):
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "data")]
    with subprocess.Popen(
        command, env=ENVIRON, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreUnavailable, match=rf"in use by another collector \(process {other.pid}\)"):
            DataDir(tmp_path / "data")
        other.kill()
        other.wait()
        DataDir(tmp_path / "data").release()


def test_it_is_made_with_all_that_leads_to_it_and_is_this_users_alone(tmp_path):
    folder = DataDir(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert check_mode(tmp_path / "a" / "b") is None
    folder.release()


def test_what_is_set_aside_keeps_its_write_ahead_log(tmp_path):
    folder = DataDir(tmp_path / "data")
    for suffix in ("", "-wal"):
        (tmp_path / "data" / f"collector.sqlite3{suffix}").write_text(suffix)
    aside = folder.set_aside()
    assert aside.read_text() == ""
    assert aside.with_name(aside.name + "-wal").read_text() == "-wal"
    assert not folder.database.exists()
    folder.release()


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o777, 0o1777])
def test_one_that_others_may_write_is_not_used_and_the_command_that_mends_it_is_said(tmp_path, mode):
    folder = tmp_path / "its data"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(StoreUnavailable, match=rf"has mode {mode:04o}: .*`chmod 700 '{folder}'`"):
        DataDir(folder)
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    DataDir(folder).release()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o705, 0o711])
def test_one_that_others_may_read_is_used_with_a_warning(tmp_path, mode):
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    taken = DataDir(folder)
    taken.make_database()
    warning = check_mode(folder)
    assert f"has mode {mode:04o}" in warning
    assert f"`chmod 700 {folder}`" in warning
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    taken.release()
