"""A process that publishes durable events as fast as it is allowed to: argv: total, runs, allowed Host; stdin: how many."""

from __future__ import annotations

import sys
import threading
import time

from otelprogress.feed.host import Host
from otelprogress.feed.server import WebSocketServer
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from tests.feed import fakes
from tests.feed.fakes import ended, noted, started

TOKEN = "resume"
BURST = 4


def main() -> None:
    total, runs, allowed_host = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    fakes.START_UNIX_NS = time.time_ns()  # what ended years ago would not be in a snapshot
    host = Host(Hub(OperationTree(), epoch="e2e", cursor_key=CursorKey(b"k" * 32)))
    server = WebSocketServer(host, token=TOKEN, port=0, allowed_hosts=[allowed_host])
    server.start()
    print(server.address[1], flush=True)
    allowance = threading.Semaphore(0)
    released = [0]

    def listen() -> None:
        for line in sys.stdin:
            released[0] = int(line)
            allowance.release()

    threading.Thread(target=listen, daemon=True).start()
    per_run = total // runs
    published = 0
    for sequence in range(1, per_run + 1):
        for run in range(1, runs + 1):
            while published >= released[0]:
                allowance.acquire()
            if sequence == 1:
                host.submit(started(run=run, name=f"load {run}"))
            elif sequence == per_run:
                host.submit(ended(sequence, run=run))
            else:
                host.submit(noted(sequence, run=run, message=str(sequence)))
            published += 1
            if published % BURST == 0:
                time.sleep(0.0005)
    # The feed stays until the test has seen enough.
    while allowance.acquire(timeout=60):
        pass
    server.close()


if __name__ == "__main__":
    main()
