"""The event that says a run is lost: who says so, from what, and when its process was last heard. Pure."""

from __future__ import annotations

from typing import Final, Literal

from otelprogress.model import semconv
from otelprogress.model.events import Event, OperationView, State

Detector = Literal["link", "keepalive", "lease", "atexit"]

PROVEN: Final = frozenset({"link", "atexit"})
"""The kernel ended the connection (FIN, RST), or the process said it leaves: no other word can come from it."""


def lost(view: OperationView, detector: Detector, heard_unix_ns: int, cause: str) -> Event:
    """The verdict on one live run.

    Args:
        view: as it stands.
        detector: who noticed.
        heard_unix_ns: when its process was last known to live; never counted before the start of the run.
        cause: for people, one line.
    """
    evidence_unix_ns = max(heard_unix_ns, view.started_at_unix_ns)
    return Event(
        kind=semconv.OPERATION_ENDED,
        run_id=view.id,
        time_unix_ns=evidence_unix_ns,
        tenant=view.tenant,
        state=State.LOST,
        lost_detector=detector,
        lost_evidence_unix_ns=evidence_unix_ns,
        lost_cause=cause,
    )


def silent_for(lease_s: float | None, silent_lease_s: float) -> str:
    """The cause of a lease that ran out, for people."""
    if lease_s is None:
        return f"not heard for {silent_lease_s:g} s, and it gave no lease"
    return f"not heard within its lease of {lease_s:g} s"
