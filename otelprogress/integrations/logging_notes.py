"""Log records inside an operation as its notes: `configure(notes_from_logging="WARNING")`. Redacted, like every note."""

from __future__ import annotations

import logging
import threading

from otelprogress import active


class NotesHandler(logging.Handler):
    """Gives the records of the current operation's code to it. Ours are left out; nothing it does raises.

    Args:
        level: the least level that becomes a note.
    """

    def __init__(self, level: str) -> None:
        super().__init__(level)
        self._inside = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if record.name.partition(".")[0] in {"otelprogress", "opentelemetry"}:
            return
        step = active.step_of()
        if step is None or getattr(self._inside, "busy", False):
            return
        self._inside.busy = True  # what is told may log by itself
        try:
            level = "error" if record.levelno >= logging.ERROR else "info"
            if logging.WARNING <= record.levelno < logging.ERROR:
                level = "warning"
            step.operation.note_from_elsewhere(
                record.getMessage(), level=level, time_unix_ns=int(record.created * 1e9)
            )
        except Exception as error:
            active.count_misuse(f"a log record could not become a note: {type(error).__name__}: {error}")
        finally:
            self._inside.busy = False


def install(level: str) -> NotesHandler:
    """Listen to the root logger; returns what `uninstall` takes."""
    handler = NotesHandler(level)
    logging.getLogger().addHandler(handler)
    return handler


def uninstall(handler: NotesHandler) -> None:
    """Listen no more."""
    logging.getLogger().removeHandler(handler)
