"""What the conformance suite expects a server to have: tools, resources and prompts of fixed names and answers.

The suite's own descriptions of its scenarios say which. They stand beside ours (`serving`), and exist in the tests only.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import mcp_types as types
from mcp.shared.exceptions import MCPError

from otelprogress.mcp.server import Context

ToolAnswer: TypeAlias = types.CallToolResult | types.InputRequiredResult
ToolCall: TypeAlias = Callable[[Context, types.CallToolRequestParams], Awaitable[ToolAnswer]]
PromptAnswer: TypeAlias = types.GetPromptResult | types.InputRequiredResult
Contents: TypeAlias = types.TextResourceContents | types.BlobResourceContents

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
"""One pixel."""
WAV: Final = base64.b64encode(
    b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x02\0\0\0\0\0"
).decode()
"""One sample of silence."""
NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}
EVERY_KEYWORD: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""The schema that the scenario `json-schema-2020-12` looks for, keyword by keyword."""


class Fixture(NamedTuple):
    """A tool."""

    call: ToolCall
    schema: Mapping[str, Any]


TOOLS: Final[dict[str, Fixture]] = {}


def tool(schema: Mapping[str, Any] = NO_ARGUMENTS) -> Callable[[ToolCall], ToolCall]:
    """Have a function be a tool of its own name."""

    def register(call: ToolCall) -> ToolCall:
        TOOLS[call.__name__] = Fixture(call, schema)
        return call

    return register


def strings(*names: str, **more: Any) -> Mapping[str, Any]:
    """The schema of that many required strings."""
    properties = {name: {"type": "string", **more} for name in names}
    return {"type": "object", "properties": properties, "required": list(names)}


def said(*content: types.ContentBlock | str, is_error: bool = False) -> types.CallToolResult:
    """The answer of a tool."""
    blocks = [types.TextContent(text=each) if isinstance(each, str) else each for each in content]
    return types.CallToolResult(content=blocks, is_error=is_error)


def _image() -> types.ImageContent:
    return types.ImageContent(data=PNG, mime_type="image/png")


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.EmbeddedResource(resource=contents)


# --- tools --------------------------------------------------------------------------------------------------------


@tool()
async def test_simple_text(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return said("This is a simple text response for testing.")


@tool()
async def test_image_content(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return said(_image())


@tool()
async def test_audio_content(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return said(types.AudioContent(data=WAV, mime_type="audio/wav"))


@tool()
async def test_embedded_resource(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return said(_embedded("test://embedded-resource", "This is an embedded resource content."))


@tool()
async def test_multiple_content_types(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    mixed = _embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return said("Multiple content types test:", _image(), mixed)


@tool()
async def test_error_handling(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return said("This tool intentionally returns an error for testing", is_error=True)


@tool()
async def test_tool_with_progress(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    for done in (0, 50, 100):
        await context.session.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(0.05)
    return said("done")


@tool()
async def test_tool_with_logging(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message("info", text, related_request_id=context.request_id)
        await asyncio.sleep(0.05)
    return said("logged")


@tool()
async def test_logging_tool(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    await context.session.send_log_message(
        "info", "for those who ask for it", related_request_id=context.request_id
    )
    return said("logged, if that was asked for")


@tool()
async def test_reconnection(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    if context.close_sse_stream is not None:
        await context.close_sse_stream()
    return said("done")


@tool(EVERY_KEYWORD)
async def json_schema_2020_12_tool(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return said("only its schema is looked at")


@tool(strings("region", **{"x-mcp-header": "Region"}))
async def test_custom_header(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return said(f"region {(params.arguments or {}).get('region')}")


@tool()
async def test_missing_capability(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    needed = types.ClientCapabilities(sampling=types.SamplingCapability())
    if not context.session.check_client_capability(needed):
        data = {"requiredCapabilities": needed.model_dump(by_alias=True, exclude_none=True)}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this tool needs sampling", data)
    return said("the client can sample")


# --- resources ------------------------------------------------------------------------------------------------------

RESOURCES: Final = tuple(
    types.Resource(
        name=name, uri=f"test://{name}", description=f"For the suite: {name}.", mime_type=mime_type
    )
    for name, mime_type in (
        ("static-text", "text/plain"),
        ("static-binary", "image/png"),
        ("watched-resource", "text/plain"),
    )
)
TEMPLATE: Final = types.ResourceTemplate(
    name="template",
    uri_template="test://template/{id}/data",
    description="For the suite.",
    mime_type="application/json",
)


def read(uri: str) -> Contents | None:
    """What stands at an address; `None`: nothing of the suite's."""
    match uri.removeprefix("test://").split("/"):
        case ["static-text"]:
            text = "This is the content of the static text resource."
            return types.TextResourceContents(uri=uri, mime_type="text/plain", text=text)
        case ["static-binary"]:
            return types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
        case ["watched-resource"]:
            return types.TextResourceContents(uri=uri, mime_type="text/plain", text="watched")
        case ["template", which, "data"]:
            text = f'{{"id":"{which}","templateTest":true,"data":"Data for ID: {which}"}}'
            return types.TextResourceContents(uri=uri, mime_type="application/json", text=text)
    return None


# --- prompts --------------------------------------------------------------------------------------------------------


def _prompt(name: str, *arguments: str) -> types.Prompt:
    asked = [types.PromptArgument(name=each, description=each, required=True) for each in arguments]
    return types.Prompt(name=name, description=f"For the suite: {name}.", arguments=asked)


PROMPTS: Final = (
    _prompt("test_simple_prompt"),
    _prompt("test_prompt_with_arguments", "arg1", "arg2"),
    _prompt("test_prompt_with_embedded_resource", "resourceUri"),
    _prompt("test_prompt_with_image"),
    _prompt("test_input_required_result_prompt"),
)


def prompted(*content: types.ContentBlock | str) -> types.GetPromptResult:
    """The messages of a prompt, all of the user's."""
    blocks = [types.TextContent(text=each) if isinstance(each, str) else each for each in content]
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=each) for each in blocks])


def prompt(name: str, arguments: Mapping[str, str]) -> types.GetPromptResult | None:
    """What a prompt says; `None`: none of the suite's that needs nothing more from the client."""
    match name:
        case "test_simple_prompt":
            return prompted("This is a simple prompt for testing.")
        case "test_prompt_with_arguments":
            return prompted(f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'")
        case "test_prompt_with_embedded_resource":
            embedded = _embedded(arguments["resourceUri"], "Embedded resource content for testing.")
            return prompted(embedded, "Please process the embedded resource above.")
        case "test_prompt_with_image":
            return prompted(_image(), "Please analyze the image above.")
    return None
