"""Fixtures of the stores' tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

_SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def ram_path(tmp_path):
    """Like `tmp_path`, in memory where that is possible: for hundreds of stores, each of which waits for the disk."""
    if not _SHARED_MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY) as folder:
        yield Path(folder)
