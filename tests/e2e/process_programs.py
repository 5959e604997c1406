"""Programs of several processes, each run by `python -m tests.e2e.process_programs NAME ...`.

They say `ready` when there is something to look at and go on when a line is given to them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import otelprogress as progress
from otelprogress import active, propagation

TASKS = 8
DEADLY = 3


def pause() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def leave(timeout_s: float = 10.0) -> None:
    assert active.flush is not None, "this process reports to nobody"
    active.flush(timeout_s)


@progress.operation("resize", title="resize {number}")
def resize(number: int, dies: bool = False) -> int:
    op = progress.current_operation()
    for _ in op.track(range(10), unit="tile"):
        time.sleep(0.002)
    if dies:
        leave()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def pool(method: str) -> None:
    progress.configure(feed="127.0.0.1:0", view="off")
    context = multiprocessing.get_context(method)
    with progress.operation("album"):
        work = progress.propagate(resize)
        with context.Pool(4) as workers:
            tasks = [workers.apply_async(work, (n, n == DEADLY)) for n in range(TASKS)]
            done = sorted(task.get(60) for n, task in enumerate(tasks) if n != DEADLY)
            assert done == [n for n in range(TASKS) if n != DEADLY]
            pause()


def executor(method: str) -> None:
    progress.configure(feed="127.0.0.1:0", view="off")
    with progress.operation("album"):
        work = progress.propagate(resize)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as workers:
            assert sorted(workers.map(work, range(TASKS))) == list(range(TASKS))
            pause()


def process(method: str) -> None:
    """Children without `propagate`, where the start method allows that, and with it."""
    progress.configure(feed="127.0.0.1:0", view="off")
    context = multiprocessing.get_context(method)
    with progress.operation("album"):
        target: Callable[..., object] = resize if method == "fork" else progress.propagate(resize)
        children = [context.Process(target=target, args=(n,)) for n in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
        pause()


@progress.operation("middle")
def middle(method: str) -> None:
    child = multiprocessing.get_context(method).Process(target=progress.propagate(resize), args=(1,))
    child.start()
    child.join()
    assert child.exitcode == 0


def nested(method: str) -> None:
    progress.configure(feed="127.0.0.1:0", view="off")
    with progress.operation("album"):
        child = multiprocessing.get_context(method).Process(target=progress.propagate(middle), args=(method,))
        child.start()
        child.join()
        assert child.exitcode == 0
        pause()


def program(_: str) -> None:
    progress.configure(feed="127.0.0.1:0", view="off")
    with progress.operation("album"):
        subprocess.run(
            [sys.executable, "-m", "tests.e2e.process_programs", "reporter"],
            env=os.environ | propagation.environment(),
            check=True,
        )
        pause()


def reporter(_: str = "") -> None:
    """What a started program does to report: only `configure()`."""
    progress.configure()
    resize(1)


def forking(_: str) -> None:
    """Forks while it reports or serves; then waits to be killed, as its child does."""
    progress.configure(feed="127.0.0.1:0", view="off")
    with progress.operation("album"):
        if active.flush is not None:
            leave()
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)
            time.sleep(600)
            os._exit(0)
        time.sleep(600)


def forked_reporter(_: str) -> None:
    """A bare `os.fork()`: the child's operations belong to what was current, and the parent's stay the parent's."""
    progress.configure(feed="127.0.0.1:0", view="off")
    with progress.operation("album") as album:
        child = os.fork()
        if child == 0:
            assert progress.current_operation().run_id == ""
            resize(7)
            album.end()
            leave()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        pause()


def forked_threads(_: str) -> None:
    """A forked child whose threads all begin at once: each of them is the first to report."""
    progress.configure(feed="127.0.0.1:0", view="off")
    with progress.operation("album"):
        child = os.fork()
        if child == 0:
            together = threading.Barrier(TASKS)

            def work(number: int) -> None:
                together.wait()
                resize(number)

            threads = [threading.Thread(target=work, args=(n,)) for n in range(TASKS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            leave()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        pause()


def orphan(_: str) -> None:
    """Reports to a parent that dies, goes on, and says when its own work was done."""
    progress.configure()
    with progress.operation("album") as album:
        leave()
        pause()
        for n in range(20_000):
            album.note(f"note {n}")
            album.advance()
    print(f"done {time.monotonic()}", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*(sys.argv[2:] or [""]))
