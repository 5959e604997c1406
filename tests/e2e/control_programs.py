"""Programs that are commanded from outside: `python -m tests.e2e.control_programs NAME [ARGUMENT]`.

Where a test looks at them after their cancel they stay until their input is closed.
"""

from __future__ import annotations

import sys
import time
from multiprocessing import get_context
from pathlib import Path

import otelprogress as progress


def rows(_: str) -> None:
    """Hands out rows at a steady pace; says how many it had when it was cancelled."""
    done = 0
    try:
        with progress.operation("import rows", controls=["cancel", "pause"]):
            for _row in progress.track(range(1_000_000), unit="row"):
                done += 1
                time.sleep(0.002)
    except progress.OperationCancelled as cancelled:
        print(f"cancelled {cancelled.reason!r} after {done}", flush=True)
        sys.stdin.read()


def asking(_: str) -> None:
    """Asks for a learning rate, and says what it got."""
    with progress.operation("train", controls=["input", "cancel"]) as operation:
        answer = operation.request_input("lr?", {"enum": ["halve", "stop"]}, timeout_s=60)
        print(f"answered {answer}", flush=True)


def signalled(_: str) -> None:
    """Takes snapshots when it is told to."""
    taken: list[int] = []
    with progress.operation("simulate", controls=["snapshot", "cancel"]) as operation:
        operation.on_signal("snapshot", lambda: taken.append(1))
        try:
            for _step in progress.track(range(1_000_000)):
                time.sleep(0.002)
        except progress.OperationCancelled:
            print(f"snapshots {len(taken)}", flush=True)
            raise SystemExit(0) from None


def counting(_: str) -> None:
    """Counts what it is told to do, until it is cancelled."""
    done: list[int] = []
    with progress.operation("count", controls=["step", "cancel"]) as operation:
        operation.on_signal("step", lambda: done.append(1))
        try:
            for _step in progress.track(range(1_000_000)):
                time.sleep(0.001)
        except progress.OperationCancelled:
            print(f"done {len(done)}", flush=True)
            raise SystemExit(0) from None


def stuck(_: str) -> None:
    """Says that it is there, and never comes by its gate."""
    with progress.operation("stuck", controls=["cancel"]):
        print("ready", flush=True)
        time.sleep(600)


def _resize(number: int) -> int:
    with progress.operation("resize"):
        for _part in progress.track(range(2_000), unit="part"):
            time.sleep(0.005)
    return number


def _resize_counted(ledger: str) -> None:
    with progress.operation("resize"):
        for number, _part in enumerate(progress.track(range(100_000), unit="part"), 1):
            Path(ledger).write_text(str(number))
            time.sleep(0.002)


def counted(ledger: str) -> None:
    """Works in one other process, which writes down what it has done after each part."""
    with get_context("spawn").Pool(1) as workers:
        try:
            with progress.operation("resize all", controls=["cancel", "pause"]):
                for _ in progress.track(workers.imap(progress.propagate(_resize_counted), [ledger]), total=1):
                    pass
        except (progress.OperationCancelled, progress.WorkerCancelled) as cancelled:
            print(f"cancelled {cancelled.reason!r}", flush=True)
            sys.stdin.read()


def pool(method: str) -> None:
    """Commanded itself, and works in two other processes."""
    with get_context(method).Pool(2) as workers:
        try:
            with progress.operation("resize all", controls=["cancel", "pause"]):
                work = progress.propagate(_resize)
                for _ in progress.track(workers.imap_unordered(work, range(50)), total=50):
                    pass
        except (progress.OperationCancelled, progress.WorkerCancelled) as cancelled:
            print(f"cancelled {cancelled.reason!r}", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    progress.configure(view="off")
    {one.__name__: one for one in (rows, asking, signalled, counted, counting, stuck, pool)}[sys.argv[1]](
        sys.argv[2] if len(sys.argv) > 2 else ""
    )
