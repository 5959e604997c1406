"""`/openapi.json`: what HTTP takes and answers. The feed's WebSocket is described in `docs/protocol.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from otelprogress.model.events import OperationView
from otelprogress.protocol.messages import CommandStatus
from otelprogress_collector.api.metrics import MEDIA_TYPE as METRICS_TYPE
from otelprogress_collector.api.problem import JSON, Problem, respond
from otelprogress_collector.api.problem import MEDIA_TYPE as PROBLEM_TYPE

if TYPE_CHECKING:
    from otelprogress_collector.api.access import Access

_Document = dict[str, Any]

_STRING: Final[_Document] = {"type": "string"}
_STRINGS: Final[_Document] = {"type": "array", "items": _STRING}


def _query(name: str, schema: _Document, description: str) -> _Document:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _several(name: str, description: str) -> _Document:
    return _query(name, _STRINGS, f"{description} May be given several times: any of them matches.") | {
        "style": "form",
        "explode": True,
    }


def _ok(description: str, media_type: str, schema: _Document) -> _Document:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _problem(description: str) -> _Document:
    return _ok(description, PROBLEM_TYPE, {"$ref": "#/components/schemas/Problem"})


def _status(description: str) -> _Document:
    return _ok(description, JSON, {"$ref": "#/components/schemas/CommandStatus"})


def _status_or_problem(description: str) -> _Document:
    content = _status(description)["content"] | _problem(description)["content"]
    return {"description": description, "content": content}


_BAD: Final = _problem("A parameter that is not known, or cannot be meant.")
_UNAUTHORIZED: Final = _problem("The token is missing, wrong, expired or revoked.")
_FORBIDDEN: Final = _problem("The token lacks the scope, or the Host or Origin is not on the list.")
_TOO_MANY: Final = _problem("More requests than the limit: come back after Retry-After.")
_BUSY: Final = _problem("Too much, or the collector ends or starts: come back after Retry-After.")

_OPERATION: Final = {
    "name": "operation",
    "in": "path",
    "required": True,
    "schema": _STRING,
    "description": "Handle, id, label, or the unique beginning of one.",
}

_FILTER: Final = [
    _several("run", "Run ids or handles."),
    _several("label", "Labels."),
    _several("trace_id", "32 hex digits."),
    _several("service", "Values of service.name."),
    _several("state", "running, waiting, paused, succeeded, failed, cancelled, lost."),
    _query("name", _STRING, "A glob over the name: * any characters, ? one."),
    {
        "name": "attributes",
        "in": "query",
        "required": False,
        "content": {JSON: {"schema": {"type": "object"}}},
        "description": 'A JSON object, as {"region": "eu"}: each must be equal.',
    },
    _query("subtree", _STRING, "A run id: it and everything below it."),
    _query(
        "roots",
        {"type": "boolean"},
        "Only operations without a parent; left out: yes, unless run, label, trace_id, name or subtree is given.",
    ),
    _query(
        "ended_within_s",
        {"type": "number", "minimum": 0, "default": 600},
        "Live, or ended less than so many seconds ago.",
    ),
    _query(
        "limit",
        {"type": "integer", "minimum": 1, "default": 1000},
        "How many at most, live ones and then the newest first; never more than 1000.",
    ),
    _query("after", _STRING, "The page that follows this run id: `next` of the page before."),
]

_MAX_TOKENS: Final = _query(
    "max_tokens",
    {"type": "integer", "minimum": 50, "maximum": 10_000, "default": 800},
    "The budget of one digest.",
)

_PATHS: Final[_Document] = {
    "/v1/operations": {
        "get": {
            "operationId": "listOperations",
            "summary": "What runs, or ended a short while ago.",
            "parameters": [
                *_FILTER,
                _query(
                    "render",
                    {"type": "string", "enum": ["events", "digest"], "default": "events"},
                    "digest: text for language models by docs/digest.md.",
                ),
                _query(
                    "since",
                    _STRING,
                    "With `render=digest`: the position of an earlier one; what changed since it.",
                ),
                _MAX_TOKENS,
            ],
            "responses": {
                "200": {
                    "description": "The operations that match, with their steps; or their digest, see docs/digest.md.",
                    "content": {
                        JSON: {"schema": {"$ref": "#/components/schemas/OperationList"}},
                        "text/plain": {"schema": _STRING},
                    },
                },
                "400": _BAD,
                "401": _UNAUTHORIZED,
                "403": _FORBIDDEN,
                "429": _TOO_MANY,
            },
        }
    },
    "/v1/operations/{operation}": {
        "get": {
            "operationId": "getOperation",
            "summary": "One operation, at once or when it has moved on.",
            "parameters": [
                _OPERATION,
                _query(
                    "after",
                    {"type": "integer"},
                    "Answer once the revision is higher than this, or after `wait` with what is there.",
                ),
                _query(
                    "wait",
                    {"type": "number", "minimum": 0, "maximum": 60, "default": 30},
                    "Seconds to wait for it.",
                ),
            ],
            "responses": {
                "200": _ok(
                    "Its state, with its steps.", JSON, {"$ref": "#/components/schemas/OperationView"}
                ),
                "400": _BAD,
                "401": _UNAUTHORIZED,
                "403": _FORBIDDEN,
                "429": _TOO_MANY,
                "404": _problem("Nothing that may be seen has that name."),
                "409": _problem("Several are meant: `candidates` has their handles."),
                "503": _BUSY,
            },
        }
    },
    "/v1/operations/{operation}/commands": {
        "post": {
            "operationId": "commandOperation",
            "summary": "Ask an operation for something that it declared. Accepted never means applied: docs/protocol.md.",
            "parameters": [_OPERATION],
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Command"}}},
            },
            "responses": {
                "200": _status("duplicate: it was accepted before; `message` says what became of it."),
                "202": _status("accepted: passed on to the operation's process."),
                "400": _status_or_problem("invalid, or the body is no command."),
                "401": _UNAUTHORIZED,
                "403": _status_or_problem("forbidden: the token lacks the scope; or as elsewhere."),
                "404": _status("not_found"),
                "409": _status("ended, unsupported or ambiguous"),
                "412": _status("stale: something durable has happened since `expect_revision`."),
                "413": _problem("A body of more than 64 KiB."),
                "415": _problem("A body that is not application/json."),
                "429": _status_or_problem(
                    "overloaded: too many commands wait for their effect; or as elsewhere. See Retry-After."
                ),
                "503": _status_or_problem("no_worker: its process cannot be told; or as elsewhere."),
            },
        }
    },
    "/v1/feed": {
        "get": {
            "operationId": "openFeed",
            "summary": "The feed as a WebSocket, see docs/protocol.md.",
            "responses": {
                "101": {"description": "The WebSocket is open."},
                "400": _BAD,
                "403": _FORBIDDEN,
                "426": _problem("It was asked for without an upgrade."),
                "503": _BUSY,
            },
        }
    },
    "/v1/feed/sse": {
        "get": {
            "operationId": "streamFeed",
            "summary": "The feed as server-sent events: the messages of docs/protocol.md, named by their type.",
            "parameters": [
                *_FILTER,
                _query(
                    "level",
                    {"type": "string", "enum": ["ticks", "milestones", "terminal"], "default": "milestones"},
                    "What is sent.",
                ),
                _query(
                    "max_rate_hz",
                    {"type": "number", "minimum": 0.001},
                    "Bounds ticks and digests of what can wait, and nothing else.",
                ),
                _query(
                    "render",
                    {"type": "string", "enum": ["events", "digest"], "default": "events"},
                    "digest: text for language models by docs/digest.md, as the data of events named digest.",
                ),
                _MAX_TOKENS,
                _query(
                    "cursor",
                    {"type": "string", "maxLength": 512},
                    "Where to go on; Last-Event-ID counts before it.",
                ),
                {
                    "name": "Last-Event-ID",
                    "in": "header",
                    "required": False,
                    "schema": {"type": "string", "maxLength": 512},
                    "description": "The id of the last event that was handled.",
                },
            ],
            "responses": {
                "200": _ok("Events, until one side ends it.", "text/event-stream", _STRING),
                "400": _BAD,
                "401": _UNAUTHORIZED,
                "403": _FORBIDDEN,
                "429": _TOO_MANY,
                "503": _BUSY,
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "getOpenApi",
            "summary": "This document.",
            "security": [],
            "responses": {"200": _ok("OpenAPI 3.1.", JSON, {"type": "object"}), "403": _FORBIDDEN},
        }
    },
    "/healthz": {
        "get": {
            "operationId": "getHealth",
            "summary": "Whether the process lives.",
            "security": [],
            "responses": {"200": _ok("It does.", JSON, {"$ref": "#/components/schemas/Status"})},
        }
    },
    "/readyz": {
        "get": {
            "operationId": "getReadiness",
            "summary": "Whether it serves.",
            "security": [],
            "responses": {
                "200": _ok("It does.", JSON, {"$ref": "#/components/schemas/Status"}),
                "503": _BUSY,
            },
        }
    },
    "/metrics": {
        "get": {
            "operationId": "getMetrics",
            "summary": "Metrics of the collector and of all operations, for Prometheus.",
            "responses": {
                "200": _ok("The text format, version 0.0.4.", METRICS_TYPE, _STRING),
                "401": _UNAUTHORIZED,
                "403": _FORBIDDEN,
                "429": _TOO_MANY,
            },
        }
    },
}

_SCHEMAS: Final[_Document] = {
    "OperationList": {
        "type": "object",
        "required": ["operations", "more"],
        "properties": {
            "operations": {"type": "array", "items": {"$ref": "#/components/schemas/OperationView"}},
            "more": {"type": "integer", "minimum": 0, "description": "How many more match."},
            "next": {
                "type": "string",
                "description": "Give it as `after` for the page that follows; absent: none does.",
            },
        },
    },
    "Command": {
        "type": "object",
        "required": ["action"],
        "additionalProperties": False,
        "properties": {
            "action": _STRING
            | {
                "maxLength": 256,
                "description": "cancel, pause, resume, input, or a signal that it declared.",
            },
            "command_id": _STRING
            | {"maxLength": 256, "description": "Makes several requests one command; left out: a new one."},
            "arguments": {
                "type": "object",
                "additionalProperties": {"type": ["string", "boolean", "number", "null"]},
                "description": "`reason`; for input `input_id` and `content`, or `content.NAME` for each field of a form.",
            },
            "expect_revision": {
                "type": ["integer", "null"],
                "description": "Of its last durable event; left out: any.",
            },
            "deadline_s": {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "maximum": 86_400,
                "description": "Refused as expired if it is not applied by then; left out: 300.",
            },
        },
    },
    "Status": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"enum": ["alive", "ready"]}},
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": _STRING,
            "title": _STRING,
            "status": {"type": "integer"},
            "detail": _STRING,
            "candidates": _STRINGS,
        },
    },
}


def _paths() -> _Document:
    return {
        path: {method: asked | {"responses": asked["responses"] | {"405": _other_method(method)}}}
        for path, methods in _PATHS.items()
        for method, asked in methods.items()
    }


def _other_method(method: str) -> _Document:
    return _problem(f"Another method than {method.upper()}.")


def document(version: str) -> _Document:
    """The whole document, for a collector of this version."""
    # What an operation and an answer look like stands once, in the structs that are sent.
    _, sent = msgspec.json.schema_components(
        [OperationView, CommandStatus], ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "otelprogress collector", "version": version or "0"},
        "paths": _paths(),
        "components": {
            "schemas": _SCHEMAS | sent,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


class OpenApi:
    """The ASGI application of `/openapi.json`.

    Args:
        access: judges `Host` and `Origin`; no token is needed.
        version: of the collector.
    """

    def __init__(self, access: Access, version: str) -> None:
        self._access = access
        self._body = msgspec.json.encode(document(version))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            self._access.admit(scope)
        except Problem as refused:
            await refused.answer(send)
        else:
            await respond(send, self._body)
