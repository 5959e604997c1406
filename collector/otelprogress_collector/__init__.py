"""The collector: OTLP in, live progress and OTLP out."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("otelprogress-collector")
