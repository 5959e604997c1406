from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from otelprogress.feed.cause_of_death import ChildRecord
from tests.waiting import eventually


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_living_child_has_no_cause_and_is_not_gone():
    with sleeper() as child:
        record = ChildRecord(child.pid)
        assert record.cause() is None
        assert not record.gone
        child.kill()


def test_the_signal_that_killed_a_child_is_named_and_its_status_is_left_to_the_application():
    with sleeper() as child:
        record = ChildRecord(child.pid)
        child.send_signal(signal.SIGKILL)
        assert eventually(record.cause) == "killed by SIGKILL"
        assert record.gone
        assert child.wait() == -signal.SIGKILL


def test_one_that_nobody_has_reaped_is_gone_though_its_status_is_not_ours_to_see(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(ChildRecord, "cause", lambda _: None)
    with sleeper() as child:
        record = ChildRecord(child.pid)
        assert not record.gone
        child.kill()
        assert eventually(lambda: record.gone)


def test_the_exit_code_of_a_child_is_told():
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as child:
        assert eventually(ChildRecord(child.pid).cause) == "exit code 3"


def test_a_child_that_multiprocessing_has_reaped_is_still_explained():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    assert child.pid is not None
    record = ChildRecord(child.pid)
    child.kill()
    child.join()
    assert record.cause() == "killed by SIGKILL"


@pytest.mark.parametrize("pid", [0, -1])
def test_a_process_that_gave_no_pid_has_no_cause(pid: int):
    assert ChildRecord(pid).cause() is None


def test_of_a_process_that_is_no_child_only_its_presence_is_known():
    record = ChildRecord(os.getppid())
    assert record.cause() is None
    assert not record.gone
