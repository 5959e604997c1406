"""`otelprogress run` at a terminal, under a shell with job control: as if the shell had started the program itself."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pty_screen import PtyProgram
from tests.e2e.test_run import shown, state_of

BASH = shutil.which("bash")
RUN = f"{shlex.quote(sys.executable)} -m otelprogress.cli.entry run"
ASKS = shlex.quote(
    "import time; print('name' + '?'); print('hello', input()); print('never'); time.sleep(600)"
)


class Session(PtyProgram):
    """An interactive bash."""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def enter(self, text: str) -> None:
        self.type(text + "\n")

    def shows(self, text: str) -> None:
        """Wait for it; what was typed stands on the screen, too, so `text` must not be part of that."""
        self.wait_for(lambda screen: text in screen.text, 60)


# A controlling terminal is what a session leader opens first: `setsid` of Popen alone gives none.
OPENS = "import os, sys; os.setsid() if os.getsid(0) != os.getpid() else None; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def bash() -> Iterator[Session]:
    if BASH is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no bash on this system")
        pytest.skip("no bash on this system")
    command = [sys.executable, "-c", OPENS, BASH, "--norc", "--noprofile", "-i"]
    with Session(command, columns=160, lines=50, PS1="$ ", RUN=RUN) as session:
        session.enter(f'run() {{ {RUN} "$@"; }}')
        yield session
        with contextlib.suppress(OSError):
            session.enter("\x03exit")


def pid_of(folder: Path) -> int:
    return int((folder / "pid").read_text())


def test_a_program_reads_the_keyboard_and_ctrl_c_is_its_own(bash: Session):
    bash.enter(f"run --name job python -c {ASKS}")
    bash.shows("name?")
    bash.enter("world")
    bash.shows("hello world")
    bash.type("\x03")
    bash.shows("KeyboardInterrupt")
    bash.enter("echo code=$?")
    bash.shows("code=130")
    assert shown("job")["state"] == "cancelled"


def test_ctrl_c_ends_the_script_around_it_too(bash: Session, tmp_path: Path):
    script = tmp_path / "script"
    script.write_text(f"{RUN} -- sh -c 'echo be''gun; sleep 600'\necho went on\n")
    bash.enter(f"bash {script}")
    bash.shows("begun")
    bash.type("\x03")
    bash.wait_for(lambda screen: screen.lines[-1] == "$")
    bash.enter("echo code=$?")
    bash.shows("code=130")
    assert "went on" not in bash.text


def test_ctrl_z_stops_both_and_fg_and_bg_let_them_go_on(bash: Session, tmp_path: Path):
    program = "import os, time; open('pid', 'w').write(str(os.getpid())); print('name' + '?'); print('hello', input())"
    bash.enter(f"cd {tmp_path}; run --name job python -c {shlex.quote(program)}; echo code=$?")
    bash.shows("name?")
    bash.type("\x1a")
    bash.shows("Stopped")
    bash.wait_for(lambda _: state_of(pid_of(tmp_path)) == "T")
    bash.enter("bg; echo in the back''ground")
    bash.shows("in the background")
    # In the background nobody reads: the system stops it again, and the shell says so once it may.
    bash.wait_for(lambda _: state_of(pid_of(tmp_path)) == "T")
    bash.enter("fg; echo code=$?")
    bash.wait_for(lambda _: state_of(pid_of(tmp_path)) == "S")
    bash.enter("world")
    bash.shows("hello world")
    bash.shows("code=0")
    assert shown("job")["state"] == "succeeded"


def test_a_program_before_a_pager_leaves_the_keyboard_to_it_until_it_asks(bash: Session):
    reads_terminal = "tty = open('/dev/tty'); print('name' + '?', file=open('/dev/tty', 'w')); print('hello', tty.readline())"
    reader = (
        "import sys; sys.stdin.read(5); print('and' + ' you?'); print('bye', open('/dev/tty').readline())"
    )
    bash.enter(
        f"{RUN} python -c {shlex.quote(reads_terminal)} | python -c {shlex.quote(reader)}; echo codes=${{PIPESTATUS[*]}}"
    )
    bash.shows("name?")
    bash.enter("world")
    bash.shows("and you?")
    bash.enter("moon")
    bash.shows("bye moon")
    bash.shows("codes=0 0")


def test_ctrl_z_where_nobody_could_let_it_go_on_is_ignored_as_the_system_does():
    # No shell: the runner is the session's leader, as in a container.
    program = "print('name' + '?'); print('hello', input())"
    command = [sys.executable, "-c", OPENS, *shlex.split(RUN), "--", sys.executable, "-c", program]
    with Session(command, columns=160, lines=50) as session:
        session.shows("name?")
        session.type("\x1a")
        session.enter("world")
        session.shows("hello world")
        assert session.process.wait(30) == 0


def test_a_terminal_that_hangs_up_ends_the_program(tmp_path: Path):
    program = "import os, time; open('pid', 'w').write(str(os.getpid())); print('begun'); time.sleep(600)"
    command = [
        sys.executable,
        "-c",
        OPENS,
        *shlex.split(RUN),
        "--",
        sys.executable,
        "-c",
        f"import os; os.chdir({str(tmp_path)!r}); {program}",
    ]
    with Session(command) as session:
        session.shows("begun")
        session.process.send_signal(signal.SIGHUP)
        assert session.process.wait(30) == 129
    assert state_of(pid_of(tmp_path)) == ""
