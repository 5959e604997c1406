"""The application of the verdict benchmark: an operation that goes on until it is killed. Prints the operation's id."""

from __future__ import annotations

import time

import otelprogress as progress


def main() -> None:
    progress.configure(feed=False, view="off", history=False, service_name="bench")
    with progress.operation("nightly load", steps=["load"]) as operation, progress.step("load") as step:
        print(operation.run_id, flush=True)
        for _ in step.track(range(1_000_000)):
            time.sleep(0.05)


if __name__ == "__main__":
    main()
