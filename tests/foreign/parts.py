"""Where the foreign programs stand that `make test-backends` installs, and what to do where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.foreign.install import FOREIGN, PARTIAL

HERE = Path(__file__).parent
PYTHON = FOREIGN / "bin" / "python"
PARTIAL_PYTHON = PARTIAL / "bin" / "python"


def installed(part: Path, *, by: str = "make test-backends") -> Path:
    """That part, if it is there; where it is not the test is skipped, and fails in continuous integration."""
    if not part.exists():
        message = f"{part.name} is missing: run `{by}`, which installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return part


def packaged(package: str, name: str, place: Path = FOREIGN, *, by: str = "make test-backends") -> Path:
    """A program that a package of a virtual environment brings along."""
    found = sorted(place.glob(f"lib/python*/site-packages/{package}/{name}"))
    return found[0] if found else installed(place / package / name, by=by)
