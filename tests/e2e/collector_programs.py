"""Programs that report to a collector, each run by `python -m tests.e2e.collector_programs NAME ...`.

They say `ready` when there is something to look at and go on when a line is given to them.
"""

from __future__ import annotations

import os
import sys
import time

import otelprogress as progress
from otelprogress import runtime


def pause(word: str = "ready") -> None:
    print(word, flush=True)
    sys.stdin.readline()


def steady(_: str = "") -> None:
    """Counts until a line comes, then ends well."""
    progress.configure(feed="127.0.0.1:0", view="off", history=False)
    with progress.operation("album") as album:
        print("ready", flush=True)
        os.set_blocking(sys.stdin.fileno(), False)
        while not sys.stdin.readline():
            album.advance()
            time.sleep(0.01)


def noting(count: str) -> None:
    """Says so many numbered notes, waits, says as many more, and ends."""
    progress.configure(view="off", history=False)
    with progress.operation("album") as album:
        pause()
        for n in range(int(count)):
            album.note(f"note {n}")
        pause("half")
        for n in range(int(count), 2 * int(count)):
            album.note(f"note {n}")


def spooling(count: str) -> None:
    """Says so many notes with nobody there to take them, and waits to be killed."""
    progress.configure(feed=False, view="off", history=False)
    with progress.operation("first life") as album:
        for n in range(int(count)):
            album.note(f"note {n}")
        made = runtime.current_runtime()
        assert made is not None
        assert made.sender is not None
        spool = made.sender._lanes["logs"].spool
        deadline_s = time.monotonic() + 60
        while made.host.pending or len(spool._queue) or len(spool) < int(count) + 1:  # type: ignore[attr-defined]
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        pause()


def second_life(_: str = "") -> None:
    """The next start of the same program: it has one operation of its own."""
    progress.configure(feed=False, view="off", history=False)
    with progress.operation("second life"):
        pause()


def leaving(_: str = "") -> None:
    """Has done its work and leaves, whatever the collector does."""
    progress.configure(feed="127.0.0.1:0", view="off", history=False)
    with progress.operation("album"):
        pause()
    print(f"done {time.monotonic()}", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*(sys.argv[2:] or [""]))
