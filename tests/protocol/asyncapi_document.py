"""Writes docs/asyncapi.yaml from the message structs: `python -m tests.protocol.asyncapi_document`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from otelprogress.protocol import messages

PATH = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"
CHANNELS = {
    "feed": ("/v1/feed", messages.ClientMessage, messages.ServerMessage, "Live progress of operations."),
    "worker": (
        "/v1/worker",
        messages.WorkerMessage,
        messages.HostMessage,
        "A process reports to its parent or a collector.",
    ),
}


def structs(union: Any) -> tuple[type[msgspec.Struct], ...]:
    """The members of one of the message unions."""
    return get_args(union)


def document() -> dict[str, Any]:
    """The AsyncAPI 3 document of the feed and the worker link."""
    everything = sorted(
        {struct for _, up, down, _ in CHANNELS.values() for struct in (*structs(up), *structs(down))},
        key=lambda struct: struct.__name__,
    )
    _, schemas = msgspec.json.schema_components(everything, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        if "description" in schema:
            # Python 3.13 takes the indentation of docstrings off, older ones keep it.
            schema["description"] = inspect.cleandoc(schema["description"])
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, (address, up, down, text) in CHANNELS.items():
        members = dict.fromkeys((*structs(up), *structs(down)))
        channels[name] = {
            "address": address,
            "description": text,
            "messages": {struct.__name__: _ref("messages", struct) for struct in members},
            "bindings": {"ws": {"method": "GET"}},
        }
        for action, union in (("receive", up), ("send", down)):
            operations[f"{name}_{action}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [
                    {"$ref": f"#/channels/{name}/messages/{struct.__name__}"} for struct in structs(union)
                ],
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "otelprogress feed",
            "version": f"{messages.PROTOCOL_VERSION}.0.0",
            "description": f"WebSocket, subprotocol {messages.SUBPROTOCOL}. The normative text is docs/protocol.md.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                struct.__name__: {
                    "name": struct.__struct_config__.tag,
                    "summary": inspect.getdoc(struct),
                    "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
                }
                for struct in everything
            },
            "schemas": schemas,
        },
    }


def _ref(kind: str, struct: type) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{struct.__name__}"}


def text() -> str:
    """The document as it stands in the repository."""
    plain = msgspec.to_builtins(document())
    return (
        "# Written by `python -m tests.protocol.asyncapi_document`; a test keeps it equal to the code.\n"
        + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
    )


if __name__ == "__main__":
    PATH.write_text(text())
