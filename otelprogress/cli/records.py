"""Operations as the objects that `--json` prints: names that scripts may rely on."""

from __future__ import annotations

from typing import Any

from otelprogress.model.events import NO_STEP_INDEX, OperationView
from otelprogress.visualization.view_model import reason_of


def record(view: OperationView, now_unix_ns: int) -> dict[str, Any]:
    """The members of one line of `list --json`; what is unknown is null. Times in seconds."""
    step = view.step
    return {
        "handle": view.handle,
        "id": view.id,
        "name": view.name,
        "title": view.title or view.name,
        "label": view.label,
        "state": view.state,
        "stalled": view.stalled,
        "ratio": view.ratio,
        "ratio_source": view.ratio_source,
        "eta": [view.eta.low_s, view.eta.high_s] if view.eta is not None and view.live else None,
        "rate": view.rate,
        "step": step.name if step is not None and step.index != NO_STEP_INDEX else None,
        "step_number": step.index + 1 if step is not None and step.index != NO_STEP_INDEX else None,
        "step_count": view.step_count,
        "completed": step.completed if step is not None else None,
        "total": step.total if step is not None else None,
        "unit": step.unit if step is not None else None,
        "age": max(0, now_unix_ns - view.started_at_unix_ns) / 1e9,
        "elapsed": view.elapsed_s,
        "service": view.service,
        "pid": view.process_id,
        "parent": view.parent_id,
        "message": view.message,
        "reason": reason_of(view) or None,
    }
