from __future__ import annotations

import os
import subprocess
import sys

import pytest

from otelprogress.feed import process_identity as module
from otelprogress.feed.process_identity import GONE, is_gone, process_identity
from tests.waiting import eventually


def test_this_process_is_not_gone() -> None:
    identity = process_identity(os.getpid())
    assert identity is not None
    assert not is_gone(os.getpid(), identity)


def test_a_process_that_ended_is_gone_even_before_its_parent_asked_for_its_exit_code() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(child.pid)
    assert identity is not None
    assert not is_gone(child.pid, identity)
    child.kill()
    eventually(lambda: is_gone(child.pid, identity))
    assert process_identity(child.pid) is None
    child.communicate()
    assert is_gone(child.pid, identity)


def test_a_pid_that_was_given_again_does_not_pass_for_the_old_process() -> None:
    identity = process_identity(os.getpid())
    assert identity is not None
    assert is_gone(os.getpid(), identity[:-1] + ("0" if identity[-1] != "0" else "1"))


def test_a_process_before_the_last_boot_is_gone() -> None:
    host, _boot, rest = (process_identity(os.getpid()) or "").split(" ", 2)
    assert is_gone(os.getpid(), f"{host} another-boot {rest}")


def test_a_process_of_another_host_or_namespace_cannot_be_judged() -> None:
    host, boot, namespace, started = (process_identity(os.getpid()) or "").split(" ")
    assert not is_gone(2**22 + 1, f"elsewhere {boot} {namespace} {started}")
    assert not is_gone(2**22 + 1, f"{host} {boot} pid:[1] {started}")


def test_a_process_that_was_gone_before_it_was_asked_for_is_gone() -> None:
    assert is_gone(os.getpid(), GONE)
    assert is_gone(2**22 + 1, GONE)


def test_without_proc_only_the_pid_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_proc", lambda: False)
    assert process_identity(os.getpid()) == ""
    assert not is_gone(os.getpid(), "")
    assert is_gone(2**22 + 1, "")
    assert process_identity(2**22 + 1) is None
