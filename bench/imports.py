"""P13: what `import otelprogress` costs a program's start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from bench.rows import Effort, Row, alternate, over, row


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
    return [
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


def starting(program: str, cache: str) -> Callable[[], float]:
    """Milliseconds from start to end of an interpreter that runs `program`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        return (time.perf_counter() - start) * 1e3

    return once
