"""Write down what Logfire and partial-span-processor send: `python -m tests.foreign.record`.

The programs of this folder are run against a receiver; their requests become `tests/golden/otlp/<name>.json`, in
OTLP/JSON and in the order in which they came, but for what tells of the machine. Done again only when a newer version of theirs sends something else: the tests read the files.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.foreign.dialogue import running
from tests.foreign.parts import PARTIAL_PYTHON, PYTHON
from tests.otel.otlp_server import HttpReceiver, Received

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "otlp"
REQUESTS = {"/v1/traces": ExportTraceServiceRequest, "/v1/logs": ExportLogsServiceRequest}
IDS = ("traceId", "spanId", "parentSpanId")
KEPT = ("service.name", "telemetry.")
"""Of the resource."""
PROGRAMS = {"logfire": PYTHON, "partial": PARTIAL_PYTHON}


def in_json(request: Received) -> dict[str, Any]:
    """The request as OTLP/JSON writes it: ids in hex."""
    message = REQUESTS[request.path].FromString(request.body)
    return _tidied(MessageToDict(message, use_integers_for_enums=True))


def _tidied(value: Any) -> Any:
    if isinstance(value, list):
        return [_tidied(one) for one in value]
    if not isinstance(value, dict):
        return value
    tidied = {name: _tidied(one) for name, one in value.items()}
    for name in IDS:
        if name in tidied:
            tidied[name] = base64.b64decode(tidied[name]).hex()
    if "resource" in tidied:
        attributes = tidied["resource"]["attributes"]
        tidied["resource"]["attributes"] = [one for one in attributes if one["key"].startswith(KEPT)]
    return tidied


async def record(name: str) -> None:
    with HttpReceiver() as receiver:
        environment = {
            "LOGFIRE_BASE_URL": receiver.url,
            "LOGFIRE_TOKEN": "token",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url if name != "logfire" else "",
        }
        command = [PROGRAMS[name], (HERE / f"{name}_program.py").relative_to(Path.cwd())]
        async with running(command, **environment) as program:
            await program.says()
            if name == "partial":
                await asyncio.sleep(2.5)  # so that some heartbeats are repeated
            program.go_on()
            await program.end()
    requests = [{"path": one.path, "body": in_json(one)} for one in receiver.received if one.path in REQUESTS]
    (GOLDEN / f"{name}.json").write_text(json.dumps(requests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in PROGRAMS:
        asyncio.run(record(each))
