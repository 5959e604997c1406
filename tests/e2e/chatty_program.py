"""An instrumented program that prints and logs while its bars are drawn: `chatty_program.py [fork]`."""

from __future__ import annotations

import logging
import os
import sys
import time

logging.basicConfig(format="%(levelname)s %(message)s")  # before configure(): it holds the stream of now

import otelprogress as progress  # noqa: E402

if __name__ == "__main__":
    progress.configure()
    for number in progress.track(range(40), "import flights", unit="row"):
        print(f"printed {number}")
        if number % 10 == 0:
            logging.getLogger("chatty").warning("logged %d", number)
        if number == 20 and "fork" in sys.argv and os.fork() == 0:
            print("from a child", flush=True)
            os._exit(0)
        time.sleep(0.02)
    print("end", file=sys.stderr)
