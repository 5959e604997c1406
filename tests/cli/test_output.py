from __future__ import annotations

import json
import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from otelprogress.cli.output import json_line


@given(st.text())
def test_json_lines_say_the_same_and_steer_no_terminal(text):
    line = json_line({"text": text.encode("utf-8", "replace").decode()})
    assert json.loads(line) == {"text": text.encode("utf-8", "replace").decode()}
    assert not [
        ch for ch in line if ch < " " or "\x7f" <= ch < "\xa0" or ch in "\u202e\u2066\u200f\U000e0041"
    ]


def test_a_reader_that_goes_away_ends_a_command_without_a_word():
    command = (
        "import sys\n"
        "from otelprogress.cli import main\n"
        "from otelprogress.cli.output import say\n"
        "@main.app.command()\n"
        "def endless():\n"
        "    while True: say('line')\n"
        "sys.argv = ['otelprogress', 'endless']\n"
        "main.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_a_command_without_an_output_or_an_error_stream_ends_as_ever():
    for closed in (1, 2):
        result = subprocess.run(
            [sys.executable, "-m", "otelprogress.cli.main", "list"],
            preexec_fn=lambda closed=closed: os.close(closed),  # noqa: PLW1509 - no thread runs here
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (result.returncode, "Traceback" in result.stdout + result.stderr) == (0, False)
