from __future__ import annotations

import logging

import otelprogress as progress
from otelprogress.integrations import logging_notes
from tests.recording import recording


def test_log_records_inside_an_operation_become_notes_without_secrets():
    handler = logging_notes.install("WARNING")
    try:
        with recording() as said:
            logging.getLogger("app").warning("outside")
            with progress.operation("load"):
                logging.getLogger("app").info("too little")
                logging.getLogger("app").warning("%d rows rejected, password=hunter2", 3)
                logging.getLogger("app").error("broken")
                logging.getLogger("otelprogress.feed").warning("ours")
    finally:
        logging_notes.uninstall(handler)
    assert [(note.message, note.level, note.source) for note in said.of("operation.noted")] == [
        ("3 rows rejected, password=[redacted]", "warning", "foreign"),
        ("broken", "error", "foreign"),
    ]
    assert handler not in logging.getLogger().handlers


def test_a_record_that_cannot_be_rendered_harms_nobody():
    handler = logging_notes.install("WARNING")
    try:
        with recording() as said, progress.operation("load"):
            handler.emit(logging.LogRecord("app", logging.WARNING, "x.py", 1, "%d", ("three",), None))
    finally:
        logging_notes.uninstall(handler)
    assert said.of("operation.noted") == []
