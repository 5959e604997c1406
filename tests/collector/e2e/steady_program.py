"""A program that counts steadily until its input ends; then it says the longest pause that it saw, in seconds."""

from __future__ import annotations

import select
import sys
import time

import otelprogress as progress


def main() -> None:
    progress.configure(feed=False, view="off", history=False, service_name="steady")
    longest_s = 0.0
    with progress.operation("steady load") as operation, progress.step("load") as step:
        print(operation.run_id, flush=True)
        before_s = time.monotonic()
        for _ in step.track(iter(int, 1)):
            ended, _, _ = select.select([sys.stdin], [], [], 0.02)
            longest_s = max(longest_s, time.monotonic() - before_s)
            if ended:
                break
            before_s = time.monotonic()
    print(longest_s, flush=True)


if __name__ == "__main__":
    main()
