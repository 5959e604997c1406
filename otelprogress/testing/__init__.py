"""For the tests of people who instrument their code: capture what it reports, with no port and no thread.

With pytest, ask for the fixture `progress_capture`; elsewhere use `capture()`. Strict mode is on inside: misuse that
production code would only count is raised.
"""

from __future__ import annotations

from otelprogress.testing.capture import CapturedOperation, CapturedStep, ProgressCapture, capture

__all__ = ["CapturedOperation", "CapturedStep", "ProgressCapture", "capture"]
