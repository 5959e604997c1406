"""Look at the API's global providers without making one.

`get_tracer_provider()` and its siblings load and *set* a provider when `OTEL_PYTHON_TRACER_PROVIDER` (…) names
one; the application's own set-up after that would be refused. So the globals are read as they are. This is the
only file that knows where the API keeps them; where a name has moved, nothing is found and the application's
provider has to be given to `ProviderBinding.attach`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import opentelemetry._logs._internal as logs_internal
import opentelemetry.metrics._internal as metrics_internal  # its setter is not hooked: metrics ask each time
from opentelemetry import trace


def tracer_provider() -> Any | None:
    """The application's TracerProvider; `None`: it has set none."""
    return getattr(trace, "_TRACER_PROVIDER", None)


def logger_provider() -> Any | None:
    """The application's LoggerProvider; `None`: it has set none."""
    return getattr(logs_internal, "_LOGGER_PROVIDER", None)


def meter_provider() -> Any | None:
    """The application's MeterProvider; `None`: it has set none."""
    return getattr(metrics_internal, "_METER_PROVIDER", None)


_SETTERS: Final[tuple[tuple[ModuleType, str], ...]] = (
    # The inner functions: `from opentelemetry.trace import set_tracer_provider` made before our start keeps
    # the outer one, which looks the inner one up at each call.
    (trace, "_set_tracer_provider"),
    (logs_internal, "_set_logger_provider"),
)


class SetHook:
    """Calls back after the application has set a global provider, until `remove`.

    Args:
        on_set: on the setting thread, after the provider is in place; what it raises is swallowed. The setter may
            hold locks of its own: nothing may be asked of the API or of a provider but to add a processor.
    """

    def __init__(self, on_set: Callable[[], object]) -> None:
        self._on_set = on_set
        self._wrapped: list[tuple[ModuleType, str, Any, Any]] = []

    def install(self) -> None:
        """Wrap the setters. A second call does nothing."""
        if self._wrapped:
            return
        for module, name in _SETTERS:
            original = getattr(module, name, None)
            if original is None:
                continue

            def setter(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                result = _original(*args, **kwargs)
                with contextlib.suppress(Exception):
                    self._on_set()
                return result

            setattr(module, name, setter)
            self._wrapped.append((module, name, original, setter))

    def remove(self) -> None:
        """Put the setters back, unless somebody else has wrapped them since: then ours stays, silent."""
        for module, name, original, setter in self._wrapped:
            if getattr(module, name, None) is setter:
                setattr(module, name, original)
        self._wrapped.clear()
        self._on_set = _nothing


def _nothing() -> None:
    """What a removed hook calls."""
