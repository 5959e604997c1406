"""One process has the data directory; the next is told which."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from otelprogress_collector.store.data_dir import DataDir
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
    assert folder.notes == ()
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
