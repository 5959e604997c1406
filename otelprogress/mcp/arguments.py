"""What each tool takes: one struct a tool, from which both its JSON schema and its checks are made. Pure.

The schemas say as little as they can: a model pays for `tools/list` in every conversation. What it gives is taken with
some patience, because models write `"45"` for 45 and one name where a list is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.source import Status
from otelprogress.model.news import Until

MAX_IDS: Final = 32
MAX_TEXT_CHARS: Final = 4096
MIN_TOKENS, MAX_TOKENS = 50, 8000

OperationId: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=256, description="handle, id, label or unique prefix")
]
_Position = Annotated[
    str, Meta(max_length=64, description="position (@..) of an earlier answer: tell only what is new")
]
_Tokens = Annotated[int, Meta(ge=MIN_TOKENS, le=MAX_TOKENS)]
_Primitive: TypeAlias = str | bool | int | float


class ListArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `progress_list`."""

    status: Status = "all"
    query: Annotated[str, Meta(max_length=256, description="part of handle, title or service")] = ""
    mine: Annotated[bool, Meta(description="only those of this call's trace")] = False
    trace: Annotated[str, Meta(max_length=64, description="trace id")] = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 20


class GetArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `progress_get`."""

    id: OperationId
    detail: Annotated[bool, Meta(description="also its children")] = False
    since: _Position = ""
    max_tokens: _Tokens = 400


class WaitArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `progress_wait`."""

    ids: Annotated[list[OperationId], Meta(min_length=1, max_length=MAX_IDS)]
    since: _Position = ""
    until: Until = "attention"
    timeout_s: Annotated[float, Meta(ge=1, le=600)] = 45
    max_tokens: _Tokens = 300


class CancelArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `progress_cancel`."""

    id: OperationId
    reason: Annotated[str, Meta(max_length=1024)] = ""


class SignalArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `progress_signal`."""

    id: OperationId
    action: Annotated[
        str, Meta(min_length=1, max_length=64, description="pause, resume or a declared signal")
    ]


class RespondArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `progress_respond`."""

    id: OperationId
    input_id: Annotated[str, Meta(max_length=256, description="from its `?` line")] = ""
    content: Annotated[
        _Primitive | dict[str, _Primitive],
        Meta(description="the answer; for a form an object"),
    ]
    then_wait_s: Annotated[float, Meta(ge=0, le=600, description="then wait so long, as progress_wait")] = 0


class StartArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `progress_start`."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    arguments: dict[str, Any] = {}


A = TypeVar("A", bound=msgspec.Struct)

_SCHEMA_OF_CONTENT: Final = {"anyOf": [{"type": kind} for kind in ("string", "number", "boolean", "object")]}
"""Instead of what the union comes to, which is three times as long and says no more. A list of types would be shorter
still, but dialects of schemas that some models take have none."""


def schema_of(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments, without what nobody needs to know."""
    (_,), components = msgspec.json.schema_components([arguments])
    schema = components[arguments.__name__]
    properties = {name: _shortened(name, said) for name, said in schema["properties"].items()}
    shortened: dict[str, Any] = {"type": "object", "properties": properties}
    if required := schema.get("required"):
        shortened["required"] = required
    return shortened


def _shortened(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    if name == "content":
        return {"description": said["description"]} | _SCHEMA_OF_CONTENT
    kept = {
        key: value
        for key, value in said.items()
        if key not in ("minLength", "maxLength", "minItems") and not (key == "default" and not value)
    }
    if "items" in kept:
        kept["items"] = _shortened("", kept["items"])
    return kept


def read_arguments(arguments: Mapping[str, Any], wanted: type[A]) -> A:
    """The arguments of a call.

    Raises:
        Refusal: says which of them is wrong, and what it should be.
    """
    said = dict(arguments)
    if wanted is WaitArguments and isinstance(said.get("ids"), str):
        said["ids"] = [said["ids"]]
    # A position is said as `@kq58` in digests.
    if isinstance(since := said.get("since"), str):
        said["since"] = since.strip().removeprefix("@")
    try:
        return msgspec.convert(said, wanted, strict=wanted is RespondArguments)
    except msgspec.ValidationError as error:
        raise Refusal(f"invalid arguments: {_in_words(str(error), wanted)}") from None


def _in_words(text: str, wanted: type[msgspec.Struct]) -> str:
    """What msgspec says, without its dollar, and with the choices where there are some."""
    said, _, path = text.replace("`$.", "`").partition(" - at ")
    field = path.strip("`")
    choices = schema_of(wanted)["properties"].get(field, {}).get("enum")
    if choices:
        return f"{said} - `{field}` is one of {', '.join(choices)}"
    return f"{said} - at {path}" if field not in ("", "$") else said
