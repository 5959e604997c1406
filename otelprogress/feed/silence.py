"""Loggers for libraries that would write what must not be written."""

from __future__ import annotations

import logging


def silent_logger(name: str) -> logging.Logger:
    """A logger that no configuration can open: at DEBUG, `websockets` writes headers, and with them tokens."""
    return logging.Logger(name, level=logging.CRITICAL + 1)  # noqa: LOG001 - a registered one could be opened
