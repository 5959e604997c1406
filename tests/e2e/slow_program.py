"""An instrumented program that takes its time: `slow_program.py NAME [TITLE]`."""

from __future__ import annotations

import sys
import time

import otelprogress as progress

if __name__ == "__main__":
    progress.configure()
    with progress.operation(sys.argv[1], title=sys.argv[2] if len(sys.argv) > 2 else None):
        for _ in progress.track(range(100_000), unit="row"):
            time.sleep(0.01)
