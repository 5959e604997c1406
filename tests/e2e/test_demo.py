"""The main job on real data, as a newcomer starts it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.pty_screen import PtyProgram

pytestmark = pytest.mark.xdist_group("demo")
CLI = [sys.executable, "-m", "otelprogress.cli.main"]


def test_the_demo_draws_its_steps_and_says_what_it_loaded(tmp_path: Path):
    database = tmp_path / "flights.sqlite3"
    with PtyProgram([*CLI, "demo", "--database", str(database)]) as demo:
        demo.wait_for(lambda screen: "rejected" in screen.line_with("clean   "), 60)
        assert "%" in demo.line_with("nyc flights 2013")
        assert demo.process.wait(100) == 0
        demo.wait_for(lambda screen: "stayed here" in screen.text)
        assert demo.line_with("nyc flights 2013").startswith("✓ nyc flights 2013  succeeded in ")
        assert "8,255 flights: dep_time is null" in demo.text
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("select count(*) from flights").fetchone() == (328_521,)


def test_a_demo_that_is_killed_is_listed_as_lost_afterwards():
    with PtyProgram([*CLI, "demo"]) as demo:
        demo.wait_for(lambda screen: "● clean" in screen.text, 60)
        demo.process.kill()
    listed = subprocess.run([*CLI, "list", "--json"], capture_output=True, text=True, timeout=60, check=True)
    (found,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (found["name"], found["state"]) == ("nyc flights", "lost")
