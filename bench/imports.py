"""P13: what `import otelprogress` and `otelprogress run` cost a program's start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from bench.rows import Effort, Row, alternate, medians, over, row

MAX_LATER_MS = 100.0
RUN = "from otelprogress.cli.entry import main; main()"
"""What the console script does."""
SAYS = ["sh", "-c", "echo; exit"]


def run(effort: Effort) -> list[Row]:
    """Whole interpreters, started in turn; the bare interpreter's time is taken off.

    All have their bytecode cached, in a folder of its own: the warm-up round compiles, as an installation does.
    """
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-") as cache:
        samples = alternate(
            {
                "bare": starting("pass", cache),
                "api": starting("from opentelemetry import context, trace", cache),
                "ours": starting("import otelprogress; otelprogress.operation, otelprogress.track", cache),
                "sdk": starting("import opentelemetry.sdk.trace", cache),
            },
            effort.rounds,
        )
    ours, api, sdk = (over(samples, name, "bare") for name in ("ours", "api", "sdk"))
    later, shell = started_later(effort)
    return [
        row(
            "P13",
            "otelprogress run: from its start to its program's first line",
            later,
            "ms",
            "sh -c",
            shell,
            target="≤ 100 ms later",
            met=later - shell <= MAX_LATER_MS,
        ),
        row(
            "P13",
            "import otelprogress, over bare Python",
            ours,
            "ms",
            "opentelemetry-api",
            api,
            target="≤ 1.3 times opentelemetry-api",
            met=ours <= 1.3 * api,
        ),
        row(
            "P13",
            "import otelprogress, over bare Python",
            ours,
            "ms",
            "opentelemetry-sdk",
            sdk,
            target="for comparison",
            met=True,
        ),
    ]


def started_later(effort: Effort) -> tuple[float, float]:
    """Milliseconds until a program says its first line, started by `otelprogress run` and by the shell."""
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-") as folder:
        environment = fresh(os.path.join(folder, "cache")) | {  # noqa: PTH118
            "OTELPROGRESS_RUNTIME_DIR": os.path.join(folder, "run"),  # noqa: PTH118
            "XDG_STATE_HOME": folder,
        }
        samples = alternate(
            {
                "run": first_line([sys.executable, "-c", RUN, "run", "--", *SAYS], environment),
                "sh": first_line(SAYS, environment),
            },
            effort.rounds,
        )
    middle = medians(samples)
    return middle["run"], middle["sh"]


def first_line(command: list[str], environment: dict[str, str]) -> Callable[[], float]:
    """Milliseconds from the start of `command` to its first line; the rest of its life is waited for, not counted."""

    def once() -> float:
        start = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            return (time.perf_counter() - start) * 1e3

    return once


def fresh(cache: str) -> dict[str, str]:
    """The environment with a folder of its own for bytecode."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    return environment


def starting(program: str, cache: str) -> Callable[[], float]:
    """Milliseconds from start to end of an interpreter that runs `program`."""
    environment = fresh(cache)

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        return (time.perf_counter() - start) * 1e3

    return once
