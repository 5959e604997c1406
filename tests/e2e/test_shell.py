"""The commands of a script, against a real program."""

from __future__ import annotations

import json
import subprocess

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
