from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otelprogress.cli.running import ending
from otelprogress.cli.running.label_lock import LabelLock, LabelTaken

RUN = [sys.executable, "-m", "otelprogress.cli.entry", "run"]


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **options
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    path.write_text("echo $1; exit 4")
    return path


def test_the_exit_code_is_the_program_s_own():
    assert run("true").returncode == 0
    assert run("--", "sh", "-c", "exit 3").returncode == 3
    assert run("--", "sh", "-c", "kill -KILL $$").returncode == 137


def test_input_and_outputs_are_the_program_s():
    done = run("--", "sh", "-c", "cat; echo oops >&2", input="hello\n")
    assert (done.stdout, done.stderr) == ("hello\n", "oops\n")


def test_a_program_that_is_not_there_is_127_as_in_a_shell():
    done = run("no-such-program")
    assert (done.returncode, done.stderr) == (127, "otelprogress: no-such-program: command not found\n")
    assert run("").returncode == 127


def test_a_program_that_cannot_be_executed_is_126_as_in_a_shell(script: Path):
    done = run(script)
    assert (done.returncode, done.stderr) == (126, f"otelprogress: {script}: Permission denied\n")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert run(script).returncode == 126


def test_a_script_without_a_first_line_is_run_by_the_shell(script: Path):
    script.chmod(0o755)
    done = run(script, "hello")
    assert (done.returncode, done.stdout) == (4, "hello\n")


@pytest.mark.parametrize(
    "words",
    [[], ["--"], ["--bogus", "true"], ["--grace", "soon", "true"], ["--grace", "nan", "true"], ["--log", "f", "true"]],
)  # fmt: skip
def test_a_wrong_command_line_is_2_and_says_what_is_wrong(words: list[str]):
    done = run(*words)
    assert done.returncode == 2
    assert "Error: " in done.stderr


def test_a_folder_that_is_gone_is_the_program_s_business(tmp_path: Path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run("--", "sh", "-c", "exit 5", preexec_fn=lambda: (os.chdir(gone), gone.rmdir()))
    assert done.returncode == 5, done.stderr


@pytest.mark.parametrize(
    "setting", [{"OTELPROGRESS_COLLECTOR": "ftp://nowhere"}, {"OTELPROGRESS_DISABLED": "perhaps"}]
)
def test_a_setting_that_cannot_be_meant_leaves_the_program_unseen_and_alone(setting: dict[str, str]):
    done = run("--", "sh", "-c", "echo hello; exit 3", env={**os.environ, **setting})
    assert (done.returncode, done.stdout) == (3, "hello\n")
    (name,) = setting
    assert done.stderr.startswith(f"otelprogress: sh runs unseen: {name}=")


def test_disabled_it_only_runs_the_program():
    said = "echo ${TRACEPARENT-none} ${OTELPROGRESS_LINK-none}; exit 3"
    done = run("--", "sh", "-c", said, env={**os.environ, "OTELPROGRESS_DISABLED": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (3, "none none\n", "")


def test_what_was_ignored_before_stays_ignored():
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    assert run("--", "sh", "-c", "kill -HUP $$; exit 6", preexec_fn=ignore).returncode == 6


def test_closed_streams_stay_closed_for_the_program():
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&-', "sh", *RUN, "--", "sh", "-c", "test -e /dev/fd/0 || exit 8"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (8, "")


def test_a_label_is_held_until_it_is_released():
    held = LabelLock("nightly")
    with pytest.raises(LabelTaken, match=f"'nightly' is running .process {os.getpid()}."):
        LabelLock("nightly")
    LabelLock("other").release()
    held.release()
    LabelLock("nightly").release()


def test_the_end_of_a_program_in_words():
    assert ending.of_status(3 << 8).text == "exit 3"
    assert ending.of_status(9) == ending.Ending(137, 9)
    assert ending.of_status(9).text == "killed by SIGKILL"
    assert ending.of_status(signal.SIGRTMIN + 3).error_type == f"signal {signal.SIGRTMIN + 3}"
