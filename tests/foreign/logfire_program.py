"""A program that uses Logfire as its documentation says, with the collector as its backend (`LOGFIRE_BASE_URL`).

It prints the trace id once its spans are open, and goes on after a line on stdin.
"""

from __future__ import annotations

import sys

import logfire
from opentelemetry import trace

logfire.configure(service_name="airport", console=False, metrics=False, inspect_arguments=False)

with logfire.span("import flights of {airport}", airport="JFK"):
    with logfire.span("read"):
        logfire.force_flush()
        print(f"{trace.get_current_span().get_span_context().trace_id:032x}", flush=True)
        sys.stdin.readline()
    with logfire.span("write"):
        logfire.warn("{count} rows without a carrier", count=3)
logfire.shutdown()
