from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line_and_no_traceback():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "otelprogress.cli.main", "doctor"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["otelprogress: [Errno 28] No space left on device"]


def test_the_help_loads_neither_rich_nor_websockets_nor_the_sdk():
    command = (
        "import sys\n"
        "from otelprogress.cli import main\n"
        "sys.argv = ['otelprogress', '--help']\n"
        "try:\n"
        "    main.main()\n"
        "except SystemExit:\n"
        "    loaded = {name.partition('.')[0] for name in sys.modules} | set(sys.modules)\n"
        "    heavy = {'rich', 'websockets', 'opentelemetry.sdk', 'grpc', 'requests', 'sqlite3'} & loaded\n"
        "    print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"
