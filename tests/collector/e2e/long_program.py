"""A program that works for long. argv: how it behaves; it says `ready` once its operation is reported."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import otelprogress as progress


def main() -> None:
    behaviour = sys.argv[1]
    progress.configure(feed=False, view="off", history=False, service_name="long")
    with progress.operation("nightly load", steps=["extract", "load"], stall_after_s=1.0) as operation:
        with progress.step("extract") as step:
            for _ in step.track(range(5)):
                time.sleep(0.01)
        if behaviour == "fork" and not os.fork():
            # Outlives its parent, with copies of all of its sockets.
            signal.pause()
            os._exit(0)
        with progress.step("load") as step:
            for number in step.track(range(1_000_000)):
                time.sleep(0.05)
                if number == 4:
                    print("ready", operation.run_id, flush=True)
                    if behaviour.startswith("hold"):
                        # `PyDLL` keeps the interpreter: no other Python thread of this process runs meanwhile.
                        ctypes.PyDLL(None).sleep(int(behaviour.removeprefix("hold")))


if __name__ == "__main__":
    main()
