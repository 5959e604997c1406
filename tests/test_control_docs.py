"""docs/control.md is executed, and its table of exit codes is that of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import otelprogress
from otelprogress.cli.exit_codes import ExitCode, of_answer
from otelprogress.protocol.messages import CommandAnswer

PAGE = (Path(__file__).parents[1] / "docs" / "control.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
LISTENING = re.findall(r"^```python no-run\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_page_runs_as_it_stands(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_needs_somebody_there_at_least_compiles_and_names_what_exists() -> None:
    (code,) = LISTENING
    compile("async def main():\n" + re.sub("^", "    ", code, flags=re.MULTILINE), "control.md", "exec")
    client = re.findall(r"client\.(\w+)\(", code)
    assert client
    assert all(
        hasattr(otelprogress.AsyncClient, name) and hasattr(otelprogress.Client, name) for name in client
    )


def test_every_exit_code_that_an_answer_can_have_is_in_the_table() -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert rows == {of_answer(answer) for answer in get_args(CommandAnswer)} | {ExitCode.TIMEOUT}
