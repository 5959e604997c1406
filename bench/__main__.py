"""`python -m bench NAME… [--quick] [--json FILE]`: run benchmarks, print a ."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from bench.rows import FULL, QUICK, Row, markdown

MODULES = {
    "loop": "bench.loop",
    "calls": "bench.calls",
    "processor": "bench.processor",
    "latency": "bench.latency",
    "import": "bench.imports",
    "ingest": "bench.ingest",
    "fanout": "bench.fanout",
    "memory": "bench.memory",
    "restart": "bench.restart",
    "verdict": "bench.verdict",
    "endtoend": "bench.endtoend",
}


def main() -> int:
    """Exit 0 when every row met its target, 1 when one did not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="+", choices=MODULES, metavar="NAME", help=", ".join(MODULES))
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds, half a minute or less for most names"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the list of rows here")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        rows = importlib.import_module(MODULES[options.names[0]]).run(QUICK if options.quick else FULL)
    else:
        rows = [row for name in options.names for row in in_a_process_of_its_own(name, quick=options.quick)]
        print(markdown(rows))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
    return 0 if options.alone or all(row.met for row in rows) else 1


def in_a_process_of_its_own(name: str, *, quick: bool) -> list[Row]:
    """Providers and threads of one benchmark must not be there while another runs."""
    print(f"… {name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="otelprogress-bench-") as folder:
        answer = Path(folder) / "rows.json"
        command = [
            sys.executable,
            "-m",
            "bench",
            name,
            "--alone",
            "--json",
            str(answer),
            *(["--quick"] if quick else []),
        ]
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "OTELPROGRESS_"))
        }
        subprocess.run(command, env=environment | {"OTELPROGRESS_RUNTIME_DIR": folder}, check=True)
        return msgspec.json.decode(answer.read_bytes(), type=list[Row])


if __name__ == "__main__":
    sys.exit(main())
