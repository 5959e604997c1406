"""The suite's tools that ask the client for something: in the older era in mid-call, in the newer one as their answer.

Nothing of ours asks a client. They are here because they drive the transport as nothing else does: a server's request on
the stream of an answer, and a call that is answered in rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import mcp_types as types

from otelprogress.mcp.server import Context
from tests.conformance.fixtures import PromptAnswer, ToolAnswer, prompted, said, strings, tool

_PEOPLE: Final = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
_OPTIONS: Final = ["option1", "option2", "option3"]
_TITLED: Final = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
_ENUMS: Final = {
    "untitledSingle": {"type": "string", "enum": _OPTIONS},
    "titledSingle": {"type": "string", "oneOf": _TITLED},
    "legacyEnum": {"type": "string", "enum": _OPTIONS, "enumNames": ["One", "Two", "Three"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
}

# --- in mid-call --------------------------------------------------------------------------------------------------


async def _elicit(context: Context, message: str, properties: Mapping[str, Any]) -> ToolAnswer:
    asked = {"type": "object", "properties": dict(properties), "required": list(properties)[:1]}
    answer = await context.session.elicit_form(message, asked, related_request_id=context.request_id)
    return said(f"Elicitation completed: action={answer.action}, content={answer.content}")


@tool(strings("message"))
async def test_elicitation(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    properties = {"username": {"type": "string"}, "email": {"type": "string"}}
    return await _elicit(context, (params.arguments or {})["message"], properties)


@tool()
async def test_elicitation_sep1034_defaults(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    return await _elicit(context, "Please look through the defaults", _PEOPLE)


@tool()
async def test_elicitation_sep1330_enums(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return await _elicit(context, "Please choose", _ENUMS)


@tool(strings("prompt"))
async def test_sampling(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    answer = await context.session.create_message(
        [_message((params.arguments or {})["prompt"])], max_tokens=100, related_request_id=context.request_id
    )
    assert isinstance(answer.content, types.TextContent)
    return said(f"LLM response: {answer.content.text}")


# --- in rounds ------------------------------------------------------------------------------------------------------


def _message(text: str) -> types.SamplingMessage:
    return types.SamplingMessage(role="user", content=types.TextContent(text=text))


def _sample(text: str, max_tokens: int = 50) -> types.CreateMessageRequest:
    params = types.CreateMessageRequestParams(messages=[_message(text)], max_tokens=max_tokens)
    return types.CreateMessageRequest(params=params)


def _form(message: str, name: str, kind: str = "string") -> types.ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def _ask(state: str | None = None, **requests: types.InputRequest) -> types.InputRequiredResult:
    return types.InputRequiredResult(input_requests=requests, request_state=state)


def _filled_in(responses: types.InputResponses | None, request: str, field: str) -> str | None:
    """A field of a form that came back; `None`: it did not."""
    answer = (responses or {}).get(request)
    if not isinstance(answer, types.ElicitResult) or answer.content is None:
        return None
    value = answer.content.get(field)
    return None if value is None else str(value)


@tool()
async def test_input_required_result_elicitation(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    name = _filled_in(params.input_responses, "user_name", "name")
    return said(f"Hello, {name}!") if name else _ask(user_name=_form("What is your name?", "name"))


@tool()
async def test_streaming_elicitation(context: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    return await test_input_required_result_elicitation(context, params)


@tool()
async def test_input_required_result_sampling(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    answer = (params.input_responses or {}).get("capital_question")
    if isinstance(answer, types.CreateMessageResult) and isinstance(answer.content, types.TextContent):
        return said(answer.content.text)
    return _ask(capital_question=_sample("What is the capital of France?", 100))


@tool()
async def test_input_required_result_list_roots(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    answer = (params.input_responses or {}).get("client_roots")
    if isinstance(answer, types.ListRootsResult):
        return said(", ".join(str(root.uri) for root in answer.roots))
    return _ask(client_roots=types.ListRootsRequest())


@tool()
async def test_input_required_result_request_state(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    if params.request_state == "asked" and _filled_in(params.input_responses, "confirm", "ok"):
        return said("state-ok")
    return _ask("asked", confirm=_form("Please confirm", "ok", "boolean"))


@tool()
async def test_input_required_result_tampered_state(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    return await test_input_required_result_request_state(context, params)


@tool()
async def test_input_required_result_multiple_inputs(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    if {"user_name", "greeting", "client_roots"} <= (params.input_responses or {}).keys():
        return said("All of it came.")
    return _ask(
        "asked",
        user_name=_form("What is your name?", "name"),
        greeting=_sample("Generate a greeting"),
        client_roots=types.ListRootsRequest(),
    )


@tool()
async def test_input_required_result_multi_round(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    state = params.request_state or ""
    if state == "step 1" and (name := _filled_in(params.input_responses, "step1", "name")):
        return _ask(f"step 2 {name}", step2=_form("Step 2: What is your favorite color?", "color"))
    if state.startswith("step 2 ") and (color := _filled_in(params.input_responses, "step2", "color")):
        return said(f"{state.removeprefix('step 2 ')} likes {color}.")
    return _ask("step 1", step1=_form("Step 1: What is your name?", "name"))


@tool()
async def test_input_required_result_capabilities(
    context: Context, params: types.CallToolRequestParams
) -> ToolAnswer:
    can = context.session.client_capabilities or types.ClientCapabilities()
    requests: types.InputRequests = {}
    if can.sampling is not None:
        requests["sample"] = _sample("Say hello")
    if can.elicitation is not None:
        requests["ask"] = _form("What is your name?", "name")
    return _ask("asked", **requests)


async def asking_prompt(params: types.GetPromptRequestParams) -> PromptAnswer:
    """The prompt `test_input_required_result_prompt`."""
    told = _filled_in(params.input_responses, "user_context", "context")
    if told:
        return prompted(f"Mind this: {told}")
    return _ask(user_context=_form("What context should the prompt use?", "context"))
