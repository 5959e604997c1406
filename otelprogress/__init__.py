"""Live progress as a first-class part of OpenTelemetry.

Everything public stands here and is imported when it is first used: `import otelprogress` itself loads nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from otelprogress.imports import late

if TYPE_CHECKING:
    from otelprogress import visualization as visualization
    from otelprogress.exceptions import AmbiguousOperation as AmbiguousOperation
    from otelprogress.exceptions import FeedDenied as FeedDenied
    from otelprogress.exceptions import FeedError as FeedError
    from otelprogress.exceptions import FeedUnavailable as FeedUnavailable
    from otelprogress.exceptions import IllegalTransition as IllegalTransition
    from otelprogress.exceptions import InputTimeout as InputTimeout
    from otelprogress.exceptions import InvalidRecord as InvalidRecord
    from otelprogress.exceptions import InvalidValue as InvalidValue
    from otelprogress.exceptions import OperationCancelled as OperationCancelled
    from otelprogress.exceptions import ProgressError as ProgressError
    from otelprogress.exceptions import UnknownOperation as UnknownOperation
    from otelprogress.exceptions import UnknownStep as UnknownStep
    from otelprogress.exceptions import UsageError as UsageError
    from otelprogress.exceptions import WaitTimeout as WaitTimeout
    from otelprogress.exceptions import WorkerCancelled as WorkerCancelled
    from otelprogress.feed.client import AsyncClient as AsyncClient
    from otelprogress.feed.client import Client as Client
    from otelprogress.feed.client import watch as watch
    from otelprogress.feed.server import WebSocketServer as WebSocketServer
    from otelprogress.model.events import Event as Event
    from otelprogress.model.events import FeedEvent as FeedEvent
    from otelprogress.model.events import OperationView as OperationView
    from otelprogress.model.events import State as State
    from otelprogress.model.events import StepState as StepState
    from otelprogress.model.events import StepView as StepView
    from otelprogress.model.rules import SpanRule as SpanRule
    from otelprogress.operation import acheckpoint as acheckpoint
    from otelprogress.operation import adopt as adopt
    from otelprogress.operation import advance as advance
    from otelprogress.operation import cancel_requested as cancel_requested
    from otelprogress.operation import checkpoint as checkpoint
    from otelprogress.operation import count as count
    from otelprogress.operation import current_operation as current_operation
    from otelprogress.operation import note as note
    from otelprogress.operation import operation as operation
    from otelprogress.operation import poll as poll
    from otelprogress.operation import set_total as set_total
    from otelprogress.operation import step as step
    from otelprogress.otel.emitter import ProgressEmitter as ProgressEmitter
    from otelprogress.otel.log_processor import ProgressLogProcessor as ProgressLogProcessor
    from otelprogress.otel.span_processor import ProgressSpanProcessor as ProgressSpanProcessor
    from otelprogress.propagation import propagate as propagate
    from otelprogress.run import Operation as Operation
    from otelprogress.runtime import configure as configure
    from otelprogress.runtime import shutdown as shutdown
    from otelprogress.step import Step as Step
    from otelprogress.track import track as track
    from otelprogress.tracker import ProgressTracker as ProgressTracker

_HOMES: Final = {
    "otelprogress.exceptions": (
        "AmbiguousOperation", "FeedDenied", "FeedError", "FeedUnavailable", "IllegalTransition", "InputTimeout",
        "InvalidRecord", "InvalidValue", "OperationCancelled", "ProgressError", "UnknownOperation", "UnknownStep", "UsageError",
        "WaitTimeout", "WorkerCancelled",
    ),
    "otelprogress.feed.client": ("AsyncClient", "Client", "watch"),
    "otelprogress.feed.server": ("WebSocketServer",),
    "otelprogress.model.events": ("Event", "FeedEvent", "OperationView", "State", "StepState", "StepView"),
    "otelprogress.model.rules": ("SpanRule",),
    "otelprogress.operation": (
        "acheckpoint", "adopt", "advance", "cancel_requested", "checkpoint", "count", "current_operation", "note",
        "operation", "poll", "set_total", "step",
    ),
    "otelprogress.otel.emitter": ("ProgressEmitter",),
    "otelprogress.otel.log_processor": ("ProgressLogProcessor",),
    "otelprogress.otel.span_processor": ("ProgressSpanProcessor",),
    "otelprogress.propagation": ("propagate",),
    "otelprogress.run": ("Operation",),
    "otelprogress.runtime": ("configure", "shutdown"),
    "otelprogress.step": ("Step",),
    "otelprogress.track": ("track",),
    "otelprogress.tracker": ("ProgressTracker",),
}  # fmt: skip
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["visualization", *sorted(_HOME_OF)]  # noqa: PLE0604 - strings all


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        if name == "visualization":
            return importlib.import_module("otelprogress.visualization")
        raise AttributeError(f"module 'otelprogress' has no attribute {name!r}")
    with late:
        value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `otelprogress.track` the function: importing the submodule of that name would put the module there."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME_OF and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
