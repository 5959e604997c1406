"""The commands of a script, against a real program."""

from __future__ import annotations

import json
import subprocess

import pytest

from otelprogress.feed import runtime_file
from tests.e2e.test_watch import CLI, program
from tests.waiting import eventually


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, timeout=60, check=False)


def listed() -> list[dict[str, object]]:
    return [json.loads(line) for line in shell("list", "--json").stdout.splitlines()]


def test_a_script_lists_waits_and_learns_of_the_loss():
    with program("reindex") as victim:
        (running,) = eventually(listed, 30)
        assert running["handle"] == "reindex-1"
        assert running["state"] == "running"
        assert running["pid"] == victim.pid
        assert shell("wait", "reindex", "--until", "end", "--timeout", "0.5").returncode == 124
        assert '"reindex"' in shell("show", "reindex-1").stdout
        assert shell("show", "nobody").returncode == 3
        doctor = shell("doctor")
        assert doctor.returncode == 0, doctor.stdout
        assert "1 running" in doctor.stdout
        assert "traces: " in doctor.stdout
        with subprocess.Popen([*CLI, "wait", "reindex-1"], stdout=subprocess.PIPE, text=True) as waiting:
            with subprocess.Popen([*CLI, "tail"], stdout=subprocess.PIPE, text=True) as tail:
                assert json.loads(tail.stdout.readline())["operation"]["handle"] == "reindex-1"
                victim.kill()
                victim.wait()
                assert waiting.wait(30) == 1
                assert waiting.stdout.read().startswith("reindex-1 lost")
                kinds = [
                    json.loads(line)
                    for line in iter(tail.stdout.readline, "")
                    if (tail.send_signal(2) or True)
                ]
                assert kinds[-1]["operation"]["state"] == "lost"
                assert tail.wait(30) == 130
    (lost,) = listed()
    assert lost["state"] == "lost"
    assert shell("wait", "reindex-1").returncode == 1
    assert shell("doctor").returncode == 4


@pytest.mark.parametrize(
    "command", [["tail", "--level", "terminal"], ["tail", "--level", "terminal", "--digest"], ["watch"]]
)
def test_a_command_whose_reader_has_left_ends_without_another_event(command: list[str]):
    with program("reindex"):
        eventually(listed, 30)
        # No outcome comes: all that could end it is the reader, who goes after the first line.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([*CLI, *command], **pipes, text=True) as tail:
            assert tail.stdout.readline()
            assert tail.poll() is None
            tail.stdout.close()
            assert tail.wait(30) == 0
            assert tail.stderr.read() == ""


def test_a_feed_that_is_not_there_or_refuses_us_has_an_exit_code(tmp_path):
    token = tmp_path / "token"
    token.write_text("canary-4711")
    for command in (["list"], ["tail"], ["show", "x"], ["wait", "x"]):
        assert shell(*command, "--url", "ws://127.0.0.1:9").returncode == 4, command
    with program("reindex"):
        eventually(listed, 30)
        (found,) = runtime_file.scan()
        for command in (["list"], ["tail"], ["show", "x"], ["wait", "x"]):
            result = shell(*command, "--url", found.content.url, "--token-file", str(token))
            assert (result.returncode, len(result.stderr.splitlines())) == (5, 1), result.stderr
            assert "canary-4711" not in result.stderr
        assert shell("list", "--url", found.content.url).returncode == 0


def test_a_label_that_means_several_operations_is_ambiguous():
    with program("reindex"), program("reindex"):
        eventually(lambda: len(listed()) == 2, 30)
        result = shell("show", "reindex")
        assert result.returncode == 3
        assert "reindex-1" in result.stderr
        assert "reindex-2" in result.stderr
