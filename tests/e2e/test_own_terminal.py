"""The application's own terminal, as its user sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.pty_screen import PtyProgram

PROGRAM = str(Path(__file__).with_name("chatty_program.py"))
WRITTEN = [
    text
    for number in range(40)
    for text in (f"printed {number}", *([f"WARNING logged {number}"] if number % 10 == 0 else []))
]


def test_bars_are_drawn_and_what_is_printed_and_logged_stays_whole():
    with PtyProgram([sys.executable, PROGRAM], lines=80) as program:
        program.wait_for(lambda screen: "import flights" in screen.line_with("%"))
        assert program.process.wait(60) == 0
        program.wait_for(lambda screen: screen.line_with("end") == "end")
        lines = [line for line in program.lines if line.startswith(("printed", "WARNING"))]
        assert lines == WRITTEN
        (final,) = [line for line in program.lines if line.startswith("✓ import flights  succeeded in ")]
        assert "%" not in program.text.replace(final, "")


def test_a_forked_child_draws_nothing_and_what_it_prints_is_seen_once():
    with PtyProgram([sys.executable, PROGRAM, "fork"], lines=80) as program:
        assert program.process.wait(60) == 0
        program.wait_for(lambda screen: "succeeded in" in screen.text)
        assert program.raw.count(b"from a child") == 1
        lines = [line for line in program.lines if line.startswith(("printed", "WARNING"))]
        assert lines == WRITTEN


def test_a_standard_output_in_a_file_holds_what_was_printed_and_no_bar(tmp_path: Path):
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        PtyProgram(["sh", "-c", f'"{sys.executable}" "{PROGRAM}" > "{output}"']) as program,
    ):
        assert program.process.wait(60) == 0
        program.wait_for(lambda screen: "succeeded" in screen.text)
        assert file.name == str(output)
    lines = output.read_text().splitlines()
    assert [line for line in lines if line.startswith("printed")] == [
        line for line in WRITTEN if "printed" in line
    ]
    assert "import flights" not in output.read_text()


def test_without_a_terminal_there_are_lines_and_no_escape_sequences():
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert "import_flights-1 started" in done.stderr
    assert "import_flights-1 succeeded in " in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_no_color_draws_bars_without_colours():
    with PtyProgram([sys.executable, PROGRAM], NO_COLOR="1") as program:
        assert program.process.wait(60) == 0
        program.wait_for(lambda screen: "succeeded" in screen.text)
        assert not [code for code in (b"\x1b[31", b"\x1b[32", b"\x1b[36", b"\x1b[38") if code in program.raw]
