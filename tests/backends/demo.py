"""The demo as a program of its own: what it must leave at a backend."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from otelprogress.model import semconv
from tests.backends.phoenix import Phoenix
from tests.waiting import eventually

STEPS = ["extract", "clean", "join", "aggregate", "load"]
CHILDREN = ["load table"] * 2 + ["read table"] * 3
NAME = "nyc flights"


def demo_command(folder: Path) -> list[str | Path]:
    return [sys.executable, "-m", "otelprogress.cli.main", "demo", "--database", folder / "flights.sqlite3"]


def trace_id_in(output: str) -> str:
    """The id of the trace, as the demo prints it at its end."""
    found = re.search(r"^trace +([0-9a-f]{32}) went to ", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


def check_trace(phoenix: Phoenix, trace_id: str) -> None:
    """The run with its steps as span events and its outcome, and the spans below it, each once."""
    run: dict[str, Any] = eventually(lambda: phoenix.span(trace_id, NAME), 60, every_s=0.5)
    assert run["status_code"] != "ERROR"
    assert run["attributes"][semconv.OPERATION_STATE] == "succeeded"
    started = [event for event in run["events"] if event["name"] == semconv.STEP_STARTED]
    ended = [event for event in run["events"] if event["name"] == semconv.STEP_ENDED]
    assert [event["attributes"][semconv.STEP_NAME] for event in started] == STEPS
    assert [event["attributes"][semconv.STEP_NAME] for event in ended] == STEPS
    assert {event["attributes"][semconv.STEP_STATE] for event in ended} == {"succeeded"}
    clean = ended[STEPS.index("clean")]["attributes"]
    assert clean[semconv.ITEMS_COMPLETED] == 336_776
    assert clean[semconv.COUNTER_PREFIX + "rejected"] == 8_255

    def children() -> list[str] | None:
        above = run["context"]["span_id"]
        names = sorted(span["name"] for span in phoenix.spans(trace_id) if span["parent_id"] == above)
        return names if len(names) >= len(CHILDREN) else None

    assert eventually(children, 30, every_s=0.5) == CHILDREN
    assert len(phoenix.spans(trace_id)) == 1 + len(CHILDREN)
