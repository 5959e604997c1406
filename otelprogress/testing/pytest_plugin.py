"""The pytest plugin: the fixture `progress_capture`. Imports nothing heavy until a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otelprogress.testing.capturing import ProgressCapture


@pytest.fixture
def progress_capture() -> Iterator[ProgressCapture]:
    """What the test's code reports: `progress_capture.one("nightly load").step("clean").counts`."""
    from otelprogress.testing.capturing import capture

    with capture() as captured:
        yield captured
