"""For the tests of people who instrument their code: capture what it reports, with no port and no thread.

With pytest, ask for the fixture `progress_capture`; elsewhere use `capture()`. Strict mode is on inside: misuse that
production code would only count is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otelprogress.testing.capturing import CapturedOperation as CapturedOperation
    from otelprogress.testing.capturing import CapturedStep as CapturedStep
    from otelprogress.testing.capturing import ProgressCapture as ProgressCapture
    from otelprogress.testing.capturing import capture as capture

__all__ = ["CapturedOperation", "CapturedStep", "ProgressCapture", "capture"]


def __getattr__(name: str) -> Any:
    # Every pytest run loads the plugin beside this: it must not pay for what few tests use.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from otelprogress.testing import capturing

    value = getattr(capturing, name)
    globals()[name] = value
    return value
