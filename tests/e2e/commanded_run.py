"""`otelprogress run`, commanded from inside: each line of a named pipe is a method of its operation."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from otelprogress import active
from otelprogress.cli.running.arguments import read
from otelprogress.cli.running.runner import run
from tests.waiting import eventually


def obey(pipe: Path) -> None:
    with pipe.open() as lines:
        for line in lines:
            (operation,) = eventually(lambda: active.current and list(active.current.live.values()), 30)
            action, _, reason = line.strip().partition(" ")
            getattr(operation, action)(*([reason] if reason else []))


if __name__ == "__main__":
    threading.Thread(target=obey, args=(Path(sys.argv[1]),), daemon=True).start()
    arguments = read(sys.argv[2:])
    assert arguments is not None
    run(arguments)
