"""The collector's log: one line of text, or one JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final, Literal

from otelprogress.model.text import clean

_MAX_CHARS: Final = 4096
_KNOWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send everything of this process to stderr; libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("otelprogress_collector", "otelprogress"):
        logging.getLogger(name).setLevel(level.upper())


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00Z warning otelprogress_collector.host the text`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever was in it; a traceback follows on lines of its own."""
        text = f"{_time(record)} {record.levelname.lower()} {record.name} {_said(record)}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return text


class JsonLines(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, `exception` where there is one, and what `extra` had."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        said: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _said(record),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        said |= {key: value for key, value in record.__dict__.items() if key not in _KNOWN}
        return json.dumps(said, ensure_ascii=False, default=repr)


def _said(record: logging.LogRecord) -> str:
    # What came over the network may stand in it: no line of a log may begin in the middle of another.
    return clean(record.getMessage(), _MAX_CHARS)


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
