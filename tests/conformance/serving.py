"""A collector whose `/mcp` has, beside what it always has, what the conformance suite looks for.

Everything between the socket and the tools is what operators run: the collector's port, its lists of hosts and origins,
its tokens, the endpoint and the server with its own tools. Two things are put in: the fixtures behind the server's
handlers, and the token, which the suite cannot send, in front of the door.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import mcp_types as types
import pytest
from mcp.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from starlette.types import Receive, Scope, Send

from otelprogress.mcp.server import Context, build_server
from otelprogress_collector.app import Collector
from otelprogress_collector.mcp import endpoint
from otelprogress_collector.mcp.mount import Mcp
from tests.collector.collecting import collecting
from tests.conformance import fixtures
from tests.conformance.asking import asking_prompt

_WATCHED: Final = "test://watched-resource"


@asynccontextmanager
async def serving(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """That collector, with a token for everybody."""
    token = ""
    door = Mcp.__call__

    async def with_token(self: Mcp, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*scope["headers"], (b"authorization", b"Bearer " + token.encode())]
        await door(self, {**scope, "headers": headers}, receive, send)

    def with_fixtures(*arguments: Any, **settings: Any) -> Server[Any]:
        return add_fixtures(build_server(*arguments, **settings))

    monkeypatch.setattr(Mcp, "__call__", with_token)
    monkeypatch.setattr(endpoint, "build_server", with_fixtures)
    async with collecting(data_dir, durability="memory") as collector:
        assert collector.own_token
        token = collector.own_token
        yield collector


def add_fixtures(server: Server[Any]) -> Server[Any]:
    """Put the fixtures before a server's own handlers, which get whatever is not the suite's."""
    own = {name: entry.handler for name in _OWN if (entry := server.get_request_handler(name))}

    def add(method: str, params_type: type[Any]) -> Callable[[Any], None]:
        return lambda handler: server.add_request_handler(method, params_type, handler)

    @add("tools/list", types.PaginatedRequestParams)
    async def list_tools(context: Context, params: types.PaginatedRequestParams) -> types.ListToolsResult:
        ours = await own["tools/list"](context, params)
        added = [
            types.Tool(name=name, description=f"For the suite: {name}.", input_schema=dict(fixture.schema))
            for name, fixture in fixtures.TOOLS.items()
        ]
        return ours.model_copy(update={"tools": [*ours.tools, *added]})

    @add("tools/call", types.CallToolRequestParams)
    async def call_tool(context: Context, params: types.CallToolRequestParams) -> fixtures.ToolAnswer:
        fixture = fixtures.TOOLS.get(params.name)
        return await (own["tools/call"] if fixture is None else fixture.call)(context, params)

    @add("resources/list", types.PaginatedRequestParams)
    async def list_resources(
        context: Context, params: types.PaginatedRequestParams
    ) -> types.ListResourcesResult:
        ours = await own["resources/list"](context, params)
        return ours.model_copy(update={"resources": [*ours.resources, *fixtures.RESOURCES]})

    @add("resources/templates/list", types.PaginatedRequestParams)
    async def list_templates(
        context: Context, params: types.PaginatedRequestParams
    ) -> types.ListResourceTemplatesResult:
        ours = await own["resources/templates/list"](context, params)
        return ours.model_copy(update={"resource_templates": [*ours.resource_templates, fixtures.TEMPLATE]})

    @add("resources/read", types.ReadResourceRequestParams)
    async def read_resource(
        context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        contents = fixtures.read(params.uri)
        if contents is None:
            return await own["resources/read"](context, params)
        return types.ReadResourceResult(contents=[contents])

    for method in ("resources/subscribe", "resources/unsubscribe"):
        # One subscription is as good as another: the suite's is ours to everything that runs.
        entry = server.get_request_handler(method)
        assert entry is not None
        server.add_request_handler(method, entry.params_type, _renamed(entry.handler))

    @add("prompts/list", types.PaginatedRequestParams)
    async def list_prompts(context: Context, params: types.PaginatedRequestParams) -> types.ListPromptsResult:
        ours = await own["prompts/list"](context, params)
        return ours.model_copy(update={"prompts": [*ours.prompts, *fixtures.PROMPTS]})

    @add("prompts/get", types.GetPromptRequestParams)
    async def get_prompt(context: Context, params: types.GetPromptRequestParams) -> fixtures.PromptAnswer:
        if params.name == "test_input_required_result_prompt":
            return await asking_prompt(params)
        return fixtures.prompt(params.name, params.arguments or {}) or await own["prompts/get"](
            context, params
        )

    @add("completion/complete", types.CompleteRequestParams)
    async def complete(context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        return types.CompleteResult(completion=types.Completion(values=["paris", "park"], total=2))

    @add("logging/setLevel", types.SetLevelRequestParams)
    async def set_level(context: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        return types.EmptyResult()

    # What a call says to itself across its rounds is sealed.
    server.middleware.append(
        RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name)
    )
    return server


_OWN: Final = (
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
)


def _renamed(own: Any) -> Any:
    async def handler(context: Context, params: Any) -> Any:
        uri = "progress://operations" if params.uri == _WATCHED else params.uri
        return await own(context, params.model_copy(update={"uri": uri}))

    return handler
