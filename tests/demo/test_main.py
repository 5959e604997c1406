"""`otelprogress demo`, as a person runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("demo")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otelprogress.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_demo_ends_by_itself_and_prints_counts_and_where_the_trace_went(tmp_path: Path) -> None:
    done = run("demo", "--database", tmp_path / "flights.sqlite3")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^extracted\s+336,776 flights$", done.stdout, re.MULTILINE)
    assert re.search(r"^rejected\s+8,255 flights: dep_time is null$", done.stdout, re.MULTILINE)
    assert re.search(r"^loaded\s+328,521 rows into 'flights'$", done.stdout, re.MULTILINE)
    trace_id = re.search(r"^trace\s+([0-9a-f]{32})$", done.stdout, re.MULTILINE)
    assert trace_id
    assert "nothing left this machine" in done.stdout
    assert "8,255 rows rejected: dep_time is null" in done.stderr
    assert "Traceback" not in done.stderr
    listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    runs = [each for each in listed if each["name"] == "nyc flights"]
    assert [(each["state"], each["id"][:32]) for each in runs] == [("succeeded", trace_id[1])]
