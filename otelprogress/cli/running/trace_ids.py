"""The ids of an operation, settled before anything of OpenTelemetry is imported: the program gets them at its start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

TRACEPARENT: Final = "TRACEPARENT"
TRACESTATE: Final = "TRACESTATE"
SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_FORM: Final = re.compile(
    r"[ \t]*(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?[ \t]*"
)
_SAMPLED_AND_RANDOM: Final = 3
_SAMPLED: Final = 1
_ALWAYS: Final = frozenset({"", "always_on", "parentbased_always_on"})


class TraceIds(NamedTuple):
    """Trace and span of one operation."""

    trace_id: int
    span_id: int
    flags: int
    """Of W3C: 1 sampled, 2 the trace id is random."""
    inherited: bool
    """Whether the trace is that of `TRACEPARENT` in this process's own environment."""

    @property
    def run_id(self) -> str:
        """As an operation's id is written."""
        return f"{self.trace_id:032x}-{self.span_id:016x}"

    def carried(self, environ: Mapping[str, str]) -> dict[str, str]:
        """That environment for a child of this operation. Baggage stays as it is."""
        carrying = dict(environ)
        carrying[TRACEPARENT] = f"00-{self.run_id}-{self.flags:02x}"
        if not self.inherited:  # a state of another trace, or of none
            carrying.pop(TRACESTATE, None)
        return carrying


def settle(environ: Mapping[str, str] = os.environ) -> TraceIds:
    """A new span in the trace that `TRACEPARENT` names, else in one of its own."""
    span_id = int.from_bytes(os.urandom(8), "big") or 1
    found = _FORM.fullmatch(environ.get(TRACEPARENT, ""))
    if found is not None and _is_valid(found):
        flags = int(found["flags"], 16)
        if environ.get(SAMPLER, "").strip().lower() == "always_on":  # whatever the parent decided
            flags |= _SAMPLED
        return TraceIds(int(found["trace"], 16), span_id, flags, inherited=True)
    trace_id = int.from_bytes(os.urandom(16), "big") or 1
    return TraceIds(trace_id, span_id, _SAMPLED_AND_RANDOM, inherited=False)


def sampler_decides(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether only the SDK can say if the trace is sampled."""
    return environ.get(SAMPLER, "").strip().lower() not in _ALWAYS


def _is_valid(found: re.Match[str]) -> bool:
    """As W3C has it; the same answers as `propagation.inherited_context`."""
    return (
        found["version"] != "ff"
        and not (found["version"] == "00" and found["more"])
        and bool(int(found["trace"], 16))
        and bool(int(found["span"], 16))
    )
