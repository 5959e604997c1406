"""`opentelemetry-instrument python app.py` finds progress here, with no edit to the application.

The entry point group `opentelemetry_instrumentor` works with the environment as well as with a configuration
file. opentelemetry-instrumentation is optional: without it nobody loads this module.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # it turns checking off for itself

_LOG = logging.getLogger("otelprogress")
_RUNTIME: Final = "otelprogress.runtime"
"""By name: the composition root knows this package, not the other way round."""


class ProgressInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # see its import
    """Configures progress from the environment (`OTELPROGRESS_FEED`, `OTELPROGRESS_RULES`, …); see `configure()`."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: we instrument no library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        try:
            importlib.import_module(_RUNTIME).configure_from_environment()
        except Exception as error:
            # A raise would end the loading of the instrumentations that come after this one.
            _LOG.warning("progress is not configured: %s: %s", type(error).__name__, error)

    def _uninstrument(self, **kwargs: Any) -> None:
        importlib.import_module(_RUNTIME).shutdown()
