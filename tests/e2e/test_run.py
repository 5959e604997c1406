"""`otelprogress run` with real programs: what others see of them, what signals and commands do to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from otelprogress.exceptions import FeedUnavailable, UnknownOperation
from otelprogress.feed import runtime_file
from otelprogress.feed.client import Client
from otelprogress.feed.process_identity import process_identity
from tests.cli.test_run import RUN, run
from tests.collector.collecting import CollectorProcess
from tests.e2e.test_collector_processes import at_collector
from tests.e2e.test_shell import listed, shell
from tests.waiting import eventually

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAYS_PID = 'echo $$ > "$0"; '


def gone(pid: int) -> bool:
    return process_identity(pid) is None


def state_of(pid: int) -> str:
    """`R`, `S`, `T` …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def ignores(pid: int, number: int) -> bool:
    (mask,) = re.findall(r"SigIgn:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (number - 1) & 1)


def pid_in(path: Path) -> int:
    return int(eventually(lambda: path.exists() and path.read_text().strip(), 30))


@contextmanager
def running(
    *arguments: object, command: list[str] = RUN, **options: object
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield process
        finally:
            left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ()
            process.kill()
            for each in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


def with_children() -> list[dict[str, object]]:
    return [json.loads(line) for line in shell("list", "--json", "--children").stdout.splitlines()]


def shown(identifier: str) -> dict[str, object]:
    return json.loads(shell("show", identifier, "--json").stdout)


# --- seen ----------------------------------------------------------------------------------------------------------


def test_a_program_is_an_operation_while_it_runs_and_afterwards(tmp_path: Path):
    with running(
        "--id", "job", "--title", "all of it", "--", "sh", "-c", SAYS_PID + "exec sleep 600", tmp_path / "pid"
    ) as it:
        (found,) = eventually(lambda: [one for one in listed() if one["state"] == "running"], 30)
        assert (found["name"], found["title"], found["label"]) == ("sh", "all of it", "job")
        assert shown("job")["controls"] == ["cancel", "pause"]
        os.kill(pid_in(tmp_path / "pid"), signal.SIGKILL)
        assert it.wait(30) == 137
    assert shell("wait", "job").returncode == 1
    ended = shown("job")
    assert ended["state"] == "failed"
    assert (ended["error_type"], ended["error_message"]) == ("SIGKILL", "killed by SIGKILL")


def test_its_trace_is_the_caller_s_and_its_children_s():
    done = run(
        "--",
        "sh",
        "-c",
        "echo $TRACEPARENT $BAGGAGE",
        env={**os.environ, "TRACEPARENT": PARENT, "BAGGAGE": "a=b"},
    )
    carried, baggage = done.stdout.split()
    assert baggage == "a=b"
    (found,) = listed()
    trace_id, _, span_id = str(found["id"]).partition("-")
    assert trace_id == PARENT.split("-")[1]
    assert carried == f"00-{trace_id}-{span_id}-01"


def test_a_sampler_that_says_no_is_asked_before_the_program_starts():
    done = run("--", "sh", "-c", "echo $TRACEPARENT", env={**os.environ, "OTEL_TRACES_SAMPLER": "always_off"})
    (found,) = listed()
    assert done.stdout.strip() == f"00-{found['id']}-" + done.stdout.strip()[-2:]
    assert int(done.stdout.strip()[-2:], 16) & 1 == 0


def test_a_program_that_reports_at_once_reports_to_its_runner_as_a_child():
    child = (
        "import otelprogress as progress\n"
        "progress.configure()\n"
        "with progress.operation('inner'):\n"
        "    import os; print(os.environ['OTELPROGRESS_LINK']); input()\n"
    )
    with running("--", sys.executable, "-c", child, stdin=subprocess.PIPE) as it:
        link = it.stdout.readline().strip()
        (outer,) = eventually(listed, 30)
        assert (outer["name"], outer["pid"]) == (Path(sys.executable).name, it.pid)
        (inner,) = eventually(lambda: [one for one in with_children() if one["name"] == "inner"], 30)
        assert inner["parent"] == outer["id"]
        (file,) = runtime_file.scan()
        assert str(file.path) == link
        it.stdin.write("\n")
        it.stdin.flush()
        assert it.wait(30) == 0
    assert {one["state"] for one in [shown("inner"), shown(str(outer["id"]))]} == {"succeeded"}


@pytest.mark.parametrize("script", ['"$0" -c "$1" & wait $!', 'exec "$0" -c "$1"'])
def test_what_was_killed_inside_is_lost_when_the_runner_leaves(script: str):
    child = (
        "import otelprogress as progress, time\n"
        "progress.configure()\n"
        "with progress.operation('inner'): time.sleep(600)\n"
    )
    with running("--", "sh", "-c", script, sys.executable, child) as it:
        (inner,) = eventually(lambda: [one for one in with_children() if one["name"] == "inner"], 30)
        os.kill(int(str(inner["pid"])), signal.SIGKILL)
        assert it.wait(30) == 137
    inner = shown("inner")
    assert (inner["state"], inner["lost_detector"]) == ("lost", "link")


def test_a_run_in_a_run_is_its_child():
    assert run("--name", "outer", "--", *RUN, "--name", "inner", "--", "true").returncode == 0
    inner, outer = shown("inner"), shown("outer")
    assert inner["parent_id"] == outer["id"]


def test_a_collector_sees_it_live_and_ended(tmp_path: Path):
    with CollectorProcess(tmp_path / "collector") as collector:
        environment = {**os.environ, "OTELPROGRESS_COLLECTOR": collector.url, "OTELPROGRESS_FEED": "off"}

        def states() -> list[str]:
            return [view.state for view in at_collector(collector)]

        with running("--", "cat", stdin=subprocess.PIPE, env=environment) as it:
            eventually(lambda: states() == ["running"], 30)
            it.stdin.close()
            assert it.wait(30) == 0
        eventually(lambda: states() == ["succeeded"], 30)


@pytest.mark.parametrize("listens", [False, True])
def test_an_endpoint_that_is_dead_or_never_answers_changes_nothing(listens: bool):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if listens:
            listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = run(
            "--",
            "sh",
            "-c",
            "echo hello; exit 3",
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        )
    assert (done.returncode, done.stdout) == (3, "hello\n")
    assert "Traceback" not in done.stderr


def test_a_failure_says_its_exit_code():
    assert run("--name", "report", "--", "sh", "-c", "exit 3").returncode == 3
    found = shown("report")
    assert (found["state"], found["error_type"], found["error_message"]) == (
        "failed",
        "exit_3",
        "exit 3",
    )


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_runner_reaches_the_program(number: signal.Signals, tmp_path: Path):
    script = f"trap 'echo got; exit 9' {number.name[3:]}; {SAYS_PID} while :; do sleep 0.05; done"
    with running("--", "sh", "-c", script, tmp_path / "pid") as it:
        pid_in(tmp_path / "pid")
        it.send_signal(number)
        assert it.wait(30) == 9
        assert it.stdout.read() == "got\n"


def test_a_program_that_a_passed_on_signal_ends_was_cancelled(tmp_path: Path):
    with running("--name", "job", "--", "sh", "-c", SAYS_PID + "sleep 600", tmp_path / "pid") as it:
        pid = pid_in(tmp_path / "pid")
        it.terminate()
        assert it.wait(30) == 143
    assert gone(pid)
    assert shown("job")["state"] == "cancelled"


def test_ctrl_c_ends_both_and_whoever_waits_learns_that_it_was_ctrl_c(tmp_path: Path):
    with running("--name", "job", "--", "sh", "-c", SAYS_PID + "sleep 600", tmp_path / "pid") as it:
        pid_in(tmp_path / "pid")
        it.send_signal(signal.SIGINT)
        assert it.wait(30) == -signal.SIGINT
    assert shown("job")["state"] == "cancelled"


def test_a_killed_runner_leaves_its_program_running_and_its_operation_lost(tmp_path: Path):
    with running("--name", "job", "--", "sh", "-c", SAYS_PID + "exec sleep 600", tmp_path / "pid") as it:
        pid = pid_in(tmp_path / "pid")
        try:
            eventually(lambda: listed() and listed()[0]["state"] == "running", 30)
            it.kill()
            it.wait()
            assert eventually(lambda: shown("job"), 30)["state"] == "lost"
            assert not gone(pid)
        finally:
            os.kill(pid, signal.SIGKILL)


# --- commands ------------------------------------------------------------------------------------------------------


def command(action: str, reason: str = "") -> None:
    """Command the operation named `job`, once it can be found, and wait until that has taken effect."""

    def applied() -> bool:
        with Client() as client, contextlib.suppress(FeedUnavailable, UnknownOperation):
            return client.command_and_wait("job", action, reason=reason).applied
        return False

    eventually(applied, 30)


def test_a_cancel_terminates_the_program_and_what_it_started(tmp_path: Path):
    script = 'sleep 600 & echo $! > "$0"; wait'
    with running("--name", "job", "--", "sh", "-c", script, tmp_path / "pid") as it:
        grandchild = pid_in(tmp_path / "pid")
        command("cancel", "wrong day")
        assert it.wait(30) == 143
    assert gone(grandchild)
    found = shown("job")
    assert (found["state"], found["message"]) == ("cancelled", "wrong day")


def test_a_program_that_will_not_be_cancelled_is_killed_after_the_grace(tmp_path: Path):
    script = "trap '' TERM; " + SAYS_PID + "while :; do sleep 0.05; done"
    with running("--name", "job", "--grace", "0.3", "--", "sh", "-c", script, tmp_path / "pid") as it:
        pid_in(tmp_path / "pid")
        command("cancel")
        assert it.wait(30) == 137
    assert shown("job")["state"] == "cancelled"


def test_a_cancelled_program_may_end_as_it_likes(tmp_path: Path):
    script = "trap 'exit 7' TERM; " + SAYS_PID + "while :; do sleep 0.05; done"
    with running("--name", "job", "--", "sh", "-c", script, tmp_path / "pid") as it:
        pid_in(tmp_path / "pid")
        command("cancel")
        assert it.wait(30) == 7
    assert shown("job")["state"] == "cancelled"


def test_what_a_cancelled_program_leaves_behind_is_killed_after_the_grace(tmp_path: Path):
    stubborn = tmp_path / "stubborn"
    stubborn.write_text("trap '' TERM; while :; do sleep 0.05; done")
    script = f'sh {stubborn} & echo $! > "$0"; wait'
    with running("--name", "job", "--grace", "0.3", "--", "sh", "-c", script, tmp_path / "pid") as it:
        left = pid_in(tmp_path / "pid")
        eventually(lambda: ignores(left, signal.SIGTERM), 30)
        command("cancel")
        assert it.wait(30) == 143
    eventually(lambda: gone(left), 10)


def test_a_pause_stops_the_program_until_it_is_resumed(tmp_path: Path):
    with running("--name", "job", "--", "sh", "-c", SAYS_PID + "exec sleep 600", tmp_path / "pid") as it:
        pid = pid_in(tmp_path / "pid")
        command("pause")
        eventually(lambda: state_of(pid) == "T", 30)
        eventually(lambda: shown("job")["state"] == "paused", 30)
        it.send_signal(signal.SIGCONT)  # of the shell's job control: the command counts
        command("resume")
        eventually(lambda: state_of(pid) == "S", 30)
        eventually(lambda: shown("job")["state"] == "running", 30)
        command("pause")
        eventually(lambda: state_of(pid) == "T", 30)
        command("cancel")
        assert it.wait(30) == 143


# --- detached ------------------------------------------------------------------------------------------------------


def test_a_detached_program_can_be_waited_for_as_soon_as_its_id_is_printed(tmp_path: Path):
    log, gate = tmp_path / "log", tmp_path / "gate"
    os.mkfifo(gate)
    script = 'echo hello; cat; read line < "$0"; echo oops >&2; exit 3'
    started = run("--detach", "--id", "job", "--log", log, "--", "sh", "-c", script, gate)
    assert started.returncode == 0, started.stderr
    found = shown(started.stdout.strip())
    assert (found["state"], found["label"]) == ("running", "job")
    assert f"otelprogress wait {found['handle']}" in started.stderr
    gate.write_text("go\n")
    assert shell("wait", "job", "--timeout", "30").returncode == 1
    assert log.read_text() == "hello\noops\n"


def test_a_detached_program_has_a_session_of_its_own():
    script = (
        "import os, time; print(os.getsid(0), os.getpgrp() == os.getpid(), os.isatty(0)); time.sleep(600)"
    )
    log = Path(os.environ["OTELPROGRESS_RUNTIME_DIR"]) / "log"
    started = run("--detach", "--log", log, "--", sys.executable, "-uc", script)
    (found,) = listed()
    session, leads, reads = eventually(lambda: log.read_text(), 30).split()
    assert (leads, reads) == ("True", "False")
    assert int(session) != os.getsid(0)
    assert int(session) == found["pid"]
    os.kill(int(session), signal.SIGTERM)
    assert shell("wait", started.stdout.strip(), "--timeout", "30").returncode == 6


LEAVES_AT_ONCE = """
import os, sys, time
from otelprogress.cli.entry import main

forks, caller = os.fork, os.getpid()

def fork():
    if forks():
        os._exit(130)
    while os.getppid() == caller:
        time.sleep(0.001)
    return 0

os.fork = fork
main()
"""


def test_a_detached_program_is_observed_though_whoever_asked_for_it_left_before_the_answer(tmp_path: Path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", LEAVES_AT_ONCE, "run", "--detach", "--id", "job", "--log", log]
    left = subprocess.run([*map(str, command), "--", "sleep", "600"], timeout=60, check=False)
    assert left.returncode == 130
    (found,) = eventually(lambda: [one for one in listed() if one["state"] == "running"], 30)
    assert found["label"] == "job"
    assert shell("cancel", "job").returncode == 0
    assert shell("wait", "job", "--timeout", "30").returncode == 6
    eventually(lambda: gone(found["pid"]), 30)
    assert log.read_text() == ""


@pytest.mark.parametrize(
    ("options", "setting", "code", "says"),
    [
        (["no-such-program"], {}, 127, "no-such-program: command not found"),
        (["--log", "/no/such/folder/log", "true"], {}, 125, "--log /no/such/folder/log: No such file or directory"),
        (["true"], {"OTELPROGRESS_FEED": "off"}, 125, "not started: nobody could see it: the feed is off"),
        (["true"], {"OTELPROGRESS_COLLECTOR": "ftp://nowhere"}, 125, "not started: OTELPROGRESS_COLLECTOR="),
    ],
)  # fmt: skip
def test_what_cannot_be_detached_says_why(options: list[str], setting: dict[str, str], code: int, says: str):
    done = run("--detach", *options, env={**os.environ, **setting})
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"otelprogress: {says}")


def test_a_second_run_with_a_label_that_is_running_is_refused():
    started = run("--detach", "--id", "job", "--", "sleep", "600")
    (found,) = listed()
    for options in ([], ["--detach"]):
        second = run(*options, "--id", "job", "--", "true")
        assert second.returncode == 125
        assert (
            second.stderr
            == f"otelprogress: an operation with the id 'job' is running (process {found['pid']})\n"
        )
    os.kill(found["pid"], signal.SIGTERM)
    assert shell("wait", started.stdout.strip(), "--timeout", "30").returncode == 6
    eventually(lambda: run("--id", "job", "--", "true").returncode == 0, 30)
