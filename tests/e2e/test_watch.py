"""Two real programs, one watcher that is never restarted, and a kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.pty_screen import PtyProgram

PROGRAM = str(Path(__file__).with_name("slow_program.py"))
CLI = [sys.executable, "-m", "otelprogress.cli.main"]


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_program_turns_lost_and_its_successor_appears_in_the_same_watch():
    with program("import flights"), program("reindex") as victim, PtyProgram([*CLI, "watch"]) as watch:
        watch.wait_for(lambda screen: "import flights" in screen.text and "%" in screen.line_with("reindex"))
        before = watch.line_with("import flights")
        victim.kill()
        victim.wait()
        watch.wait_for(lambda screen: "lost" in screen.line_with("reindex"))
        assert "lost" not in watch.line_with("import flights")
        with program("reindex", "reindex again"):
            watch.wait_for(lambda screen: "%" in screen.line_with("reindex again"))
            watch.wait_for(lambda screen: screen.line_with("import flights") != before)
            assert "lost" in watch.line_with("reindex-1")
            assert watch.interrupt() == 130
        assert "lost" in watch.text
        assert "Traceback" not in watch.text
        assert watch.raw.rfind(b"\x1b[?25h") > watch.raw.rfind(b"\x1b[?25l")


def test_a_watch_that_is_terminated_gives_the_terminal_back():
    with PtyProgram([*CLI, "watch"]) as watch:
        watch.wait_for(lambda screen: "nothing runs" in screen.text)
        watch.process.terminate()
        assert watch.process.wait(20) == 143
        watch.wait_for(lambda screen: screen.raw.rfind(b"?1049l") > screen.raw.rfind(b"?1049h"))


def test_a_watch_of_a_feed_that_is_not_there_says_so():
    with PtyProgram([*CLI, "watch", "--url", "ws://127.0.0.1:9"]) as watch:
        assert watch.process.wait(30) == 4
        watch.wait_for(lambda screen: screen.line_with("otelprogress: "))


def test_a_watch_that_starts_first_waits_for_programs():
    with PtyProgram([*CLI, "watch"]) as watch:
        watch.wait_for(lambda screen: "nothing runs" in screen.text)
        with program("import flights"):
            watch.wait_for(lambda screen: "%" in screen.line_with("import flights"))


def test_a_hostile_title_cannot_steer_the_watchers_terminal():
    title = "evil \x1b]52;c;aGk=\x07\x1b[2J\r\n[red]x[/] \u202eabc"
    with program("reindex", title), PtyProgram([*CLI, "watch"]) as watch:
        watch.wait_for(lambda screen: "[red]x[/]" in screen.text)
        assert b"]52;" not in watch.raw
        assert b"\x1b[2J" not in watch.raw
        assert "\u202e".encode() not in watch.raw


def test_a_watch_in_a_pipe_prints_lines_and_ends_by_ctrl_c():
    with program("import flights"):
        with subprocess.Popen(
            [*CLI, "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watch:
            assert watch.stdout.readline().startswith("import_flights-1 ")
            watch.send_signal(2)
            assert watch.wait(20) == 130
            assert watch.stderr.read() == ""
